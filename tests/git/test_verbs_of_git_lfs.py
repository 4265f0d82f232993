"""The verbs that a user of git-lfs looks for."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.scenarios.advised import do, take
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
    assert json.loads(clone.theta("checkout", "--json", "a"))["written"] == []
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
    assert do(repo, take(repo, "git", "theta", "logs", "show", "nope")) == f"{name}\n"
    assert "ValueError: odd" in json.loads(repo.theta("logs", "show", name, "--json"))["text"]
    assert ((repo.path / ".git/theta/logs" / f"{name}.log").stat().st_mode & 0o077) == 0
    assert json.loads(repo.theta("logs", "clear", "--json")) == {"removed": 1}
    assert repo.theta("logs") == ""


def test_a_manifest_is_made_compared_and_checked(repo: Repo) -> None:
    repo.write(NAME, version(1))
    repo.commit()
    stored = objects(repo)
    repo.write(NAME, version(2))
    text = json.loads(repo.theta("pointer", "--file", NAME, "--json"))["manifest"].encode()
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
    compare = ("git", "theta", "pointer", "--file", NAME, "--stdin", "--json")
    for known, alike in ((text, False), (repo.theta("pointer", "--file", NAME).encode(), True)):
        done = repo.run(*compare, stdin=known, ok=(0, 1))
        assert json.loads(done.stdout)["alike"] is alike
    check = ("git", "theta", "pointer", "--check", "--strict")
    repo.run(*check, "--stdin", stdin=text)
    repo.run(*check, "--file", NAME, ok=(4,))
    done = repo.run(*check, "--stdin", "--json", stdin=text, ok=(0,))
    assert json.loads(done.stdout) == {"manifest": True, "problem": None}
    done = repo.run(*check, "--stdin", "--json", stdin=text + b"more\n", ok=(4,))
    assert not json.loads(done.stdout)["manifest"]


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
    opened = json.loads(repo.theta("review", "HEAD~1...HEAD", "--json"))
    assert opened["page"] == str(repo.path / ".git/theta/review.html")
    assert WEIGHT in (repo.path / "review.html").read_text("utf-8")
    assert repo.theta("review", "-q", "-o", "there.html", "HEAD~1...HEAD") == ""
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
    lfs.write_text(_GIT_LFS)
    lfs.chmod(0o755)
    path = {"PATH": f"{lfs.parent}{os.pathsep}{os.environ['PATH']}"}

    def asked(*words: str) -> str:
        """What git-lfs was asked."""
        repo.theta(*words, env=path)
        found = (repo.path / "asked").read_text("utf-8")
        (repo.path / "asked").unlink()
        return found

    def ask(*words: str, code: int = 0) -> Any:
        return json.loads(repo.theta(*words, "--json", env=path, ok=(code,)))

    repo.run("git", "theta", "lock", NAME, env=path, ok=(2,))
    repo.git("remote", "add", "origin", "https://example.org/team/model")
    repo.git("config", "lfs.url", "https://lfs.example.org/x")
    assert ask("lock", NAME, "-b", code=2)["error"]["message"].startswith("unrecognized")
    assert asked("lock", NAME, "b") == (
        f"https://lfs.example.org/x lock -- {NAME}\nhttps://lfs.example.org/x lock -- b\n"
    )
    lock = {"path": NAME, "id": "7", "owner": "Jo", "locked_at": "2026-01-01T00:00:00Z"}
    assert ask("lock", NAME, NAME) == {"locks": [{**lock, "ours": True}] * 2}
    assert ask("locks") == {"locks": [{**lock, "ours": None}]}
    assert [one["ours"] for one in ask("locks", "--verify")["locks"]] == [True, False]
    assert ask("unlock", NAME) == {"unlocked": [{"path": NAME, "id": None}]}
    assert ask("unlock", "--id", "7") == {"unlocked": [{"path": None, "id": "7"}]}
    error = ask("unlock", NAME, "theirs", code=9)["error"]
    assert error["message"] == f"not yours\nunlocked before that: {NAME}"
    (repo.path / "asked").unlink()
    repo.git("config", "--unset", "lfs.url")
    (repo.path / ".lfsconfig").unlink()
    assert asked("locks", "-l", "3") == (
        "https://example.org/team/model.git/info/lfs locks --limit=3\n"
    )
    repo.git("remote", "set-url", "origin", str(repo.path))
    repo.run("git", "theta", "unlock", "--force", NAME, env=path, ok=(9,))


_GIT_LFS = f"""#!/bin/sh
test "$1" = version && exit
echo "$(git config lfs.url)" "$@" >>asked
lock='{{"id": "7", "path": "{NAME}", "owner": {{"name": "Jo"}},
  "locked_at": "2026-01-01T00:00:00Z"}}'
case "$*" in
  *theirs) echo '[{{"path": "theirs", "unlocked": false, "reason": "not yours"}}]'; exit 2 ;;
  locks*--verify*) echo "{{\\"ours\\": [$lock], \\"theirs\\": [$lock]}}" ;;
  *) echo "[$lock]" ;;
esac
"""
"""A git-lfs that writes down what it is asked, and answers as the real one does with `--json`."""
