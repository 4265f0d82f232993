"""Which commands certainly only show diffs: a wrong yes would put a manifest into the work tree."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from git_theta_ext.git import ancestry


@pytest.mark.parametrize(
    "command",
    [
        "git diff",
        "git show HEAD",
        "git log -p",
        "/usr/lib/git-core/git diff-index HEAD",
        "git -C /some/where diff",
        "git -c core.pager=cat --git-dir x --no-pager diff",
        "git --git-dir=x diff",
        "git stash show -p",
        "git-diff",
        "git.exe diff",
        "git format-patch -1",
    ],
)
def test_diffs(command: str) -> None:
    assert ancestry.shows_diffs(command.split())


@pytest.mark.parametrize(
    "command",
    [
        "git",
        "git checkout diff",
        "git stash",
        "git stash push -p",
        "git -c diff checkout",
        "git -C diff checkout",
        "git --git-dir diff checkout",
        "git archive HEAD",
        "git cat-file --filters HEAD:diff",
        "git difftool",
        "git add -p",
        "git --unknown",
    ],
)
def test_everything_else(command: str) -> None:
    assert not ancestry.shows_diffs(command.split())


def test_a_process_that_git_did_not_start_is_no_diff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getppid", lambda: 2**22 + 1)
    assert not ancestry.started_by_diff()


@pytest.mark.parametrize(
    "command",
    [
        "git status",
        "/usr/bin/git -C x -c status=add --git-dir=y --no-optional-locks status --porcelain -z",
        "git --literal-pathspecs status -sb -uno -- -v",
        "git status --no-renames --ignored=matching",
    ],
)
def test_who_only_asks(command: str) -> None:
    assert ancestry.is_status(command.split())


@pytest.mark.parametrize(
    "command",
    [
        "git",
        "git add status",
        "git -C status add x",
        "git -c status",
        "git --attr-source status add x",
        "git --unknown status",
        "git status -v",
        "git status -sv",
        "git status --verb",
        "git submodule status",
        "git st",
        "git commit --dry-run",
    ],
)
def test_who_may_keep_or_show_what_it_is_told(command: str) -> None:
    assert not ancestry.is_status(command.split())


def test_what_is_no_git_is_told_from_what_cannot_be_told(tmp_path: Path) -> None:
    """A hook's file is started by Git, by a shell of Git's, or by a program such as JGit's Java."""
    code = f"from {ancestry.__name__} import started_by_another; print(started_by_another())"
    python = [sys.executable, "-I", "-c", code]
    shell = ["sh", "-c", f"{shlex.join(python)}; :"]
    git = ["git", "-c", f"alias.x=!{shlex.join(shell)}", "x"]

    def told(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert told(*python) == told(*shell) == "True"
    assert told(*git) == "False"
