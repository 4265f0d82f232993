"""The checkpoints that two branches both changed, found before anything is merged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from git_theta_ext.checkpoints import blobs_of
from git_theta_ext.errors import UsageError
from git_theta_ext.manifest import Manifest, is_manifest
from git_theta_ext.repository import Repository


@dataclass(frozen=True, slots=True)
class Pair:
    """One checkpoint in three versions: in the common ancestor, in HEAD and in the other branch."""

    path: str
    base: Manifest | None
    ours: Manifest
    theirs: Manifest


@dataclass(frozen=True, slots=True)
class Heads:
    """The commits of a merge to come; `base` is None for unrelated histories."""

    base: str | None
    ours: str
    theirs: str

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
        return cls(found[0] if found else None, ours, theirs)


def pairs(repository: Repository, heads: Heads) -> Iterator[Pair]:
    """Every checkpoint that both sides changed, to different contents; renames are not followed."""
    trees = [
        {} if commit is None else dict(blobs_of(repository, commit))
        for commit in (heads.base, heads.ours, heads.theirs)
    ]
    for path in sorted(set(trees[1]) & set(trees[2])):
        base, ours, theirs = (tree.get(path) for tree in trees)
        if ours is None or theirs is None or ours == theirs or base in (ours, theirs):
            continue
        mine, yours = _manifest(repository, ours), _manifest(repository, theirs)
        if mine is not None and yours is not None:
            yield Pair(path, _manifest(repository, base) if base else None, mine, yours)


def _manifest(repository: Repository, oid: str) -> Manifest | None:
    found = dict(repository.small_blobs([oid], b"git-theta manifest", 64 << 20))
    data = found.get(oid, b"")
    return Manifest.parse(data) if is_manifest(data) else None
