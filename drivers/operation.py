"""What Git is doing when it starts the merge driver: merging, or putting a commit on another base.

Git tells the driver nothing of it, and writes `CHERRY_PICK_HEAD` and `REBASE_HEAD` only after a
conflict. What can be seen before: `git merge` names the heads that it merges in the environment
(`GITHEAD_<id>`), a rebase has its folder, and the process that started the driver has a command
line. Where nothing tells, it is a merge: then what collides stays a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from git_theta_ext.git.ancestry import command_of, git_command
from git_theta_ext.git.operations import Heads
from git_theta_ext.git.repository import Repository
from git_theta_ext.merge.conflicts.resolve import operation_under_way
from git_theta_ext.merge.strategies.policy import Operation

_HEAD = "GITHEAD_"
_COMMANDS = ("cherry-pick", "revert", "rebase", "am")
_PICKS = ("cherry-pick", "revert")
_PICKING_LINES = (
    "pick", "p", "reword", "r", "edit", "e", "squash", "s", "fixup", "f", "revert"
)  # fmt: skip
_MERGES = ("merge", "merge-tree", "stash", "checkout", "switch")
"""These merge, also while a rebase has stopped for the user."""


def operation(repository: Repository, environment: Mapping[str, str]) -> Operation:
    """Whether this is a merge or a rebase, cherry-pick or revert."""
    command = next(iter(command_of(git_command() or ())), "")
    if command in _MERGES or any(name.startswith(_HEAD) for name in environment):
        return "merge"
    action = environment.get("GIT_REFLOG_ACTION", "").split(" ")[0].strip(":")
    if action in _COMMANDS or operation_under_way(repository) == "rebase":
        return "rebase"
    return "rebase" if command in _COMMANDS else "merge"


def merged_head(repository: Repository, environment: Mapping[str, str]) -> str | None:
    """The commit that is being merged into HEAD, as far as Git tells."""
    heads = [name.removeprefix(_HEAD) for name in environment if name.startswith(_HEAD)]
    own = repository.resolve("HEAD")
    others = [head for head in heads if head != own]
    return others[0] if len(others) == 1 else None


def heads_of(repository: Repository, environment: Mapping[str, str]) -> Heads | None:
    """The three commits of the merge, rebase, cherry-pick or revert; None where Git does not tell.

    The driver runs before Git writes which commit it picks, so that is read from the list of a
    rebase or of several picks, or from the command line of a cherry-pick or revert of one commit.
    """
    head = merged_head(repository, environment)
    if head is not None:
        return Heads.find(repository, head)
    own = repository.resolve("HEAD^{commit}")
    command, *rest = command_of(git_command() or ()) or [""]
    picked = None
    if command in _PICKS:
        todo = repository.git_dir / "sequencer" / "todo"
        picked = _single(rest) or _picked(_lines(todo)[:1])
    elif command == "rebase":
        picked = _picked(_lines(repository.git_dir / "rebase-merge" / "done")[-1:])
    commit = repository.resolve(f"{picked}^{{commit}}") if picked else None
    if own is None or commit is None:
        return None
    parent = repository.resolve(f"{commit}^1^{{commit}}")
    if command == "revert":
        return None if parent is None else Heads(commit, own, parent)
    return Heads(parent, own, commit)


def _single(words: Sequence[str]) -> str | None:
    """The commit of a cherry-pick or revert of one commit without options that have a value."""
    names = [word for word in words if not word.startswith("-")]
    plain = len(names) == 1 and ".." not in names[0] and not names[0].startswith("^")
    return names[0] if plain else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _picked(lines: Sequence[str]) -> str | None:
    """The commit of a line of a rebase's or a cherry-pick's list, if the line picks one."""
    words = lines[0].split() if lines else []
    return words[1] if len(words) > 1 and words[0] in _PICKING_LINES else None
