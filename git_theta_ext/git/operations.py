"""Which merge, rebase, cherry-pick or revert is under way, by what Git leaves in its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass

from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository

_HEADS = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD")
MERGE_STATES = "theta-merge"
"""The folder, in Git's own, that has what merges left open and how it was settled."""
_PICKING = ("CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply", "sequencer")


def _there(repository: Repository, name: str) -> bool:
    return (repository.git_dir / name).exists()


def is_merging(repository: Repository) -> bool:
    """Whether a merge waits for its commit."""
    return _there(repository, "MERGE_HEAD")


def is_picking(repository: Repository) -> bool:
    """Whether a rebase, cherry-pick or revert is under way, and no merge within it."""
    return not is_merging(repository) and any(_there(repository, one) for one in _PICKING)


def keeps_from_merging(repository: Repository) -> bool:
    """Whether Git begins no merge yet: one waits for its commit, or a path is in conflict."""
    waiting = is_merging(repository) or _there(repository, "CHERRY_PICK_HEAD")
    return waiting or bool(unmerged(repository))


def unmerged(repository: Repository) -> list[str]:
    """The paths in conflict, from the top, wherever in the work tree the command was started."""
    answer = repository.git("ls-files", "--unmerged", "-z", "--full-name", "--", ":(top)")
    lines = answer.split(b"\0")[:-1]
    return list(dict.fromkeys(os.fsdecode(line.split(b"\t", 1)[1]) for line in lines))


def other_heads(repository: Repository) -> list[str]:
    """The heads, besides HEAD, of what is under way."""
    return [name for name in _HEADS if _there(repository, name)]


def revisions_in_progress(repository: Repository) -> list[str]:
    """HEAD, if there is one, and the other heads of what is under way."""
    others = other_heads(repository)
    return ["HEAD", *others] if repository.resolve("HEAD") else others


@dataclass(frozen=True, slots=True)
class Heads:
    """The commits of a merge to come; `base` is None for unrelated histories.

    `further` are merge bases besides `base`, where there are several.
    """

    base: str | None
    ours: str
    theirs: str
    further: tuple[str, ...] = ()

    @classmethod
    def find(cls, repository: Repository, other: str) -> Heads:
        """HEAD, another revision, and their merge base (the first, if there are several).

        Raises:
            UsageError: there is no such revision, or no commit yet.
        """
        ours, theirs = (
            repository.resolve("HEAD^{commit}"),
            repository.resolve(f"{other}^{{commit}}"),
        )
        if ours is None:
            raise UsageError("there is no commit here yet to merge into")
        if theirs is None:
            raise UsageError(f"{other!r} is not a branch or commit here", hint="git branch -a")
        found = repository.git("merge-base", "--all", ours, theirs, ok=(0, 1)).decode().split()
        return cls(found[0] if found else None, ours, theirs, tuple(found[1:]))


def heads_under_way(repository: Repository) -> Heads:
    """The three commits of the merge, cherry-pick, revert or rebase that is in progress.

    Raises:
        UsageError: none is.
    """
    own = repository.resolve("HEAD^{commit}")
    if own is None:
        raise UsageError("there is no commit here yet to merge into")
    if is_merging(repository):
        return Heads.find(repository, "MERGE_HEAD")
    if _there(repository, "REVERT_HEAD"):
        base, theirs = "REVERT_HEAD^{commit}", "REVERT_HEAD^1^{commit}"
    else:
        names = ("CHERRY_PICK_HEAD", "REBASE_HEAD")
        head = next((one for one in names if _there(repository, one)), None)
        if head is None:
            raise UsageError(
                "no merge, rebase, cherry-pick or revert is in progress here",
                hint="for a stash, or a squashed merge, settle the shards one by one",
            )
        base, theirs = f"{head}^1^{{commit}}", f"{head}^{{commit}}"
    found = repository.resolve(theirs)
    if found is None:
        raise UsageError(f"{theirs} is no commit here")
    return Heads(repository.resolve(base), own, found)


def heads_if_any(repository: Repository) -> Heads | None:
    """As `heads_under_way`; None where none is, or a commit of it is not to be found."""
    try:
        return heads_under_way(repository)
    except UsageError:
        return None
