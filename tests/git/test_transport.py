"""Objects move between real repositories, over paths and over HTTP, and nothing is believed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from git_theta_ext.core.errors import CorruptObjectError, MissingObjectError, TransferError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import endpoints, folders, lfs, transport
from tests.scenarios.objects import damage, put
from tests.scenarios.repositories import Repo
from tests.servers.lfs import LfsServer, lfs_server

CONTENTS = (b"a" * 3000, b"b" * 200_000, b"c")
ABSENT = UpdateRef("delta", "0" * 64, 7)

Make = Callable[..., Repository]


@pytest.fixture
def make(sealed: Path, tmp_path: Path) -> Make:
    """Makes a repository without the extension; `origin` names another one beside it."""

    def new(name: str, origin: str | None = None, *, bare: bool = False) -> Repository:
        path = tmp_path / name
        path.mkdir(parents=True)
        repo = Repo(path)
        repo.git("init", "-q", *(["--bare"] if bare else []))
        if origin is not None:
            repo.git("remote", "add", "origin", origin)
        return Repository.discover(path)

    return new


@pytest.fixture
def server() -> Iterator[LfsServer]:
    """An LFS server that runs."""
    with lfs_server() as state:
        yield state


def lfs_path(folder: Path, ref: UpdateRef) -> Path:
    """Where git-lfs keeps an object of the repository whose Git directory this is."""
    return folders.object_path(folder / "lfs", ref.oid)


@pytest.mark.parametrize("kind", ["path", "file", "relative", "work tree", "suffix"])
def test_path_remotes_take_and_give(make: Make, tmp_path: Path, kind: str) -> None:
    bare = kind != "work tree"
    remote = make("it's a remote.git" if bare else "it's a remote", bare=bare)
    top = remote.git_dir if bare else remote.top
    url = {
        "path": str(top), "file": top.as_uri(), "relative": f"../{top.name}",
        "work tree": str(top), "suffix": str(top).removesuffix(".git"),
    }[kind]  # fmt: skip
    here = make("here", url)
    refs = put(here, *CONTENTS)

    pushed = transport.push(here, "origin", url, refs)

    assert pushed == transport.Pushed(3, sum(map(len, CONTENTS)))
    for ref, content in zip(refs, CONTENTS, strict=True):
        assert lfs_path(remote.git_dir, ref).read_bytes() == content
        assert lfs_path(remote.git_dir, ref).stat().st_nlink == 1
    assert transport.push(here, "origin", url, refs) == transport.Pushed(0, 0)
    assert not list((remote.git_dir / "lfs/tmp").iterdir())

    there = make("there", url)
    transport.fetch(there, refs)
    assert [store_of(there).read(ref.oid) for ref in refs] == list(CONTENTS)
    assert all(store_of(there).path(ref.oid).stat().st_nlink == 1 for ref in refs)


def test_objects_come_from_a_remotes_own_store(make: Make) -> None:
    refs = put(other := make("other"), *CONTENTS)
    here = make("here", str(other.top))
    seen: list[int] = []
    transport.fetch(here, refs, progress=seen.append)
    assert all(store_of(here).has(ref.oid, ref.size) for ref in refs)
    assert sum(seen) == sum(map(len, CONTENTS))


def test_objects_in_the_local_lfs_folder_need_no_remote(make: Make) -> None:
    here, other = make("here"), make("other")
    refs = put(other, *CONTENTS)
    for ref in refs:
        path = lfs_path(here.git_dir, ref)
        path.parent.mkdir(parents=True)
        path.write_bytes(store_of(other).read(ref.oid))
    damage(lfs_path(here.git_dir, refs[1]))
    with pytest.raises(MissingObjectError, match=refs[1].oid):
        transport.fetch(here, refs)
    assert [store_of(here).has(ref.oid) for ref in refs] == [True, False, True]


def test_lfs_storage_is_respected_on_both_sides(make: Make, tmp_path: Path) -> None:
    remote = make("remote", bare=True)
    Repo(remote.git_dir).git("config", "lfs.storage", str(tmp_path / "elsewhere"))
    here = make("here", str(remote.git_dir))
    (ref,) = put(here, b"content")
    transport.push(here, "origin", str(remote.git_dir), [ref])
    assert folders.object_path(tmp_path / "elsewhere", ref.oid).read_bytes() == b"content"
    there = make("there")
    Repo(there.top).git("config", "lfs.storage", str(tmp_path / "elsewhere"))
    transport.fetch(Repository.discover(there.top), [ref])
    assert store_of(there).read(ref.oid) == b"content"


def test_what_is_nowhere_is_named_and_the_rest_is_kept(make: Make) -> None:
    refs = put(other := make("other"), *CONTENTS)
    here = make("here", str(other.top))
    with pytest.raises(MissingObjectError) as caught:
        transport.fetch(here, [*refs, ABSENT, UpdateRef("dense", "1" * 64, 9)])
    assert "2 objects" in caught.value.message
    assert ABSENT.oid in caught.value.message
    assert "origin: not there" in caught.value.message
    assert "git theta fetch" in str(caught.value.hint)
    assert all(store_of(here).has(ref.oid) for ref in refs)


def test_a_repository_without_a_remote_says_so(make: Make) -> None:
    with pytest.raises(MissingObjectError, match="no remote"):
        transport.fetch(make("here"), [ABSENT])


def test_a_damaged_object_of_a_remote_is_refused(make: Make) -> None:
    refs = put(other := make("other"), *CONTENTS)
    damage(store_of(other).path(refs[0].oid))
    here = make("here", str(other.top))
    with pytest.raises(MissingObjectError, match="should be object"):
        transport.fetch(here, refs)
    assert not store_of(here).has(refs[0].oid)
    assert store_of(here).has(refs[1].oid)


def test_another_remote_helps_out(make: Make) -> None:
    empty, full = make("empty", bare=True), make("full")
    refs = put(full, *CONTENTS)
    here = make("here", str(empty.git_dir))
    Repo(here.top).git("remote", "add", "gone", "/nowhere/at/all")
    Repo(here.top).git("remote", "add", "spare", str(full.top))
    transport.fetch(here, refs, remote="gone")
    assert all(store_of(here).has(ref.oid) for ref in refs)


def test_a_damaged_object_is_never_pushed(make: Make) -> None:
    remote = make("remote", bare=True)
    here = make("here", str(remote.git_dir))
    (ref,) = put(here, b"content")
    damage(store_of(here).path(ref.oid))
    with pytest.raises(CorruptObjectError, match="is damaged"):
        transport.push(here, "origin", str(remote.git_dir), [ref])
    assert not lfs_path(remote.git_dir, ref).exists()


def test_a_push_needs_every_object_here_or_there(make: Make) -> None:
    remote = make("remote", bare=True)
    here = make("here", str(remote.git_dir))
    refs = put(here, *CONTENTS)
    transport.push(here, "origin", str(remote.git_dir), refs[:1])
    store_of(here).path(refs[0].oid).unlink()
    assert transport.push(here, "origin", str(remote.git_dir), refs).count == 2
    with pytest.raises(MissingObjectError):
        transport.push(here, "origin", str(remote.git_dir), [ABSENT])


def test_a_truncated_object_at_a_path_remote_is_replaced(make: Make) -> None:
    remote = make("remote", bare=True)
    here = make("here", str(remote.git_dir))
    refs = put(here, *CONTENTS)
    transport.push(here, "origin", str(remote.git_dir), refs)
    lfs_path(remote.git_dir, refs[1]).write_bytes(b"")
    assert transport.push(here, "origin", str(remote.git_dir), refs).count == 1
    assert lfs_path(remote.git_dir, refs[1]).read_bytes() == CONTENTS[1]


def test_no_repository_at_the_path(make: Make, tmp_path: Path) -> None:
    here = make("here", str(tmp_path / "nothing"))
    with pytest.raises(TransferError, match="no repository"):
        transport.push(here, "origin", str(tmp_path / "nothing"), put(here, b"content"))


def test_a_shared_remote_stays_writable_for_its_group(make: Make, tmp_path: Path) -> None:
    remote = make("remote", bare=True)
    (remote.git_dir / "objects").chmod(0o2775)
    here = make("here", str(remote.git_dir))
    (ref,) = put(here, b"content")
    transport.push(here, "origin", str(remote.git_dir), [ref])
    path = lfs_path(remote.git_dir, ref)
    model = stat.S_IMODE((remote.git_dir / "objects").stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == model & 0o666
    assert stat.S_IMODE(path.parent.stat().st_mode) == model


def over_http(make: Make, server: LfsServer, name: str) -> Repository:
    """A repository whose LFS endpoint is the server."""
    repository = make(name, "https://git.example.invalid/team/model.git")
    Repo(repository.top).git("config", "lfs.url", server.url)
    return Repository.discover(repository.top)


def push_http(here: Repository, refs: list[UpdateRef], **options: bool) -> transport.Pushed:
    return transport.push(here, "origin", "https://git.example.invalid/x", refs, **options)


def test_http_takes_and_gives(make: Make, server: LfsServer) -> None:
    here, there = over_http(make, server, "here"), over_http(make, server, "there")
    refs = put(here, *CONTENTS)
    seen: list[int] = []

    assert push_http(here, refs).count == 3
    assert server.objects == {r.oid: c for r, c in zip(refs, CONTENTS, strict=True)}
    assert not (here.git_dir / "lfs/objects").exists()

    transport.fetch(there, refs, progress=seen.append)
    assert [store_of(there).read(ref.oid) for ref in refs] == list(CONTENTS)
    assert sum(seen) == sum(map(len, CONTENTS))
    assert not list((store_of(there).root / "lfs").glob("run-*"))
    assert not list((store_of(there).root / "lfs").glob("objects/??/??/*"))
    counted = Repo(there.top).git("count-objects").split()[0]
    assert counted == "0"


def test_a_second_push_asks_nothing(make: Make, server: LfsServer) -> None:
    here = over_http(make, server, "here")
    refs = put(here, *CONTENTS)
    push_http(here, refs)
    asked = len(server.requests)
    assert push_http(here, refs) == transport.Pushed(0, 0)
    assert len(server.requests) == asked
    assert push_http(here, refs, use_cache=False).claimed == len(refs)
    assert len(server.requests) == asked + 2  # what it says that it has is asked about again


def test_the_record_is_per_endpoint(make: Make, server: LfsServer) -> None:
    here = over_http(make, server, "here")
    refs = put(here, *CONTENTS)
    push_http(here, refs)
    with lfs_server() as second:
        Repo(here.top).git("config", "lfs.url", second.url)
        push_http(Repository.discover(here.top), refs)
        assert set(second.objects) == {ref.oid for ref in refs}


def test_what_another_process_took_meanwhile_is_not_missed(
    make: Make, server: LfsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that share a store share git-lfs's folder: who comes first takes the objects."""
    refs = put(here := over_http(make, server, "here"), *CONTENTS)
    push_http(here, refs)
    there = over_http(make, server, "there")
    download, take, left = lfs.fetch, Store.take, iter((0, 2))

    def overtaken(*arguments: Any) -> Path:
        folder = download(*arguments)
        for ref in refs[: next(left)]:
            take(
                store_of(there),
                folders.object_path(folder, ref.oid),
                ref.oid,
                ref.size,
                move=True,
            )
        return folder

    def overtaken_late(store: Store, source: Path, oid: str, size: int, **options: bool) -> None:
        take(store, source, oid, size, move=True)
        monkeypatch.setattr(Store, "take", take)
        take(Store(store.root / "nothing"), source, oid, size, **options)

    monkeypatch.setattr(lfs, "fetch", overtaken)
    monkeypatch.setattr(Store, "take", overtaken_late)
    transport.fetch(there, refs)
    assert [store_of(there).read(ref.oid) for ref in refs] == list(CONTENTS)
    again = over_http(make, server, "again")
    there = again
    transport.fetch(again, refs)
    assert [store_of(again).read(ref.oid) for ref in refs] == list(CONTENTS)


