"""Whether all that a checkout brings fits on the disk: Git asks for one file after another."""

from __future__ import annotations

from collections.abc import Container

from git_theta_ext.core.errors import ThetaError
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import blobs_of
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.bounds import check_together, claimed, free_space
from git_theta_ext.objects.store import reachable

_SHARE = 16
"""The whole tree is looked at, once, when a sixteenth of the free space has been asked for."""


class RoomAhead:
    """Says so, once, where the files that are still to come do not fit together."""

    def __init__(self, repository: Repository) -> None:
        """Nothing is read yet."""
        self._repository = repository
        self._asked = 0
        self._told = False

    def look(self, tree: str | None, nbytes: int, done: Container[str]) -> None:
        """Before a file is rebuilt.

        Args:
            tree: the commit or tree that Git checks out; None where it does not say.
            nbytes: the file's size.
            done: the paths of the files before it.
        """
        top = self._repository.work_tree
        self._asked += nbytes
        if self._told or tree is None or top is None:
            return
        free = free_space(top)
        if free is None or self._asked * _SHARE < free:
            return
        self._told = True
        try:
            check_together(self._coming(tree, done), top)
        except ThetaError:
            return  # Git, or the file itself, says what is wrong with it.

    def _coming(self, tree: str, done: Container[str]) -> dict[str, int]:
        """The sizes of the checkpoints that are not there yet, or in another version, by path."""
        top = self._repository.top
        before = {entry.path: entry.oid for entry in self._repository.index()}
        coming = {
            path: oid
            for path, oid in blobs_of(self._repository, tree)
            if path not in done and (before.get(path) != oid or not (top / path).is_file())
        }
        texts = reachable.manifest_texts(self._repository, dict.fromkeys(coming.values()))
        sizes: dict[str, int] = {}
        for oid, text in texts:
            try:
                sizes[oid] = claimed(parse_manifest(text))
            except ThetaError:
                continue
        return {path: sizes[oid] for path, oid in coming.items() if oid in sizes}
