"""Commands that a repository names run only once their very text was allowed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.scenarios.advised import do, only
from tests.scenarios.merges import branches, st
from tests.scenarios.repositories import Repo

MERGE = (sys.executable, "-m", "git_theta_ext.cli.main", "merge", "side", "--tune")
UNDECIDED = (1,)
"""It ran, and nobody said that the best of the merges is to be taken."""


@pytest.fixture
def named(repo: Repo) -> Repo:
    """A repository whose `.theta.toml` names a command that leaves a mark."""
    script = repo.path.parent / "evaluate.py"
    script.write_text(
        "import pathlib, sys\nimport numpy as np\n"
        f"pathlib.Path({str(repo.path.parent / 'ran')!r}).touch()\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "w = np.frombuffer(data[-4:], np.float32)[0]\nprint(-abs(float(w) - 3), 400)\n"
    )
    branches(repo, *(st({"w": np.full(300, value, np.float32)}) for value in (0, 2, 4)))
    name(repo, f"'{sys.executable}' '{script}' {{checkpoint}}")
    return repo


def name(repo: Repo, command: str) -> None:
    text = f'[merge]\nstrategy = "average"\nevaluate = {json.dumps(command)}\n'
    repo.write(".theta.toml", text.encode())
    repo.commit("how to evaluate")


def ran(repo: Repo) -> bool:
    mark = repo.path.parent / "ran"
    found = mark.exists()
    mark.unlink(missing_ok=True)
    return found


def test_it_does_not_run_before_it_was_allowed(named: Repo) -> None:
    for more in ((), ("--yes",)):
        done = named.run(*MERGE, *more, ok=(2,))
        assert not ran(named)
        assert b"evaluate.py" in done.stderr
        assert b"git theta allow" in done.stderr
    shown = do(named, only(done.stderr.decode(), "theta allow"))
    assert "evaluate.py" in shown
    assert not ran(named)
    assert "task-arithmetic" in named.run(*MERGE, ok=UNDECIDED).stdout.decode()
    assert ran(named)
    assert "Allowed already" in named.theta("allow")


def test_another_text_is_asked_for_again(named: Repo) -> None:
    named.theta("allow")
    text = (named.path / ".theta.toml").read_bytes()
    named.write(".theta.toml", text.replace(b" {checkpoint}", b"  {checkpoint}"))
    named.run(*MERGE, ok=(2,))
    assert not ran(named)
    named.write(".theta.toml", text)
    named.run(*MERGE, ok=UNDECIDED)
    assert ran(named)


def test_another_repository_with_the_same_text(named: Repo, tmp_path: Path) -> None:
    named.theta("allow")
    named.git("clone", "-q", str(named.path), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    clone.theta("install", "--local")
    clone.git("branch", "side", "origin/side")
    clone.run(*MERGE, ok=(2,))
    assert not ran(named)
    # A work tree of the same repository is the same repository.
    named.git("worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    Repo(tmp_path / "tree").run(*MERGE, ok=UNDECIDED)
    assert ran(named)


def test_options_say_it_once(named: Repo) -> None:
    named.run(*MERGE, "--allow-evaluation", ok=UNDECIDED)
    assert ran(named)
    named.run(*MERGE, ok=(2,))
    assert not ran(named)
    assert named.theta("allow", "--list") == "Nothing is allowed.\n"


def test_ones_own_command_needs_no_consent(named: Repo) -> None:
    script = named.path.parent / "evaluate.py"
    named.run(*MERGE, f"'{sys.executable}' '{script}' {{checkpoint}}", ok=UNDECIDED)
    assert ran(named)


def test_it_is_listed_and_revoked(named: Repo) -> None:
    named.theta("allow")
    listed = named.theta("allow", "--list")
    assert str(named.path / ".git") in listed
    assert "evaluate.py" in listed
    assert "evaluate.py" in named.theta("allow", "--revoke")
    named.run(*MERGE, ok=(2,))
    named.theta("allow")
    named.theta("allow", "--revoke", listed.split()[0])
    named.run(*MERGE, ok=(2,))
    assert not ran(named)
    unknown = named.run(
        sys.executable, "-m", "git_theta_ext.cli.main", "allow", "--revoke", "x", ok=(2,)
    )
    assert b"matches 0 allowed commands" in unknown.stderr
    named.theta("allow")
    assert "evaluate.py" in do(named, only(unknown.stderr.decode(), "--list"))


def test_it_is_shown_in_full_and_acts_on_no_terminal(named: Repo) -> None:
    evil = "true {checkpoint}" + " " * 300 + "\x1b[2K\x1b]0;x\x07\r\u202e\n" + "x" * 300
    name(named, evil)
    for done in (named.run(*MERGE, ok=(2,)), named.run("git", "theta", "allow")):
        text = (done.stdout + done.stderr).decode()
        assert "x" * 300 in text
        assert "\\x1b[2K\\x1b]0;x\\x07\\r\\u202e" in text
        assert all(char.isprintable() or char == "\n" for char in text)


def test_consent_does_not_come_with_the_repository(named: Repo, tmp_path: Path) -> None:
    inside = {"XDG_CONFIG_HOME": str(named.path / "config")}
    for words in (("allow",), ("merge", "side", "--tune")):
        done = named.run("git", "theta", *words, env=inside, ok=(2,))
        assert b"is inside this repository" in done.stderr
    assert not ran(named)
    named.run("git", "theta", "allow", env={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    (kept,) = (tmp_path / "config/git-theta/allowed").iterdir()
    row = json.loads(kept.read_text())
    row["command"] += " "
    kept.write_text(json.dumps(row))
    named.run(*MERGE, env={"XDG_CONFIG_HOME": str(tmp_path / "config")}, ok=(2,))
    assert not ran(named)


@pytest.mark.skipif(os.name == "nt", reason="no modes there")
def test_what_others_can_write_is_no_consent(named: Repo, sealed: Path) -> None:
    named.theta("allow")
    (kept,) = (sealed / ".config/git-theta/allowed").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.chmod(0o666)
    named.run(*MERGE, ok=(2,))
    assert not ran(named)


@pytest.mark.skipif(os.name == "nt", reason="no pseudo terminals there")
@pytest.mark.parametrize(("answer", "yes"), [(b"y\n", True), (b"\n", False), (b"n\n", False)])
def test_a_terminal_is_asked(named: Repo, answer: bytes, yes: bool) -> None:
    from tests.scenarios.terminals import on_terminal

    text = on_terminal(named.path, *MERGE, "--yes", answers=answer)
    assert b"Allow it, now and from now on?" in text
    assert ran(named) is yes
    assert ("evaluate.py" in named.theta("allow", "--list")) is yes


def test_nothing_to_allow(repo: Repo) -> None:
    done = repo.run("git", "theta", "allow", ok=(2,))
    assert b"names no evaluation command" in done.stderr