def test_settings_that_make_git_lfs_fetch_less_do_not_count(make: Make, server: LfsServer) -> None:
    refs = put(here := over_http(make, server, "here"), *CONTENTS)
    push_http(here, refs)
    there = over_http(make, server, "there")
    (there.top / ".lfsconfig").write_text('[lfs]\n\tfetchexclude = "*"\n')
    Repo(there.top).git("config", "lfs.fetchinclude", "nothing/*")
    Repo(there.top).git("config", "lfs.fetchrecentalways", "true")
    transport.fetch(there, refs)
    assert all(store_of(there).has(ref.oid, ref.size) for ref in refs)


def test_the_endpoint_of_lfsconfig_counts_once_it_is_confirmed(
    make: Make, server: LfsServer
) -> None:
    here = make("here", "https://git.example.invalid/team/model.git")
    (here.top / ".lfsconfig").write_text(f"[lfs]\n\turl = {server.url}\n")
    refs = put(here, *CONTENTS)
    with pytest.raises(TransferError, match="you have not confirmed it"):
        push_http(here, refs)
    assert server.requests == []
    Repo(here.top).git("config", "theta.trustedLfsUrl", server.url)
    push_http(here, refs)
    assert len(server.objects) == 3


def test_a_lfs_url_counts_more_than_a_path_remote(make: Make, server: LfsServer) -> None:
    remote = make("remote", bare=True)
    here = make("here", str(remote.git_dir))
    Repo(here.top).git("config", "remote.origin.lfsurl", server.url)
    here = Repository.discover(here.top)
    transport.push(here, "origin", str(remote.git_dir), put(here, *CONTENTS))
    assert len(server.objects) == 3
    assert not (remote.git_dir / "lfs").exists()


