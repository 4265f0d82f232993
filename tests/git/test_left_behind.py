"""Pushes that passed the hook by are found afterwards, and what is said mends them."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pygit2
import pytest

from git_theta_ext.git.repository import Repository
from git_theta_ext.objects import left_behind
from tests.scenarios.checkpoints import NAME, model, safetensors
from tests.scenarios.remotes import are_at, bare, history, objects_of
from tests.scenarios.repositories import Repo
from tests.servers.lfs import LfsServer, lfs_server

SAID = "pushed without git theta's pre-push hook"


@pytest.fixture
def server() -> Iterator[LfsServer]:
    """An LFS server that runs."""
    with lfs_server() as state:
        yield state


def add_another(repo: Repo) -> str:
    """Stage another checkpoint; what was said on stderr."""
    repo.write("other.safetensors", safetensors({"v": next(iter(model().values()))}))
    return repo.run("git", "add", "other.safetensors").stderr.decode()


def advice(text: str) -> list[str]:
    """The command that a warning gives, as words."""
    (line,) = [line for line in text.splitlines() if "hint: git theta push" in line]
    return shlex.split(line.partition("hint: git theta ")[2])


def push_by_libgit2(repo: Repo) -> None:
    """Push as a graphical client does that runs no hooks."""
    pygit2.Repository(str(repo.path)).remotes["origin"].push(["refs/heads/main"])


@pytest.mark.parametrize("how", ["--no-verify", "no hook", "libgit2", "--all"])
def test_a_push_to_a_folder_is_found_and_mended(repo: Repo, how: str, tmp_path: Path) -> None:
    remote = bare(repo)
    contents = history(repo, 2)
    if how == "libgit2":
        push_by_libgit2(repo)
    elif how == "no hook":
        repo.git("-c", "core.hooksPath=/nowhere", "push", "-q", "origin", "main")
    else:
        names = ["--all", "origin"] if how == "--all" else ["origin", "main"]
        repo.git("push", "-q", "--no-verify", *names)
    said = repo.run("git", "theta", "status").stderr.decode()
    assert SAID in said
    assert SAID in add_another(repo)
    assert "are not at origin" in said
    repo.theta(*advice(said))
    for revision in ("HEAD", "HEAD~1"):
        assert are_at(remote, objects_of(repo, f"{revision}:{NAME}"))
    assert repo.run("git", "theta", "status").stderr == b""
    repo.git("clone", "-q", str(remote), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    clone.theta("install", "--local")
    clone.theta("pull")
    assert (clone.path / NAME).read_bytes() == contents[-1]


def test_a_push_to_a_server_is_found_and_mended(repo: Repo, server: LfsServer) -> None:
    bare(repo)
    repo.git("config", "lfs.url", server.url)
    history(repo, 1)
    repo.git("push", "-q", "--no-verify", "origin", "main")
    assert server.objects == {}
    said = repo.run("git", "theta", "ls-files").stderr.decode()
    assert "may not be at origin" in said
    repo.theta(*advice(said))
    assert set(server.objects) == {ref.oid for ref in objects_of(repo, f"HEAD:{NAME}")}
    assert repo.run("git", "theta", "ls-files").stderr == b""


def test_a_later_push_with_the_hook_does_not_hide_it(repo: Repo) -> None:
    bare(repo)
    history(repo, 1)
    repo.git("push", "-q", "--no-verify", "origin", "main")
    add_another(repo)  # it needs nothing of the first
    repo.git("commit", "-q", "-m", "another")
    repo.git("push", "-q", "origin", "main")
    assert SAID in repo.run("git", "theta", "status").stderr.decode()


def test_nothing_is_said_of_what_went_out_right(repo: Repo, server: LfsServer) -> None:
    bare(repo)
    repo.git("config", "lfs.url", server.url)
    history(repo, 2)
    repo.git("push", "-q", "origin", "main")
    repo.git("push", "-q", "origin", "main:refs/heads/topic", "HEAD~1:refs/heads/old")
    repo.git("push", "-q", "origin", ":old")
    assert repo.run("git", "theta", "status").stderr == b""
    assert add_another(repo) == ""


def test_nothing_is_said_of_what_others_pushed(
    repo: Repo, server: LfsServer, tmp_path: Path
) -> None:
    """A clone has confirmed nothing, and what it fetched is at the server all the same."""
    remote = bare(repo)
    repo.git("config", "--global", "lfs.url", server.url)
    history(repo, 2)
    repo.git("push", "-q", "origin", "main", "main:refs/heads/topic")
    repo.theta("install")
    repo.git("clone", "-q", str(remote), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    assert clone.run("git", "theta", "status").stderr == b""
    clone.git("commit", "-q", "--allow-empty", "-m", "mine")
    clone.git("push", "-q", "--no-verify", "origin", "main", "main:refs/heads/mine")
    assert clone.run("git", "theta", "status").stderr == b""
    history(repo, 1, start=2)
    repo.git("push", "-q", "origin", "main:refs/heads/more")
    clone.git("pull", "-q", "--no-rebase", "--no-edit", "origin", "more")
    clone.git("push", "-q", "origin", "HEAD:more")
    assert clone.run("git", "theta", "status").stderr == b""


def test_nothing_is_said_of_a_fork(repo: Repo, tmp_path: Path) -> None:
    """The fork's server has what upstream has; from here only the branch was sent there."""
    upstream = bare(repo)
    history(repo, 2)
    with lfs_server() as one, lfs_server() as two:
        repo.git("config", "remote.origin.lfsurl", one.url)
        repo.git("push", "-q", "origin", "main")
        repo.git("clone", "-q", "--bare", str(upstream), str(tmp_path / "fork.git"))
        two.objects.update(one.objects)
        repo.git("clone", "-q", "--no-checkout", str(upstream), str(tmp_path / "clone"))
        clone = Repo(tmp_path / "clone")
        clone.git("config", "remote.origin.lfsurl", one.url)
        clone.theta("install", "--local")
        clone.git("remote", "add", "fork", str(tmp_path / "fork.git"))
        clone.git("config", "remote.fork.lfsurl", two.url)
        clone.git("checkout", "-q", "-b", "topic")
        add_another(clone)
        clone.git("commit", "-q", "-m", "mine")
        clone.git("push", "-q", "fork", "topic")
        assert clone.run("git", "theta", "status").stderr == b""
        history(clone, 1, start=2)
        clone.git("push", "-q", "--no-verify", "fork", "topic")
        said = clone.run("git", "theta", "status").stderr.decode()
        assert "fork/topic" in said
        clone.theta(*advice(said))
        assert clone.run("git", "theta", "status").stderr == b""


