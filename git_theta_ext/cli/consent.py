"""Asking for leave to run what a repository names; shared by the commands that run it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.terminal import ask
from git_theta_ext.core.text import paragraph
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.settings_file import FILE
from git_theta_ext.merge.branches.consent import Consent, evaluation_of


def shown(command: str) -> str:
    """A command in full, each line of it by itself, and nothing in it active."""
    return "    " + paragraph(command, "    ")


def require(repository: Repository, commands: Iterable[str], *, once: bool) -> None:
    """See to it that the user lets these commands of `.theta.toml` run, or has said so now.

    Args:
        repository: the one that names them.
        commands: as they stand in the file.
        once: the user allows them for this time (`--allow-evaluation`).

    Raises:
        UsageError: the user did not; names them all.
    """
    if once:
        return
    consent = Consent.of(repository, os.environ)
    wanted = [evaluation_of(repository, command) for command in dict.fromkeys(commands)]
    lacking = [one for one in wanted if not consent.given(one)]
    if not lacking:
        return
    texts = "\n".join(shown(one.command) for one in lacking)
    what = "an evaluation command" if len(lacking) == 1 else f"{len(lacking)} evaluation commands"
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        would = "a command" if len(lacking) == 1 else f"{len(lacking)} commands"
        print(f"{FILE} of this repository names {would} that would run on your machine:")
        print(texts)
        if ask("Allow it, now and from now on? [y/N]").lower() in ("y", "yes"):
            for one in lacking:
                consent.give(one)
            return
    raise UsageError(
        f"{FILE} names {what} that you have not allowed:\n{texts}",
        hint="git theta allow   (or, this once: --allow-evaluation)",
    )
