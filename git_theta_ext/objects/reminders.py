"""What the filter says once per command after it has staged a manifest: what a push would leave."""

from __future__ import annotations

import sys
from contextlib import suppress

from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.text import paragraph
from git_theta_ext.git import ancestry
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import hooks

_LOOKS_ONLY = {"status", "diff", "diff-files", "diff-index", "ls-files", "blame", "describe"}
"""Commands that have files cleaned and stage nothing. Where it cannot be told which runs, it is
said: once too often costs a line, once too few a push without its objects."""


def remind(repository: Repository) -> None:
    """Say what keeps pushes from sending objects, and which push has left some behind."""
    command = ancestry.git_command()
    if command is not None and _LOOKS_ONLY.intersection(ancestry.command_of(command)[:1]):
        return
    with suppress(ThetaError, OSError):
        tell(hooks.warnings(repository))
    tell_of_left_behind(repository)


def tell_of_left_behind(repository: Repository) -> None:
    """Say which push has left objects behind; a failure to find out is no failure of the caller."""
    # Git also starts the filter to look, or to write files, and then asks nothing of remotes.
    from git_theta_ext.objects import left_behind

    with suppress(ThetaError, OSError):
        for left in left_behind.find(repository):
            tell(left.sentences())


def tell(sentences: list[str]) -> None:
    """Print a warning and, under it, what to type."""
    if sentences:
        print(f"git-theta: warning: {paragraph(sentences[0])}", file=sys.stderr)
        for hint in sentences[1:]:
            print(f"  hint: {paragraph(hint, '        ')}", file=sys.stderr)