def test_what_the_server_lacks_is_named(make: Make, server: LfsServer) -> None:
    refs = put(here := over_http(make, server, "here"), *CONTENTS)
    push_http(here, refs)
    there = over_http(make, server, "there")
    with pytest.raises(MissingObjectError, match=ABSENT.oid):
        transport.fetch(there, [*refs, ABSENT])
    assert all(store_of(there).has(ref.oid) for ref in refs)


def test_damage_at_the_server_is_refused(make: Make, server: LfsServer) -> None:
    refs = put(here := over_http(make, server, "here"), *CONTENTS)
    push_http(here, refs)
    server.objects[refs[0].oid] = b"b" + CONTENTS[0][1:]
    there = over_http(make, server, "there")
    with pytest.raises(MissingObjectError, match=refs[0].oid):
        transport.fetch(there, refs)
    assert not store_of(there).has(refs[0].oid)
    server.objects[refs[0].oid] = CONTENTS[0]
    transport.fetch(there, refs)
    assert store_of(there).read(refs[0].oid) == CONTENTS[0]


def test_damage_here_is_refused_before_anything_is_sent(make: Make, server: LfsServer) -> None:
    refs = put(here := over_http(make, server, "here"), *CONTENTS)
    damage(store_of(here).path(refs[2].oid))
    with pytest.raises(CorruptObjectError, match=refs[2].oid):
        push_http(here, refs)
    assert not server.requests


