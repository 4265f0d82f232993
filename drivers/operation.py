"""What Git is doing when it starts the merge driver: merging, or putting a commit on another base.

Git tells the driver nothing of it, and writes `CHERRY_PICK_HEAD` and `REBASE_HEAD` only after a
conflict. What can be seen before: `git merge` names the heads that it merges in the environment
(`GITHEAD_<id>`), a rebase has its folder, and the process that started the driver has a command
line. Where nothing tells, it is a merge: then what collides stays a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping

from git_theta_ext.git.ancestry import command_of, git_command
from git_theta_ext.git.repository import Repository
from git_theta_ext.merge.conflicts.resolve import operation_under_way
from git_theta_ext.merge.strategies.policy import Operation

_HEAD = "GITHEAD_"
_COMMANDS = ("cherry-pick", "revert", "rebase", "am")
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