def test_what_was_looked_at_is_not_looked_at_again(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare(repo)
    history(repo, 1)
    repo.git("push", "-q", "origin", "main")
    repository = Repository.discover(repo.path)
    assert left_behind.find(repository) == []
    asked: list[tuple[str, ...]] = []
    plain = Repository.git

    def git(self: Repository, *arguments: str, **options: object) -> bytes:
        asked.append(arguments)
        return plain(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Repository, "git", git)
    assert left_behind.find(Repository.discover(repo.path)) == []
    assert not any(words[0] in ("log", "rev-list", "cat-file") for words in asked)


def test_a_remote_that_is_not_mounted_stops_nothing(repo: Repo) -> None:
    remote = bare(repo)
    history(repo, 1)
    repo.git("push", "-q", "--no-verify", "origin", "main")
    shutil.move(remote, f"{remote}.away")
    assert repo.run("git", "theta", "status").stderr == b""
    shutil.move(f"{remote}.away", remote)
    assert SAID in repo.run("git", "theta", "status").stderr.decode()


def test_odd_names_of_remotes_and_branches(repo: Repo) -> None:
    remote = bare(repo)
    repo.git("config", "--add", "remote.up/stream.url", str(remote))
    repo.git("config", "remote.up/stream.fetch", "+refs/heads/*:refs/remotes/up/stream/*")
    repo.git("checkout", "-q", "-b", "it's;a $branch".replace(" ", "-"))
    history(repo, 1)
    repo.git("push", "-q", "--no-verify", "up/stream", "HEAD")
    said = repo.run("git", "theta", "status").stderr.decode()
    repo.theta(*advice(said))
    assert are_at(remote, objects_of(repo, f"HEAD:{NAME}"))
    assert repo.run("git", "theta", "status").stderr == b""
