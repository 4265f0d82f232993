"""git-lfs as a carrier: what it is told, what is made of what it says, and what it may know.

A stand-in answers in its place, as git-lfs does: with a status, sentences on stderr, and files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from git_theta_ext.core.errors import TransferError, UsageError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import lfs
from git_theta_ext.objects.transfer.endpoints import Endpoint
from git_theta_ext.objects.transfer.lfsconfig import Named
from git_theta_ext.objects.transfer.pointer_files import read_pointer
from tests.scenarios.repositories import Repo

URL = "https://host.example/lfs"
SERVER = Endpoint("origin", URL, None)
SIGNED = f"{URL}/store/1?X-Signature=secret&y=z"


def stranger(url: str = URL) -> Endpoint:
    """A server that `.lfsconfig` names and the user has not chosen."""
    named = Named(url, "lfs.url", ".lfsconfig", chosen=False, reachable=True)
    return Endpoint("origin", url, None, "lfs.url", named)


@dataclass
class Lfs:
    """What stands in for git-lfs: how it answers, and what it was asked."""

    answer: Callable[[Call], tuple[int, str]] = lambda call: (0, "")
    calls: list[Call] = field(default_factory=list)

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        *,
        stdin: bytes,
        tick: Callable[[], None],
        env: Mapping[str, str],
    ) -> tuple[int, str]:
        call = Call(list(arguments), stdin, dict(env))
        self.calls.append(call)
        return self.answer(call)


@dataclass
class Call:
    """One run of git-lfs."""

    arguments: list[str]
    stdin: bytes
    env: dict[str, str]

    @property
    def command(self) -> str:
        return self.arguments[self.arguments.index("lfs") + 1]

    @property
    def storage(self) -> Path:
        (found,) = (one for one in self.arguments if one.startswith("lfs.storage="))
        return Path(found.removeprefix("lfs.storage="))

    def place(self, oid: str) -> Path:
        return self.storage / "objects" / oid[:2] / oid[2:4] / oid

    def progress(self, *lines: str) -> None:
        Path(self.env["GIT_LFS_PROGRESS"]).write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def git_lfs(monkeypatch: pytest.MonkeyPatch) -> Lfs:
    stand_in = Lfs()
    monkeypatch.setattr(lfs, "run_watched", stand_in.run)
    return stand_in


@pytest.fixture
def repository(new_repo: Callable[..., Repo]) -> Repository:
    return Repository.discover(new_repo(install=False).path)


def put(repository: Repository, *contents: bytes) -> list[UpdateRef]:
    store = store_of(repository)
    made = [store.put([content]) for content in contents]
    store.flush()
    return [UpdateRef("dense", oid, size) for oid, size in made]


def finder(repository: Repository) -> Callable[[UpdateRef], Path | None]:
    store = store_of(repository)
    return lambda item: store.find(item.oid, item.size)


def silent(count: int) -> None:
    """Report progress to nobody."""


def moves(call: Call, *items: UpdateRef, direction: str = "upload") -> None:
    """Note in the progress file that objects went over the line."""
    call.progress(*(f"{direction} 1/1 {one.size}/{one.size} {one.oid}" for one in items))


class TestWhatItSays:
    """git-lfs says much, some of it in vain, and some that nobody should read."""

    def failure(self, repository: Repository, git_lfs: Lfs, said: str, status: int = 2) -> str:
        (item,) = put(repository, b"x" * 100)
        git_lfs.answer = lambda call: (status, said)
        with pytest.raises(TransferError, match="git lfs push to origin failed") as caught:
            lfs.push(repository, SERVER, [item], finder(repository), silent)
        return caught.value.message.partition("failed: ")[2]

    def test_a_link_that_lets_whoever_reads_it_in_is_cut(
        self, repository: Repository, git_lfs: Lfs
    ) -> None:
        said = self.failure(repository, git_lfs, f'LFS: PUT "{SIGNED}": timeout')
        assert said == f'LFS: PUT "{URL}/store/1?...": timeout'

    def test_the_same_of_many_objects_is_said_once(
        self, repository: Repository, git_lfs: Lfs
    ) -> None:
        said = "\n".join(["no space left", "", "no space left", "quota", "no space left"])
        assert self.failure(repository, git_lfs, said) == "no space left\nquota"

    def test_a_log_that_is_gone_is_not_named(self, repository: Repository, git_lfs: Lfs) -> None:
        said = "Errors logged to '/tmp/x/1.log'.\nUse `git lfs logs last` to view the log.\nfatal"
        assert self.failure(repository, git_lfs, said) == "fatal"

    def test_without_a_word_there_is_the_status(self, repository: Repository, git_lfs: Lfs) -> None:
        assert self.failure(repository, git_lfs, "", 7) == "exit status 7"

    def test_a_limit_of_requests_is_named(self, repository: Repository, git_lfs: Lfs) -> None:
        assert "rate of requests (429)" in self.failure(
            repository, git_lfs, "batch response: LFS: Error"
        )

    def test_a_refusal_with_status_nought_is_a_refusal(
        self, repository: Repository, git_lfs: Lfs
    ) -> None:
        hint = "info: Consider disabling this with: git config lfs.contenttype 0"
        said = self.failure(repository, git_lfs, hint, 0)
        assert "422" in said
        assert "contenttype" not in said

    def test_without_git_lfs_it_is_said_what_to_install(
        self, repository: Repository, git_lfs: Lfs
    ) -> None:
        (item,) = put(repository, b"x")
        git_lfs.answer = lambda call: (1, "git: 'lfs' is not a git command. See 'git --help'.")
        find = finder(repository)
        for work in (
            lambda: lfs.push(repository, SERVER, [item], find, silent),
            lambda: lfs.fetch(repository, SERVER, [item], silent),
        ):
            with pytest.raises(lfs.LfsNotInstalledError) as caught:
                work()
            assert "git-lfs.com" in (caught.value.hint or "")

    def test_a_time_limit_that_is_no_number_is_refused(
        self, repository: Repository, git_lfs: Lfs
    ) -> None:
        repository.git("config", "theta.transferTimeout", "soon")
        found = Repository.discover(repository.cwd)
        with pytest.raises(UsageError, match="'soon', not a number of seconds"):
            lfs.push(found, SERVER, put(found, b"x"), finder(found), silent)
        assert git_lfs.calls == []


class TestFetching:
    ITEMS = (UpdateRef("dense", "a" * 64, 3), UpdateRef("dense", "b" * 64, 4))

    def bring(self, call: Call, oid: str, content: bytes = b"abc") -> None:
        call.place(oid).parent.mkdir(parents=True, exist_ok=True)
        call.place(oid).write_bytes(content)

    def test_it_is_asked_for_a_commit_of_pointers(
        self, repository: Repository, git_lfs: Lfs
    ) -> None:
        asked: list[UpdateRef | None] = []

        def answer(call: Call) -> tuple[int, str]:
            self.bring(call, "a" * 64)
            commit = call.arguments[-1]
            for item in self.ITEMS:
                spec = f"{commit}:{item.oid[:2]}/{item.oid}"
                asked.append(read_pointer(repository.git("cat-file", "blob", spec, env=call.env)))
            return 0, ""

        git_lfs.answer = answer
        folder = lfs.fetch(repository, SERVER, list(self.ITEMS), silent)
        assert asked == [UpdateRef("lfs", item.oid, item.size) for item in self.ITEMS]
        (call,) = git_lfs.calls
        assert (call.command, call.arguments[-3:-1]) == ("fetch", ["--", "origin"])
        assert call.storage == folder == store_of(repository).root / "lfs"
        assert call.env[lfs.GUARD] == "1"
        assert not list(folder.glob("run-*"))

    def test_some_is_better_than_none(self, repository: Repository, git_lfs: Lfs) -> None:
        def answer(call: Call) -> tuple[int, str]:
            self.bring(call, "b" * 64)
            return 2, "one is not there"

        git_lfs.answer = answer
        lfs.fetch(repository, SERVER, list(self.ITEMS), silent)
        git_lfs.answer = lambda call: (2, "none is there")
        with pytest.raises(TransferError, match="git lfs fetch failed: none is there"):
            lfs.fetch(repository, SERVER, [self.ITEMS[0]], silent)

    def test_a_download_that_is_too_long_is_not_gone_on_with(
        self, repository: Repository, git_lfs: Lfs
    ) -> None:
        folder = store_of(repository).root / "lfs" / "incomplete"

        def answer(call: Call) -> tuple[int, str]:
            folder.mkdir(parents=True)
            for name, count in (("a" * 64, 4), ("b" * 64 + ".part", 4), ("c" * 64, 99)):
                (folder / name).write_bytes(b"x" * count)
            return 2, "cut off"

        git_lfs.answer = answer
        with pytest.raises(TransferError):
            lfs.fetch(repository, SERVER, list(self.ITEMS), silent)
        assert sorted(one.name[0] for one in folder.iterdir()) == ["b", "c"]


class TestPushing:
    def test_it_sees_the_objects_and_no_more(self, repository: Repository, git_lfs: Lfs) -> None:
        one, two, other = put(repository, b"1" * 100, b"2" * 200, b"3")
        seen: list[bytes] = []
        told: list[int] = []

        def answer(call: Call) -> tuple[int, str]:
            seen.extend(call.place(item.oid).read_bytes() for item in (one, two))
            assert not call.place(other.oid).exists()
            moves(call, one, two)
            return 0, ""

        git_lfs.answer = answer
        assert lfs.push(repository, SERVER, [one, two], finder(repository), told.append) == []
        assert seen == [b"1" * 100, b"2" * 200]
        assert sum(told) == 300
        (call,) = git_lfs.calls
        assert call.stdin == f"{one.oid}\n{two.oid}\n".encode()
        assert call.arguments[-5:] == ["push", "--object-id", "--stdin", "--", "origin"]
        assert not call.storage.exists()

    @pytest.mark.parametrize("offers", [True, False])
    def test_that_a_server_has_an_object_already_is_doubted(
        self, repository: Repository, git_lfs: Lfs, offers: bool
    ) -> None:
        one, two = put(repository, b"1" * 100, b"2" * 200)

        def answer(call: Call) -> tuple[int, str]:
            if call.command == "push":
                moves(call, one)
                return 0, ""
            return lacking(call, {two.oid} if offers else set())

        git_lfs.answer = answer
        if offers:
            assert lfs.push(repository, SERVER, [one, two], finder(repository), silent) == [two]
        else:
            refused = f"says that it has object {two.oid}, but does not offer"
            with pytest.raises(TransferError, match=refused):
                lfs.push(repository, SERVER, [one, two], finder(repository), silent)
        assert [call.command for call in git_lfs.calls][:2] == ["push", "prune"]


def lacking(call: Call, offered: set[str]) -> tuple[int, str]:
    """What `git lfs prune --verify-remote` says where a server offers only these."""
    if call.command == "fetch":
        return 2, f"{pointers(call)[0]}: Object does not exist (404)"
    there = [path.name for path in (call.storage / "objects").rglob("*") if path.is_file()]
    return 2, "\n".join(f" * {oid}" for oid in there if oid not in offered)


def pointers(call: Call) -> list[str]:
    """The objects that a fetch asks for."""
    repository = Repository.discover(os.fspath(Path(call.env["GIT_DIR"]).parent))
    tree = repository.git("ls-tree", "-r", "--name-only", call.arguments[-1], env=call.env)
    return [line.rpartition("/")[2] for line in tree.decode().split()]


class TestAsking:
    """What a server has is found out without a download, and no server is believed at once."""

    def test_what_is_not_lacking_is_there(self, repository: Repository, git_lfs: Lfs) -> None:
        one, two = put(repository, b"1" * 100, b"2" * 200)
        git_lfs.answer = lambda call: lacking(call, {two.oid})
        assert lfs.ask(repository, SERVER, [one, two]) == {two.oid}

    def test_names_are_made_up_among_the_others(self, repository: Repository, git_lfs: Lfs) -> None:
        items = put(repository, *(b"%d" % n * 10 for n in range(50)))
        sizes: list[dict[str, int]] = []

        def answer(call: Call) -> tuple[int, str]:
            found = (call.storage / "objects").rglob("*")
            sizes.append({one.name: one.stat().st_size for one in found if one.is_file()})
            return lacking(call, {items[0].oid})

        git_lfs.answer = answer
        assert lfs.ask(repository, SERVER, items) == {items[0].oid}
        known = {item.oid: item.size for item in items}
        made_up = {oid: size for oid, size in sizes[0].items() if oid not in known}
        # Two, and another for each fifty: git-lfs asks for a hundred at a time.
        assert len(made_up) == 3
        assert all(re.fullmatch("[0-9a-f]{64}", oid) for oid in made_up)
        assert set(made_up.values()) <= set(known.values())
        assert {oid: sizes[0][oid] for oid in known} == known

    def test_who_has_everything_is_not_believed(self, repository: Repository, git_lfs: Lfs) -> None:
        items = put(repository, b"1" * 100)
        git_lfs.answer = lambda call: (0, "")
        with pytest.raises(TransferError, match="says that it has objects that do not exist"):
            lfs.ask(repository, SERVER, items)

    def test_who_has_one_that_was_made_up_is_not_believed(
        self, repository: Repository, git_lfs: Lfs
    ) -> None:
        (item,) = put(repository, b"1" * 100)

        def answer(call: Call) -> tuple[int, str]:
            there = (one.name for one in (call.storage / "objects").rglob("*") if one.is_file())
            made_up = next(oid for oid in there if oid != item.oid)
            return lacking(call, {made_up})

        git_lfs.answer = answer
        with pytest.raises(TransferError, match="its answers are not trusted"):
            lfs.ask(repository, SERVER, [item])

    def test_who_has_nothing_must_answer_a_question(
        self, repository: Repository, git_lfs: Lfs
    ) -> None:
        """`prune` says the same of a server that cannot be reached."""
        (item,) = put(repository, b"1" * 100)
        git_lfs.answer = lambda call: lacking(call, set())
        assert lfs.ask(repository, SERVER, [item]) == set()

        def offline(call: Call) -> tuple[int, str]:
            return (2, "no such host") if call.command == "fetch" else lacking(call, set())

        git_lfs.answer = offline
        with pytest.raises(TransferError, match="no such host"):
            lfs.ask(repository, SERVER, [item])


class TestCredentials:
    """A server that the user has not chosen is told nothing of them."""

    SECRETS = (
        ("credential.helper", "store"),
        (f"http.{URL}.extraHeader", "Authorization: secret"),
        ("http.cookieFile", "/cookies"),
        ("http.sslKey", "/key"),
        ("url.https://user:secret@host.example/.insteadOf", "https://host.example/"),
        ("http.proxy", "http://proxy:3128"),
        ("lfs.concurrenttransfers", "2"),
    )

    def settings(self, repository: Repository, git_lfs: Lfs, endpoint: Endpoint) -> dict[str, str]:
        """The settings that git-lfs has, with its environment."""
        for name, value in self.SECRETS:
            repository.git("config", name, value)
        repository.git("config", "--global", "core.askPass", "/ask")
        found: list[bytes] = []

        def answer(call: Call) -> tuple[int, str]:
            found.append(repository.git("config", "--list", "-z", env=call.env))
            return 0, ""

        git_lfs.answer = answer
        lfs.fetch(
            Repository.discover(repository.cwd), endpoint, [UpdateRef("x", "a" * 64, 1)], silent
        )
        items = (item.partition("\n") for item in found[0].decode().split("\0") if item)
        return {name: value for name, _, value in items}

    def test_a_stranger_meets_nobody(self, repository: Repository, git_lfs: Lfs) -> None:
        found = self.settings(repository, git_lfs, stranger())
        assert found["lfs.url"] == URL
        assert found["http.proxy"] == "http://proxy:3128"
        assert found["lfs.concurrenttransfers"] == "2"
        allowed = ("core.", "lfs.", "http.proxy", "remote.theta-asked.", "extensions.")
        assert [name for name in found if not name.startswith(allowed)] == []
        assert "core.askpass" not in found
        assert "secret" not in "".join(found.values())
        (call,) = git_lfs.calls
        assert call.arguments[-2] == "theta-asked"
        assert (call.env["GIT_ASKPASS"], call.env["SSH_ASKPASS"]) == ("", "")
        assert call.env["GIT_TERMINAL_PROMPT"] == "0"
        assert call.env["HOME"] == call.env["XDG_CONFIG_HOME"] == call.env["USERPROFILE"]
        assert call.env["HOME"] != os.environ["HOME"]

    def test_the_users_own_server_has_all_of_them(
        self, repository: Repository, git_lfs: Lfs
    ) -> None:
        """The control."""
        found = self.settings(repository, git_lfs, SERVER)
        assert {value for _, value in self.SECRETS} <= set(found.values())
        assert found["core.askpass"] == "/ask"

    def test_a_lfsconfig_of_a_branch_is_not_read(
        self, repository: Repository, git_lfs: Lfs
    ) -> None:
        (repository.top / ".lfsconfig").write_text("[lfs]\n\turl = https://evil.example\n")
        seen: list[str] = []

        def answer(call: Call) -> tuple[int, str]:
            tree = Path(call.env["GIT_WORK_TREE"])
            seen.append((tree / ".lfsconfig").read_text())
            moves(call, item)
            return 0, ""

        git_lfs.answer = answer
        (item,) = put(repository, b"x" * 9)
        lfs.push(repository, SERVER, [item], finder(repository), silent)
        assert "evil" not in seen[0]
        assert "allowincompletepush = false" in seen[0]
