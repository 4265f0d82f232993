"""Transport: which endpoints are asked, in what order, and what is said of those that failed.

Stand-ins take the place of endpoints and of git-lfs; the store is a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from git_theta_ext.core.errors import CorruptObjectError, MissingObjectError, TransferError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import endpoints, folders, lfs, pointers, transport
from git_theta_ext.objects.transfer.endpoints import Endpoint
from git_theta_ext.objects.transfer.lfsconfig import Named

CONTENTS = {digit: digit.encode() * 1000 for digit in "abc"}
A, B, C = (UpdateRef("delta", sha256(one).hexdigest(), 1000) for one in CONTENTS.values())
BYTES = dict(zip((A.oid, B.oid, C.oid), CONTENTS.values(), strict=True))


class Nowhere(Repository):
    """A repository that has a store, no settings, and of which Git is not asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, path, path, None)

    def setting(self, name: str, default: str | None = None) -> str | None:
        return default

    def quick_setting(self, name: str, folder: Path) -> str | None:
        return None

    def git(self, *arguments: str, **options: object) -> bytes:
        raise AssertionError(f"git {arguments} was run")


class Servers:
    """What each remote has, or how it fails; who was asked for what, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has: dict[str, dict[str, bytes] | TransferError] = {}
        self.endpoints: list[Endpoint] = []
        self.asked: list[tuple[str, list[str]]] = []
        self.sent: list[str] = []

    def add(self, name: str, *items: UpdateRef, named: Named | None = None) -> None:
        self.has[name] = {item.oid: BYTES[item.oid] for item in items}
        setting = None if named is None else named.setting
        self.endpoints.append(Endpoint(name, f"https://{name}.example/", None, setting, named))

    def for_fetch(self, repository: Repository, remote: str | None) -> Iterator[Endpoint]:
        return iter(self.endpoints)

    def fetch(
        self,
        repository: Repository,
        endpoint: Endpoint,
        objects: list[UpdateRef],
        advance: Callable[[int], object],
    ) -> Path:
        self.asked.append((endpoint.remote, [item.oid for item in objects]))
        has = self.has[endpoint.remote]
        if isinstance(has, TransferError):
            raise has
        for item in objects:
            if item.oid in has:
                self.place(item).parent.mkdir(parents=True, exist_ok=True)
                self.place(item).write_bytes(has[item.oid])
                advance(item.size)
        return self.folder

    def place(self, item: UpdateRef) -> Path:
        return folders.object_path(self.folder, item.oid)

    def push(
        self,
        repository: Repository,
        endpoint: Endpoint,
        objects: list[UpdateRef],
        find: Callable[[UpdateRef], Path | None],
        advance: Callable[[int], object],
    ) -> list[UpdateRef]:
        """Takes all but what it has already."""
        has = self.has[endpoint.remote]
        assert not isinstance(has, TransferError)
        self.sent += [item.oid for item in objects if item.oid not in has]
        return [item for item in objects if item.oid in has]


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Servers:
    made = Servers(tmp_path / "downloads")
    monkeypatch.setattr(endpoints, "for_fetch", made.for_fetch)
    monkeypatch.setattr(endpoints, "for_push", lambda _, name, url: made.endpoints[0])
    monkeypatch.setattr(lfs, "fetch", made.fetch)
    monkeypatch.setattr(lfs, "push", made.push)
    monkeypatch.setattr(pointers, "publish", lambda *arguments: None)
    return made


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    path = tmp_path / "repo.git"
    path.mkdir()
    return Nowhere(path)


@pytest.fixture
def store(repository: Repository) -> Store:
    return store_of(repository)


def put(store: Store, *items: UpdateRef) -> None:
    for item in items:
        assert store.put([BYTES[item.oid]]) == (item.oid, item.size)
    store.flush()


class TestFetching:
    def test_the_next_one_is_asked_for_what_is_left(
        self, repository: Repository, servers: Servers, store: Store
    ) -> None:
        servers.add("one", A)
        servers.add("two", A, B)
        servers.add("three", C)
        told: list[int] = []
        found = transport.fetch(repository, [A, B, A], progress=told.append)
        assert found == ["one (https://one.example/)", "two (https://two.example/)"]
        assert servers.asked == [("one", [A.oid, B.oid]), ("two", [B.oid])]
        assert store.read(A.oid) + store.read(B.oid) == BYTES[A.oid] + BYTES[B.oid]
        assert sum(told) == 2000
        assert not servers.place(A).exists()

    def test_what_is_here_is_not_asked_for(
        self, repository: Repository, servers: Servers, store: Store
    ) -> None:
        servers.add("one", A)
        put(store, A)
        assert transport.fetch(repository, [A]) == []
        assert servers.asked == []

    def test_another_remote_makes_up_for_one_that_fails(
        self, repository: Repository, servers: Servers, store: Store
    ) -> None:
        for name in ("down", "bare", "up"):
            servers.add(name, A)
        servers.has["down"] = TransferError("no route")
        servers.has["bare"] = lfs.LfsNotInstalledError()
        assert transport.fetch(repository, [A]) == ["up (https://up.example/)"]
        assert store.has(A.oid, A.size)

    def test_what_is_nowhere_is_said_with_each_place_that_was_tried(
        self, repository: Repository, servers: Servers, store: Store
    ) -> None:
        for name in ("down", "empty", "damaged"):
            servers.add(name, A)
        servers.has |= {
            "down": TransferError("no route\nto host"),
            "empty": {},
            "damaged": {A.oid: BYTES[A.oid], B.oid: BYTES[B.oid][:-1] + b"x"},
        }
        with pytest.raises(MissingObjectError) as caught:
            transport.fetch(repository, [A, B, C])
        said, *tried = caught.value.message.split("\n")
        assert said.startswith("2 objects (delta sha256:")
        assert said.endswith("1000 bytes, ...) could not be fetched:")
        assert tried[:3] == ["  down: no route", "    to host", "  empty: not there"]
        assert tried[3].startswith("  damaged: ")
        assert B.oid in tried[3]
        assert (caught.value.hint or "").startswith("put right what it says")
        # The rest is kept; the damaged download is not, so that it is not taken for whole.
        assert store.has(A.oid, A.size)
        assert not servers.place(B).exists()

    def test_where_all_answered_the_hint_is_another(
        self, repository: Repository, servers: Servers
    ) -> None:
        servers.add("one")
        with pytest.raises(MissingObjectError, match=r"^1 object ") as caught:
            transport.fetch(repository, [A])
        assert (caught.value.hint or "").startswith("where the objects are, type: git theta push")

    def test_without_a_remote_that_is_said(self, repository: Repository, servers: Servers) -> None:
        with pytest.raises(MissingObjectError, match="this repository has no remote"):
            transport.fetch(repository, [A])

    def test_without_git_lfs_that_is_the_error_if_something_is_missing(
        self, repository: Repository, servers: Servers
    ) -> None:
        servers.add("one")
        servers.has["one"] = lfs.LfsNotInstalledError()
        with pytest.raises(lfs.LfsNotInstalledError):
            transport.fetch(repository, [A])

    @pytest.mark.parametrize("reachable", [False, True])
    def test_a_stranger_is_asked_only_where_that_tells_it_nothing(
        self, repository: Repository, servers: Servers, reachable: bool
    ) -> None:
        named = Named("https://x.example/", "lfs.url", ".lfsconfig", False, reachable)
        servers.add("one", A, named=named)
        if reachable:
            assert len(transport.fetch(repository, [A])) == 1
            return
        with pytest.raises(MissingObjectError, match="asked without credentials") as caught:
            transport.fetch(repository, [A])
        assert "git config --add" in (caught.value.hint or "")
        assert servers.asked == []


class TestPushing:
    def push(
        self, repository: Repository, *items: UpdateRef, cache: bool = True
    ) -> transport.Pushed:
        return transport.push(repository, "one", "url", items, use_cache=cache)

    def test_each_object_is_sent_once_and_remembered(
        self, repository: Repository, servers: Servers, store: Store
    ) -> None:
        servers.add("one")
        put(store, A, B)
        assert self.push(repository, A, A, B) == transport.Pushed(2, 2000)
        assert servers.sent == [A.oid, B.oid]
        assert transport.unconfirmed(repository, "one", "url", [A, B]) == []
        assert self.push(repository, A, B) == transport.Pushed(0, 0)
        assert self.push(repository, A, cache=False) == transport.Pushed(1, 1000)

    def test_what_the_server_says_that_it_has_is_not_counted_as_sent(
        self, repository: Repository, servers: Servers, store: Store
    ) -> None:
        servers.add("one", B)
        put(store, A, B)
        assert self.push(repository, A, B) == transport.Pushed(1, 1000, claimed=1)

    def test_what_only_another_remote_has_is_fetched_first(
        self, repository: Repository, servers: Servers, store: Store
    ) -> None:
        servers.add("one")
        servers.add("two", A)
        assert self.push(repository, A).count == 1
        assert store.has(A.oid, A.size)
        assert servers.sent == [A.oid]

    def test_damage_here_stops_it_before_anything_is_sent(
        self, repository: Repository, servers: Servers, store: Store
    ) -> None:
        servers.add("one")
        put(store, A, B)
        store.path(B.oid).chmod(0o644)
        store.path(B.oid).write_bytes(b"x" * 1000)
        with pytest.raises(CorruptObjectError):
            self.push(repository, A, B)
        assert servers.sent == []
        assert len(transport.unconfirmed(repository, "one", "url", [A, B])) == 2

    def test_the_place_is_said_where_a_file_named_it(
        self, repository: Repository, servers: Servers, store: Store
    ) -> None:
        servers.add("one", named=Named("u", "lfs.url", ".lfsconfig", True, True))
        put(store, A)
        place = "one (https://one.example/, from .lfsconfig lfs.url)"
        assert self.push(repository, A).place == place


def test_an_object_lies_where_git_lfs_has_it(tmp_path: Path) -> None:
    assert folders.object_path(tmp_path, "abcdef") == tmp_path / "objects/ab/cd/abcdef"
