"""Checkpoints that were committed whole, by someone without the extension."""

from __future__ import annotations

from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import blobs_of
from git_theta_ext.objects.store.reachable import is_raw


def committed_whole(repository: Repository, base: str, head: str) -> list[str]:
    """The tracked paths whose blob is new in `head` and no manifest."""
    before = set(blobs_of(repository, base))
    fresh = [item for item in blobs_of(repository, head) if item not in before]
    tracked = with_filter(repository, [path for path, _ in fresh])
    fresh = [(path, oid) for path, oid in fresh if path in tracked]
    raw = is_raw(repository, [oid for _, oid in fresh])
    return [path for path, oid in fresh if oid in raw]


def with_filter(repository: Repository, paths: list[str]) -> set[str]:
    """Those of some paths, from the top, whose `filter` attribute is `theta`: in one process."""
    filters = repository.attributes("filter", paths)
    return {path for path, value in filters.items() if value == "theta"}