def test_a_refusal_carries_what_git_lfs_says(make: Make, server: LfsServer) -> None:
    refs = put(here := over_http(make, server, "here"), *CONTENTS)
    Repo(here.top).git("config", "lfs.transfer.maxretries", "1")
    server.refuse_uploads = 403
    with pytest.raises(TransferError, match=r"(?s)git lfs push to origin failed: .+") as caught:
        push_http(here, refs)
    assert "quota" in caught.value.message or "403" in caught.value.message
    server.refuse_uploads = 0
    assert push_http(here, refs).count == 3


def test_what_the_server_cannot_process_is_no_success(make: Make, server: LfsServer) -> None:
    """git-lfs exits with 0 after a 422."""
    refs = put(here := over_http(make, server, "here"), *CONTENTS)
    server.refuse_uploads = 422
    with pytest.raises(TransferError, match="422") as caught:
        push_http(here, refs)
    assert "push again" in str(caught.value.hint)
    assert not server.objects
    server.refuse_uploads = 0
    assert push_http(here, refs).count == 3


def test_a_limit_of_requests_is_named(make: Make, server: LfsServer) -> None:
    refs = put(here := over_http(make, server, "here"), *CONTENTS[:1])
    Repo(here.top).git("config", "lfs.transfer.maxretries", "1")
    server.refuse_uploads = 429
    with pytest.raises(TransferError, match=r"limits the rate .* wait a while"):
        push_http(here, refs)


def test_an_error_of_many_objects_is_told_once(make: Make, server: LfsServer) -> None:
    refs = put(here := over_http(make, server, "here"), *CONTENTS)
    Repo(here.top).git("config", "lfs.transfer.maxretries", "1")
    server.refuse_uploads = 500
    with pytest.raises(TransferError) as caught:
        push_http(here, refs)
    lines = caught.value.message.splitlines()
    assert len(lines) == len(set(lines)) <= 2
    assert "logged" not in caught.value.message


def test_an_object_that_only_the_server_has_does_not_stop_a_push(
    make: Make, server: LfsServer
) -> None:
    refs = put(here := over_http(make, server, "here"), *CONTENTS)
    push_http(here, refs[:1])
    fresh = over_http(make, server, "fresh")
    put(fresh, *CONTENTS[1:])
    done = push_http(fresh, refs)
    assert (done.count, done.claimed) == (2, 1)
    assert len(server.objects) == 3


def test_offline_says_so(make: Make) -> None:
    with lfs_server() as gone:
        here = over_http(make, gone, "here")
    refs = put(here, *CONTENTS)
    Repo(here.top).git("config", "lfs.transfer.maxretries", "1")
    with pytest.raises(TransferError, match="failed"):
        push_http(here, refs)
    with pytest.raises(MissingObjectError, match="git lfs fetch failed") as caught:
        transport.fetch(here, [ABSENT])
    assert "put right what it says, then type: git theta fetch" in str(caught.value.hint)


