"""`git theta mirror --push` and `theta.mirror`: a branch of git-lfs that pushes bring along."""

from __future__ import annotations

import json
from pathlib import Path

from tests.scenarios.advised import do, take
from tests.scenarios.moved import NAME, refs, started, version
from tests.scenarios.repositories import Repo


def tracked(path: Path) -> Repo:
    """A repository of git-theta with a remote, `host`, and one version in it."""
    repo = started(path / "repo", lfs=False)
    repo.git("init", "-q", "--bare", "-b", "main", "../host.git")
    repo.git("remote", "add", "host", "../host.git")
    repo.theta("install", "--local")
    repo.theta("track", "*.safetensors")
    repo.write(NAME, version(0))
    repo.commit("version 0")
    return repo


def test_a_push_brings_the_mirror_along(tmp_path: Path, sealed: Path) -> None:
    """From any clone; the remote's own commits of it count, and are never rewritten."""
    repo = tracked(tmp_path)
    host = Repo(tmp_path / "host.git")
    repo.git("config", "theta.mirror", "main:main-lfs")
    repo.run("git", "push", "-n", "host", "main", ok=(0,))
    assert refs(host) == {}
    done = repo.run("git", "push", "host", "main", ok=(0,))
    assert b"main-lfs, a mirror, sent with 1 file" in done.stderr
    first = refs(host)["refs/heads/main-lfs"]
    assert host.blob(f"{first}:{NAME}").startswith(b"version https://git-lfs")

    repo.git(
        "clone", "-q", "-o", "host", "../host.git", "../clone", env={"GIT_LFS_SKIP_SMUDGE": "1"}
    )
    clone = Repo(tmp_path / "clone")
    clone.theta("install", "--local")
    clone.git("config", "user.name", "b")
    clone.git("config", "user.email", "b@c")
    clone.write(NAME, version(1))
    clone.commit("version 1")
    clone.git("push", "-q", "host", "main")
    assert refs(host)["refs/heads/main-lfs"] == first  # (its setting is of the first clone alone)
    told = json.loads(clone.theta("mirror", "--push", "host", "main", "main-lfs", "--json"))
    assert (told["commits"], told["versions"], told["pushed"]) == (1, 1, True)
    second = refs(host)["refs/heads/main-lfs"]
    assert host.git("rev-parse", f"{second}~1").strip() == first

    repo.git("pull", "-q", "host", "main")
    repo.write(NAME, version(2))
    repo.commit("version 2")
    repo.git("push", "-q", "host", "main")
    assert host.git("rev-parse", "main-lfs~1").strip() == second
    # Whoever has git-lfs alone reads it, from the host alone.
    repo.git(
        "clone",
        "-q",
        "-b",
        "main-lfs",
        "../host.git",
        "../reader",
        env={"GIT_LFS_SKIP_SMUDGE": "1"},
    )
    reader = Repo(tmp_path / "reader")
    reader.git("lfs", "install", "--local")
    reader.git("lfs", "pull")
    assert (reader.path / NAME).read_bytes() == version(2)


def test_what_cannot_be_mirrored_stops_no_push(tmp_path: Path, sealed: Path) -> None:
    """It is said, with what to type."""
    repo = tracked(tmp_path)
    host = Repo(tmp_path / "host.git")
    repo.git("config", "theta.mirror", "main")
    do(repo, take(repo, "git", "push", "host", "main", has="theta.mirror"))
    assert list(refs(host)) == ["refs/heads/main"]
    repo.git("checkout", "-q", "-b", "main-lfs")
    repo.git("commit", "-q", "--allow-empty", "-m", "two")
    again = take(repo, "git", "push", "host", "HEAD:main", has="mirror")
    assert list(refs(host)) == ["refs/heads/main"]
    repo.git("checkout", "-q", "main")
    repo.git("merge", "-q", "main-lfs")
    repo.git("branch", "-q", "-D", "main-lfs")
    do(repo, again)
    assert host.blob(f"main-lfs:{NAME}").startswith(b"version https://git-lfs")

    first = refs(host)["refs/heads/main-lfs"]
    repo.git("commit", "-q", "--amend", "--allow-empty", "-m", "another")
    done = repo.run("git", "push", "-f", "host", "main", ok=(0,))
    assert b"main-lfs was not sent: refs/heads/main-lfs has commits that are no" in done.stderr
    assert host.git("log", "-1", "--format=%s", "main") == "another\n"
    command = ("git", "theta", "mirror", "--push", "host", "main", "main-lfs")
    assert b"no mirror of this source" in repo.run(*command, ok=(2,)).stderr
    repo.run(*command, "--force", ok=(0,))
    assert refs(host)["refs/heads/main-lfs"] not in (first, refs(repo)["refs/heads/main"])
    repo.git("update-ref", "refs/heads/main-lfs", first)
    do(repo, take(repo, *command, has="branch -D"))
    assert b"is up to date" in repo.run(*command, ok=(0,)).stdout


def test_a_mirror_needs_a_remote_and_all_commits(tmp_path: Path, sealed: Path) -> None:
    repo = tracked(tmp_path)
    listed = take(repo, "git", "theta", "mirror", "--push", "nowhere", "main", "x")
    assert "host.git" in do(repo, listed)
    repo.git("commit", "-q", "--allow-empty", "-m", "two")
    repo.git("clone", "-q", "--depth=1", f"file://{tmp_path}/repo", "../shallow")
    shallow = Repo(tmp_path / "shallow")
    do(shallow, take(shallow, "git", "theta", "mirror", "main", "x"))
    shallow.theta("mirror", "main", "x")


def test_a_branch_of_others_stays_where_it_is(tmp_path: Path, sealed: Path) -> None:
    """Here and at the remote, which is ahead; also where it is checked out."""
    repo = tracked(tmp_path)
    host = Repo(tmp_path / "host.git")
    repo.write("work.txt", b"ahead\n")
    repo.commit("ahead")
    repo.git("push", "-q", "host", "HEAD:refs/heads/dev", "HEAD:refs/heads/other")
    repo.git("checkout", "-q", "-b", "dev", "main~1")
    before, theirs = refs(repo), refs(host)
    command = ("git", "theta", "mirror", "--push", "host", "main")
    for target, said in (("dev", b"is checked out"), ("other", b"no mirror of this source")):
        assert said in repo.run(*command, target, ok=(2,)).stderr
    repo.git("checkout", "-q", "main")
    assert b"no mirror of this source" in repo.run(*command, "dev", ok=(2,)).stderr
    assert (refs(repo), refs(host), repo.status()) == (before, theirs, "")
