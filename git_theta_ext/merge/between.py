"""The checkpoints that two branches both changed, found before anything is merged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from git_theta_ext import checkpoints
from git_theta_ext.errors import ManifestError, UsageError
from git_theta_ext.manifest import Manifest
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
        {} if commit is None else dict(checkpoints.blobs_of(repository, commit))
        for commit in (heads.base, heads.ours, heads.theirs)
    ]
    both = [
        path
        for path in sorted(set(trees[1]) & set(trees[2]))
        if trees[1][path] != trees[2][path]
        and trees[0].get(path) not in (trees[1][path], trees[2][path])
    ]
    oids = [tree[path] for path in both for tree in trees if path in tree]
    found = dict(checkpoints.manifests(repository, oids))
    for path in both:
        base, ours, theirs = (_whole(found.get(tree.get(path, "")), path) for tree in trees)
        if ours is not None and theirs is not None:
            yield Pair(path, base, ours, theirs)


def _whole(found: Manifest | ManifestError | None, path: str) -> Manifest | None:
    if isinstance(found, ManifestError):
        raise ManifestError(f"{path}: {found.message}", hint=found.hint)
    return found
