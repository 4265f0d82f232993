"""Which Git command started this process, as far as the system tells.

The filter needs to know for one decision only: whether a file that Git asks for goes to a diff
(then the diff driver reads the manifest and the store, and nothing is rebuilt) or into the work
tree. A wrong yes would put a manifest where a checkpoint belongs, so every doubt is a no.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

_DIFFS = {
    "diff",
    "show",
    "log",
    "whatchanged",
    "diff-tree",
    "diff-index",
    "diff-files",
    "format-patch",
}
_WITH_VALUE = {
    "-C",
    "-c",
    "--git-dir",
    "--work-tree",
    "--namespace",
    "--exec-path",
    "--super-prefix",
    "--config-env",
}
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "busybox"}
_MAX_STEPS = 4


def started_by_diff() -> bool:
    """Whether the nearest Git above this process certainly runs a command that only shows diffs."""
    command = git_command()
    return command is not None and shows_diffs(command)


def git_command() -> list[str] | None:
    """The arguments of the nearest ancestor that is git, or None where that cannot be told."""
    process = os.getppid()
    for _ in range(_MAX_STEPS):
        arguments = _arguments(process)
        if not arguments:
            return None
        name = os.path.basename(arguments[0]).removesuffix(".exe")
        if name == "git" or name.startswith("git-"):
            return arguments
        if name.lstrip("-") not in _SHELLS:
            return None
        parent = _parent(process)
        if parent is None:
            return None
        process = parent
    return None


def shows_diffs(arguments: Sequence[str]) -> bool:
    """Whether `git …`, global options skipped, is a command that only shows diffs."""
    rest = command_of(arguments)
    return rest[:2] == ["stash", "show"] or (bool(rest) and rest[0] in _DIFFS)


def command_of(arguments: Sequence[str]) -> list[str]:
    """The command of `git …` and what follows it, global options skipped; empty if there is none.

    `git-diff` is `diff`, as in a program's name.
    """
    rest = list(arguments)
    if not rest:
        return []
    name = os.path.basename(rest.pop(0)).removesuffix(".exe")
    if name.startswith("git-"):
        rest.insert(0, name.removeprefix("git-"))
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in _WITH_VALUE and rest:
            rest.pop(0)
    return rest


def _arguments(process: int) -> list[str]:
    try:
        data = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(item) for item in data.rstrip(b"\0").split(b"\0")]


def _parent(process: int) -> int | None:
    try:
        text = Path(f"/proc/{process}/stat").read_text("utf-8", "replace")
        return int(text.rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