def test_without_git_lfs_the_hint_says_what_to_install(
    make: Make, server: LfsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = over_http(make, server, "here")
    refs = put(here, *CONTENTS)
    # git looks for `git-lfs` on PATH and among its own programs; a PATH of git alone hides it.
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "sh"):
        found = next(p for p in map(Path, os.get_exec_path()) if (p / name).exists())
        (programs / name).symlink_to(found / name)
    monkeypatch.setenv("PATH", str(programs))
    for act in (lambda: push_http(here, refs), lambda: transport.fetch(here, [ABSENT])):
        with pytest.raises(TransferError, match="not installed") as caught:
            act()
        assert "install git-lfs" in str(caught.value.hint)


def test_silence_ends_a_transfer(make: Make, tmp_path: Path) -> None:
    here = make("here", "https://git.example.invalid/x")
    agent = tmp_path / "agent"
    agent.write_text("#!/bin/sh\nsleep 30\n")
    agent.chmod(0o755)
    Repo(here.top).git("config", "theta.transferTimeout", "0.5")
    Repo(here.top).git("config", "lfs.customtransfer.slow.path", str(agent))
    Repo(here.top).git("config", "lfs.standalonetransferagent", "slow")
    here = Repository.discover(here.top)
    with pytest.raises(TransferError, match=r"no progress for 0\.5 seconds"):
        push_http(here, put(here, *CONTENTS))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/srv/model.git", "/srv/model.git"),
        ("file:///srv/a%20b", "/srv/a b"),
        ("file://localhost/srv/x", "/srv/x"),
        ("../up", "/base/up"),
        ("./odd:name", "/base/here/odd:name"),
        ("host:path", None),
        ("git@host:path/to", None),
        ("https://host/path", None),
        ("ssh://host/path", None),
        ("file://elsewhere/share", None),
    ],
)
def test_which_urls_are_folders(url: str, path: str | None) -> None:
    expected = None if path is None else Path(os.path.abspath(path))
    assert endpoints.local_path(url, Path("/base/here")) == expected


def test_the_branchs_remote_comes_first(make: Make) -> None:
    here = make("here", "https://one.example.invalid/x")
    repo = Repo(here.top)
    repo.git("remote", "add", "fork", "https://two.example.invalid/x")
    assert endpoints.default_remote(here) == "origin"
    repo.git("config", "branch.main.remote", "fork")
    here = Repository.discover(here.top)
    assert [e.remote for e in endpoints.for_fetch(here, None)] == ["fork", "origin"]
    assert [e.remote for e in endpoints.for_fetch(here, "origin")] == ["origin", "fork"]


def test_manifests_are_found_by_content_not_by_name(make: Make) -> None:
    here = make("here")
    repo = Repo(here.top)
    manifest = b"git-theta manifest v1\nformat opaque\n"
    repo.write("deep/model.any", manifest)
    repo.write("other", b"git-theta manifesto\n")
    repo.write("large", b"\0" * 100_000)
    first = repo.commit("one")
    repo.write("second", manifest + b"x")
    second = repo.commit("two")
    repo.git("tag", "-a", "-m", "tag", "v1", second)
    tag, blob = repo.git("rev-parse", "v1", "HEAD:second").split()

    def found(include: list[str], exclude: list[str]) -> list[bytes]:
        return sorted(data for _, data in reachable.manifests_in(here, include, exclude))

    assert found([second], []) == [manifest, manifest + b"x"]
    assert found([tag], [first]) == [manifest + b"x"]
    assert found([blob], []) == [manifest + b"x"]
    assert found([second], ["1" * 40]) == [manifest, manifest + b"x"]
    assert found([second], [tag]) == []
    assert found([], []) == []


def test_a_partial_clone_is_not_filled_by_looking(make: Make, tmp_path: Path) -> None:
    origin = make("origin")
    repo = Repo(origin.top)
    repo.write("model", b"git-theta manifest v1\n1")
    repo.commit("one")
    repo.write("model", b"git-theta manifest v1\n2")
    head = repo.commit("two")
    repo.git("config", "uploadpack.allowFilter", "true")
    Repo(tmp_path).git("clone", "-q", "--filter=blob:none", origin.top.as_uri(), "partial")
    partial = Repository.discover(tmp_path / "partial")
    missing = Repo(partial.top).git("rev-list", "--objects", "--all", "--missing=print")
    assert missing.count("\n?") == 1
    found = [data for _, data in reachable.manifests_in(partial, [head, "2" * 40], ["3" * 40])]
    assert found == [b"git-theta manifest v1\n2"]
    assert Repo(partial.top).git("rev-list", "--objects", "--all", "--missing=print") == missing
