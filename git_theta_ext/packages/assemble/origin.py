"""Where the tensors of an assembled checkpoint came from, by the locks that a commit has."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.operations import Heads
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import blobs_of
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.packages.assemble import locked
from git_theta_ext.packages.assemble.locked import Lock, LockedPart
from git_theta_ext.packages.remote import without_secret


@dataclass(frozen=True, slots=True)
class FoundLock:
    """A lock of a commit: its path from the top, its blob, and what it says."""

    path: str
    blob: str
    lock: Lock

    @property
    def checkpoint(self) -> str:
        """The checkpoint that it is about, from the top."""
        return posixpath.join(posixpath.dirname(self.path), self.lock.path)

    @property
    def recipe(self) -> str:
        """The recipe, from the top."""
        return locked.recipe_of(self.path)


@dataclass(frozen=True, slots=True)
class Origin:
    """The part that a tensor is from, and the tensors there that it is made of."""

    part: LockedPart
    sources: tuple[str, ...]

    def words(self) -> str:
        """The same as one names it: `https://host/team/vision@v1.3:vision.a`."""
        first, *others = self.sources
        more = f" and {len(others):,} more" if others else ""
        return f"{without_secret(self.part.where)}:{first}{more}"

    def record(self) -> dict[str, Any]:
        """The same for `--json`."""
        return {
            "part": self.part.name, "url": without_secret(self.part.url),
            "version": self.part.version,
            "commit": self.part.commit, "path": self.part.path, "tensors": list(self.sources),
            "words": self.words(),
        }  # fmt: skip


def locks_of(repository: Repository, revision: str, path: str) -> list[FoundLock]:
    """The locks that a revision has of a checkpoint; those that are damaged are passed over.

    A recipe stands in the folder of its checkpoint or above it, so nowhere else is looked.

    Args:
        repository: bare ones too.
        revision: a commit.
        path: of the checkpoint, from the top.
    """
    folders = []
    folder = posixpath.dirname(path)
    while folder:
        folders.append(f"{folder}/")
        folder = posixpath.dirname(folder)
    entries = repository.tree(revision, ok=(0, 128))
    if folders:
        entries += repository.tree(revision, *folders, ok=(0, 128))
    files = [(entry.path, entry.oid) for entry in entries if entry.mode.startswith("100")]
    return [one for one in _parsed(repository, files) if one.checkpoint == path]


def all_locks(repository: Repository, revision: str) -> list[FoundLock]:
    """The locks that a commit has, of whatever checkpoints; damaged ones are passed over."""
    return _parsed(repository, blobs_of(repository, revision))


def _parsed(repository: Repository, files: Iterable[tuple[str, str]]) -> list[FoundLock]:
    """Those of some files, given by path and blob, that are locks."""
    names = {path: oid for path, oid in files if path.endswith(".lock")}
    texts = dict(
        repository.small_blobs(
            list(dict.fromkeys(names.values())), locked.MAGIC, limits.RECIPE_LOCK_BYTES
        )
    )
    found = []
    for path, oid in names.items():
        with suppress(UsageError):
            if oid in texts:
                found.append(FoundLock(path, oid, locked.parse(texts[oid], path)))
    return found


class Origins:
    """Where tensors came from, commit by commit; the locks of each are read once."""

    def __init__(self, repository: Repository, revision: str, path: str) -> None:
        """Of a checkpoint that a revision has: where that has no lock of it, none is looked for."""
        self._repository = repository
        self._assembled = bool(locks_of(repository, revision, path))
        self._known: dict[tuple[str, str], list[FoundLock]] = {}

    def find(self, commit: str, path: str, entry: Entry) -> Origin | None:
        """The origin of a tensor that a commit brought; None where no part gave these bytes.

        Args:
            commit: the one that last changed the tensor.
            path: of the checkpoint in it.
            entry: the tensor.
        """
        if not self._assembled:
            return None
        place = (commit, path)
        if place not in self._known:
            self._known[place] = locks_of(self._repository, commit, path)
        for one in self._known[place]:
            giver = one.lock.giver(entry.tensor.name)
            if giver is not None and giver[1].digest == locked.digest_of(entry):
                return Origin(giver[0], giver[1].sources)
        return None


def may_be_assembled(top: Path, path: str) -> bool:
    """Whether the work tree has a lock in the folder of a checkpoint or above it: at no cost.

    Args:
        top: of the work tree.
        path: of the checkpoint, from there.
    """
    folder = top / posixpath.dirname(path)
    for place in (folder, *folder.parents):
        with suppress(OSError):
            if any(name.endswith(".lock") for name in os.listdir(place)):
                return True
        if place == top:
            break
    return False


def assembled_on_both(
    repository: Repository, heads: Heads, path: str | None = None
) -> list[FoundLock]:
    """The locks, as ours has them, of checkpoints that both sides of a merge assembled anew.

    Args:
        repository: where the branches are.
        heads: of the merge.
        path: of the one checkpoint that is asked about, from the top; None: all.
    """
    sides = [
        {}
        if commit is None
        else {
            one.path: one
            for one in (
                all_locks(repository, commit)
                if path is None
                else locks_of(repository, commit, path)
            )
        }
        for commit in (heads.ours, heads.theirs, heads.base)
    ]
    ours, theirs, base = sides
    return [
        mine
        for name, mine in ours.items()
        if name in theirs
        and mine.blob != theirs[name].blob
        and (name not in base or base[name].blob not in (mine.blob, theirs[name].blob))
    ]


def is_as_locked(lock: Lock, manifest: Manifest) -> bool:
    """Whether all tensors of a version are those that the parts gave, and there are no others."""
    for name, entry in manifest.by_name().items():
        giver = lock.giver(name)
        if giver is None or giver[1].digest != locked.digest_of(entry):
            return False
    return sum(len(part.tensors) for part in lock.parts) == len(manifest.entries)
