"""Which Git command started this process, as far as the system tells.

The filter needs to know for two decisions. Whether a file that Git asks for goes to a diff (then
the diff driver reads the manifest and the store, and nothing is rebuilt) or into the work tree: a
wrong yes would put a manifest where a checkpoint belongs. And whether `git add --renormalize` wants
a checkpoint that the index holds whole to be stored by tensor, or another command only looks
whether it has changed. Every doubt is a no.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from git_theta_ext.core.errors import ThetaError
from git_theta_ext.git.process import run_program

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


def renormalizes() -> bool:
    """Whether the nearest Git above this process certainly is `git add --renormalize`."""
    command = git_command(_told_by_ps)
    return command is not None and asks_to_renormalize(command)


def only_looks() -> bool:
    """Whether the nearest Git above this process certainly only looks whether files changed."""
    command = git_command(_told_by_ps)
    return command is not None and (
        shows_diffs(command) or command_of(command)[:1] in (["status"], ["describe"])
    )


_ANSWERS = {"update-index", "hash-object", "write-tree", "apply"}
"""Commands that programs start for what they print, with `git stash create`. Of that lint-staged
takes both streams for the name of the stash: with a warning in it, changes were lost."""


def answers_a_program() -> bool:
    """Whether the nearest Git above this process certainly runs what programs start, not people."""
    words = command_of(git_command() or ())
    return bool(_ANSWERS.intersection(words[:1])) or words[:2] == ["stash", "create"]


def only_status() -> bool:
    """Whether the nearest Git above this process certainly is `git status`.

    It asks whether a file is what the index names, and stores nothing of what it is answered.
    """
    command = git_command()  # (`ps` does not tell one argument with a blank from two)
    return command is not None and is_status(command)


def is_status(arguments: Sequence[str]) -> bool:
    """Whether `git …` is `status`, without the option that has it show what was changed."""
    rest = list(arguments[1:])
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in _BEFORE_STATUS:
            del rest[: _BEFORE_STATUS[option]]
        elif not option.startswith(_BEFORE_STATUS_WITH_VALUE):
            return False
    if rest[:1] != ["status"]:
        return False
    options = rest[: rest.index("--")] if "--" in rest else rest
    return not any(
        one.startswith("--v") or (one[:1] == "-" and one[1:2] != "-" and "v" in one)
        for one in options
    )


_BEFORE_STATUS = {
    **dict.fromkeys(("-C", "-c", "--git-dir", "--work-tree", "--namespace"), 1),
    **dict.fromkeys(("-p", "--paginate", "-P", "--no-pager", "--no-optional-locks", "--bare"), 0),
    **dict.fromkeys((f"--{kind}-pathspecs" for kind in ("literal", "glob", "noglob", "icase")), 0),
}
"""Options of `git` that are known well enough, and how many words belong to each besides it."""
_BEFORE_STATUS_WITH_VALUE = ("--git-dir=", "--work-tree=", "--namespace=", "--config-env=")


def asks_to_renormalize(arguments: Sequence[str]) -> bool:
    """Whether `git …` is `add --renormalize`, or with a beginning of that option."""
    rest = command_of(arguments)
    if rest[:1] not in (["add"], ["stage"]):
        return False
    options = rest[1 : rest.index("--")] if "--" in rest else rest[1:]
    return any(one.startswith("--ren") and "--renormalize".startswith(one) for one in options)


Arguments = Callable[[int], list[str]]


def git_command(arguments_of: Arguments | None = None) -> list[str] | None:
    """The arguments of the nearest ancestor that is git, or None where that cannot be told.

    Args:
        arguments_of: what tells a process's arguments; by default `/proc`, where there is one.
    """
    found = _starter(arguments_of or _arguments)
    return found if found is not None and _is_git(found) else None


def started_by_another() -> bool:
    """Whether what started this process, shells left out, certainly is no Git, as JGit's Java."""
    found = _starter(_arguments)
    return found is not None and not _is_git(found)


def _is_git(arguments: Sequence[str]) -> bool:
    name = _name(arguments)
    return name == "git" or name.startswith("git-")


def _name(arguments: Sequence[str]) -> str:
    return os.path.basename(arguments[0]).removesuffix(".exe")


def _starter(arguments_of: Arguments) -> list[str] | None:
    """The arguments of the nearest ancestor that is no shell; None where that cannot be told."""
    process = os.getppid()
    for _ in range(_MAX_STEPS):
        arguments = arguments_of(process)
        if not arguments or _name(arguments).lstrip("-") not in _SHELLS:
            return arguments or None
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


def _told_by_ps(process: int) -> list[str]:
    """The arguments as `/proc` or else `ps` tells them: that separates them by blanks only."""
    found = _arguments(process)
    if found or os.path.isdir("/proc/self") or os.name == "nt":
        return found
    return _ps(process, "args=").split()


def _ps(process: int, what: str) -> str:
    """One column of `ps` (POSIX) for one process; empty where it does not tell."""
    with suppress(ThetaError):
        status, answer, _ = run_program(["ps", "-o", what, "-p", str(process)], Path("/"))
        return os.fsdecode(answer).strip() if status == 0 else ""
    return ""


def _parent(process: int) -> int | None:
    if not os.path.isdir("/proc/self") and os.name != "nt":
        answer = _ps(process, "ppid=")
        return int(answer) if answer.isdecimal() else None
    try:
        text = Path(f"/proc/{process}/stat").read_text("utf-8", "replace")
        return int(text.rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
