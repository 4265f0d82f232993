"""Git's pager, for verbs that print what is read from the top: as Git does for `git log`.

`git -p theta …`, and `pager.theta` set to true, Git heeds itself before it starts this program.
This is for what Git pages without being told to. Which pager is what Git says: GIT_PAGER,
`core.pager`, PAGER.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.git.process import Pager, run_git, start_pager

PAGED = frozenset({"blame", "diff", "du", "log", "modules", "scores", "show"})
"""Verbs whose output is paged on a terminal: namesakes of what Git pages, and what is as long."""

_FALSE = ("false", "no", "off", "0")


@contextmanager
def paged(verb: str) -> Iterator[None]:
    """Send what is printed through the pager, if the verb is paged and stdout is a terminal."""
    command = _command() if verb in PAGED and _wanted(os.environ) else None
    pager = start_pager(command) if command is not None else None
    if pager is None:
        yield
        return
    try:
        with _stdout_to(pager):
            yield
    finally:
        _await(pager)


def _await(pager: Pager) -> None:
    """Wait until the user ends the pager: Ctrl-C in it is the pager's own matter."""
    while True:
        try:
            pager.wait()
            return
        except KeyboardInterrupt:
            continue


def _wanted(environment: Mapping[str, str]) -> bool:
    """Whether a pager is of use: a terminal, on which Git has not started one already."""
    in_use = environment.get("GIT_PAGER_IN_USE", "").lower() in ("true", "1", "yes", "on")
    return os.name == "posix" and not in_use and sys.stdout.isatty()


def _command() -> str | None:
    """The command of the pager; None where there is to be none."""
    try:
        setting = run_git(["config", "--get", "pager.theta"], Path.cwd(), ok=(0, 1))
        text = setting.decode("utf-8", "replace").strip()
        if text.lower() in _FALSE:
            return None
        pager = run_git(["var", "GIT_PAGER"], Path.cwd()).decode("utf-8", "replace").strip()
    except RepositoryError:
        return None
    return pager if pager not in ("", "cat") else None


@contextmanager
def _stdout_to(pager: Pager) -> Iterator[None]:
    """Put the pager in the place of the terminal, and end its input at the end."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(pager.input, 1)
    os.close(pager.input)
    os.environ["GIT_PAGER_IN_USE"] = "true"
    try:
        yield
    finally:
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        del os.environ["GIT_PAGER_IN_USE"]
