"""Predecessors in a history that is being written: a commit's parents in place of index and HEAD.

A version is encoded against what it would have been encoded against by `git add`, had the history
been committed so: the index is the first parent's, and further parents are those of a merge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from git_theta_ext.checkpoints.predecessors import Predecessors
from git_theta_ext.git.repository import IndexEntry, Repository
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.manifest.text import Parser

_FILE = "100644"


class PastPredecessors(Predecessors):
    """The manifests of the parents of one commit, which no ref need name yet."""

    def __init__(
        self,
        repository: Repository,
        parents: Sequence[Mapping[str, str]],
        parser: Parser,
        texts: Mapping[str, bytes] | None = None,
    ) -> None:
        """Nothing is read before it is asked for.

        Args:
            repository: holds the blobs.
            parents: the checkpoints of each parent, the first first: path -> blob.
            parser: one that has read versions of the same checkpoints.
            texts: manifests by the ids of their blobs, which the repository need not have.
        """
        super().__init__(repository, parser=parser)
        self._given = texts or {}
        self._parents = dict(zip(map(str, range(len(parents))), parents, strict=True))

    @cached_property
    def _heads(self) -> list[str]:
        return list(self._parents)

    @cached_property
    def _index(self) -> dict[str, list[IndexEntry]]:
        first = self._parents.get("0", {})
        return {path: [IndexEntry(_FILE, oid, 0, path)] for path, oid in first.items()}

    def _untracked(self, path: str) -> list[IndexEntry]:
        return []

    def _committed_at(self, head: str, path: str) -> str | None:
        return self._parents[head].get(path)

    def _texts(self, oids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        yield from ((oid, self._given[oid]) for oid in oids if oid in self._given)
        yield from super()._texts([oid for oid in oids if oid not in self._given])

    @property
    def work_tree(self) -> Path | None:
        """None: what lies in the work tree is of another commit."""
        return None

    @property
    def _gone(self) -> list[str]:
        return []

    def _noted(self, path: str) -> Manifest | None:
        return None
