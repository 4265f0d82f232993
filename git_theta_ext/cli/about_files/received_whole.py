"""Checkpoints in a push that are stored whole, though the pushed commits track them."""

from __future__ import annotations

from collections.abc import Sequence

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import index_of
from git_theta_ext.objects.received import Update, places_in
from git_theta_ext.objects.store.reachable import is_raw


def received_whole(repository: Repository, updates: Sequence[Update]) -> list[str]:
    """The paths of new blobs that no manifest stands for, where the pushed tips track them.

    Every new commit counts, not the tips alone: what one of them has stays in the history. Which
    files are tracked is asked of Git, for the tree of each tip.

    Raises:
        UsageError: the push has more new files than can be looked at.
    """
    old = repository.git("for-each-ref", "--format=%(objectname)").decode().split()
    found: dict[str, None] = {}
    for tip in dict.fromkeys(one.new for one in updates if one.new):
        tree = repository.resolve(f"{tip}^{{tree}}")
        fresh = _new_files(repository, tip, old)
        if tree is None or not fresh:
            continue
        tracked = _tracked(repository, tree, [path for path, _ in fresh])
        fresh = [(path, oid) for path, oid in fresh if path in tracked]
        raw = is_raw(repository, [oid for _, oid in fresh])
        found.update((path, None) for path, oid in fresh if oid in raw)
    return list(found)


def _new_files(repository: Repository, tip: str, old: Sequence[str]) -> list[tuple[str, str]]:
    """The paths and blobs that `tip` has and `old` has not; folders are among them."""
    found = list(places_in(repository, [tip], old))
    if len(found) > limits.RECEIVED_FILES:
        raise UsageError(
            f"this push has more than {limits.RECEIVED_FILES:,} new files",
            hint="push fewer commits at a time",
        )
    return found


def _tracked(repository: Repository, tree: str, paths: Sequence[str]) -> set[str]:
    """Those of some paths whose filter is `theta` by the attributes of a tree."""
    with index_of(repository, tree) as index:
        filters = repository.attributes("filter", paths, index)
    return {path for path, value in filters.items() if value == "theta"}
