"""The verbs that a user of git-lfs looks for."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from tests.scenarios.advised import do
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.remotes import bare
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
WEIGHT = "encoder.layer.1.attention.query.weight"


def version(number: int) -> bytes:
    tensors = model()
    return safetensors({**tensors, WEIGHT: changed(tensors[WEIGHT], seed=number)})


def test_objects_are_fetched_by_pattern_and_checked_out_without_a_network(
    repo: Repo, tmp_path: Path
) -> None:
    repo.write("a/big.safetensors", version(1))
    repo.write("b/small.safetensors", version(2))
    repo.commit("two")
    remote = bare(repo)
    repo.git("push", "-q", "origin", "HEAD")
    clone = Repo(tmp_path / "clone")
    manifests = {"GIT_THETA_SKIP_SMUDGE": "1"}
    repo.git("clone", "-q", str(remote), str(clone.path), env=manifests)
    clone.theta("install", "--local")
    done = clone.run("git", "theta", "checkout", ok=(6,))
    assert b"a/big.safetensors: " in done.stderr
    clone.theta("fetch", "-X", "b/", "-I", "*.safetensors")
    done = clone.run("git", "theta", "checkout", "--json", ok=(6,))
    answer = json.loads(done.stdout)
    assert answer["written"] == ["a/big.safetensors"]
    assert [row["path"] for row in answer["missing"]] == ["b/small.safetensors"]
    assert (clone.path / "a/big.safetensors").read_bytes() == version(1)
    assert clone.status() == ""
    assert clone.theta("status", "--porcelain") == (
        ".. TC 0 0 a/big.safetensors\n.. TM 1 0 b/small.safetensors\n"
    )
    assert clone.theta("status", "--porcelain", "-z", "b") == ".. TM 1 0 b/small.safetensors\0"
    assert clone.theta("ls-files", "HEAD", "a").split()[:2] == ["*", "a/big.safetensors"]
    assert clone.theta("ls-files", ":(glob)b/*").split()[:2] == ["-", "b/small.safetensors"]
    assert "1 object" in clone.theta("fetch", "--all", "-I", "b/*.safetensors")
    assert (
        "no tracked checkpoint"
        in clone.run("git", "theta", "pull", "-I", "c", ok=(2,)).stderr.decode()
    )
    assert "all" in clone.theta("fetch", "--recent").lower()
    clone.theta("pull", "--include", "b")
    assert clone.theta("status", "--porcelain").count(" TC 0 0 ") == 2


def test_what_is_in_force_is_shown(repo: Repo) -> None:
    repo.git("remote", "add", "origin", "https://user:secret@example.org/team/model.git")
    repo.git("config", "theta.storage", "elsewhere")
    shown = repo.theta("env")
    assert "set up: yes" in shown
    assert "secret" not in shown
    assert f"objects: {repo.path / '.git/elsewhere/objects'}\n" in shown
    facts = json.loads(repo.theta("env", "--json"))
    assert facts["remotes"] == [
        {"name": "origin", **dict.fromkeys(("fetch", "push"), "https://example.org/team/model.git")}
    ]
    assert ["theta.storage", "elsewhere"] in facts["settings"]
    repo.git("config", "filter.theta.process", "")
    hint = repo.theta("env").partition("set up: no (")[2].partition(")")[0]
    repo.git("config", "--unset", "filter.theta.process")
    repo.run("sh", "-c", hint)
    assert "set up: yes" in repo.theta("env")


def test_an_error_of_ours_is_kept(repo: Repo) -> None:
    repo.run("git", "theta", "logs", "last", ok=(2,))
    code = "from git_theta_ext.git.crashes import hook; hook.install(); "
    code += "raise ValueError('odd \\x1b[2J')"
    done = repo.run(sys.executable, "-c", code, ok=(1,))
    assert b"Traceback" in done.stderr
    assert b"\x1b" not in done.stderr
    hint = done.stderr.decode().partition("hint: ")[2].partition("   ")[0]
    assert "ValueError: odd" in repo.run("sh", "-c", hint).stdout.decode()
    (name,) = json.loads(repo.theta("logs", "--json"))["logs"]
    assert "ValueError: odd" in repo.theta("logs", "show", name)
    assert ((repo.path / ".git/theta/logs" / f"{name}.log").stat().st_mode & 0o077) == 0
    assert repo.theta("logs", "clear") == "removed 1 log\n"
    assert repo.theta("logs") == ""


def test_a_manifest_is_made_compared_and_checked(repo: Repo) -> None:
    repo.write(NAME, version(1))
    repo.commit()
    stored = objects(repo)
    repo.write(NAME, version(2))
    text = repo.theta("pointer", "--file", NAME).encode()
    assert objects(repo) == stored != []
    # Of another predecessor the same file has another manifest, which stands for the same bytes.
    (repo.path / ".git/index").unlink()
    repo.git("update-ref", "-d", "HEAD")
    other = repo.theta("pointer", "--file", NAME).encode()
    assert other != text
    repo.run("git", "theta", "pointer", "--file", NAME, "--stdin", stdin=text)
    repo.write(NAME, version(3))
    done = repo.run("git", "theta", "pointer", "--file", NAME, "--stdin", stdin=text, ok=(1,))
    assert done.stdout.decode() == f"{WEIGHT} has other values\n"
    check = ("git", "theta", "pointer", "--check", "--strict")
    repo.run(*check, "--stdin", stdin=text)
    repo.run(*check, "--file", NAME, ok=(4,))
    repo.run(*check, "--stdin", stdin=text + b"more\n", ok=(4,))


def objects(repo: Repo) -> list[Path]:
    """The files of the store."""
    return sorted((repo.path / ".git/theta/objects").glob("*/*/*"))


def test_a_side_of_a_conflict_is_written_beside_it(collided: Repo) -> None:
    collided.run("git", "merge", "-q", "side", ok=(1,))
    collided.theta("checkout", "--to", "theirs.safetensors", "--theirs", NAME)
    collided.git("show", "side", "--stat")
    collided.git("checkout", "-q", "--theirs", NAME)
    theirs = (collided.path / NAME).read_bytes()
    assert (collided.path / "theirs.safetensors").read_bytes() == theirs
    done = collided.run(
        "git", "theta", "checkout", "--to", "x", "--base", ".gitattributes", ok=(2,)
    )
    assert b"not in conflict" in done.stderr


def test_the_report_is_opened_in_the_browser(repo: Repo) -> None:
    for number in (1, 2):
        repo.write(NAME, version(number))
        repo.commit(str(number))
    repo.git("config", "browser.page.cmd", "cp -t .")
    command = repo.run("git", "theta", "review", "HEAD~1", ok=(2,), env={"PATH": bare_path(repo)})
    advised = command.stderr.decode().partition("hint: ")[2].partition("   ")[0]
    do(repo, advised, NAME="page")
    repo.theta("review", "HEAD~1...HEAD")
    assert WEIGHT in (repo.path / "review.html").read_text("utf-8")
    repo.theta("review", "-o", "there.html", "HEAD~1...HEAD")
    assert (repo.path / "there.html").read_bytes() == (repo.path / "review.html").read_bytes()


def bare_path(repo: Repo) -> str:
    """A PATH on which there is Git, and no browser."""
    folder = repo.path.parent / "bin"
    folder.mkdir()
    for name in ("git", "git-theta"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return str(folder)


def test_locks_go_to_the_server_of_the_remote_and_no_other(repo: Repo) -> None:
    repo.write(".lfsconfig", b"[lfs]\n\turl = https://evil.example.org/\n")
    lfs = repo.path.parent / "bin" / "git-lfs"
    lfs.parent.mkdir()
    lfs.write_text('#!/bin/sh\ntest "$1" = version || echo "$(git config lfs.url)" "$@"\n')
    lfs.chmod(0o755)
    path = {"PATH": f"{lfs.parent}{os.pathsep}{os.environ['PATH']}"}
    repo.run("git", "theta", "lock", NAME, env=path, ok=(2,))
    repo.git("remote", "add", "origin", "https://example.org/team/model")
    repo.git("config", "lfs.url", "https://lfs.example.org/x")
    assert "unrecognized" in repo.theta("lock", "--json", NAME, "-b", env=path, ok=(2,))
    assert repo.theta("lock", "--json", NAME, "b", env=path) == (
        f"https://lfs.example.org/x lock --json -- {NAME}\n"
        "https://lfs.example.org/x lock --json -- b\n"
    )
    repo.git("config", "--unset", "lfs.url")
    (repo.path / ".lfsconfig").unlink()
    assert repo.theta("locks", "-l", "3", env=path) == (
        "https://example.org/team/model.git/info/lfs locks --limit=3\n"
    )
    repo.git("remote", "set-url", "origin", str(repo.path))
    repo.run("git", "theta", "unlock", "--force", NAME, env=path, ok=(9,))
