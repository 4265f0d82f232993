"""Versions of a checkpoint that are no manifest, read as one: whole, with git-lfs, or as a file.

A team that moves to storage by tensor merges branches that have not moved yet, and for a while the
common base of every merge is such a version.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.checkpoints.clean import Cleaner
from git_theta_ext.checkpoints.contents import lfs_object
from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.checkpoints.placed import manifests_in_work_tree
from git_theta_ext.checkpoints.predecessors import Predecessors
from git_theta_ext.core import files
from git_theta_ext.core.errors import ChangedWhileReadError, MissingObjectError, UsageError
from git_theta_ext.formats.layout.source import FileSource, Identity
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import HEAD_BYTES, Manifest, is_manifest
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer.pointer_files import read_pointer


def manifest_of(text: bytes, path: str, repository: Repository, blocks: Blocks) -> Manifest:
    """The manifest of a blob: of one that holds none, as `git add` of its checkpoint makes it.

    Args:
        text: what Git has.
        path: of the checkpoint, from the top of the work tree.
        repository: which git-lfs's objects belong to.
        blocks: where the tensors are then stored, too.

    Raises:
        ManifestError: it is a damaged manifest.
        MissingObjectError: it is a pointer of git-lfs, and the checkpoint is not on this machine.
    """
    if is_manifest(text[:HEAD_BYTES]):
        return parse_manifest(text)
    pointer = read_pointer(text)
    if pointer is None:
        with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
            place = Path(folder) / "checkpoint"
            with files.new_file(place) as file:
                file.write(text)
            return _cleaned(place, path, repository, blocks)
    found = lfs_object(repository, pointer)
    if found is None:
        raise MissingObjectError(
            f"a version of it is stored by git-lfs, and its object sha256:{pointer.oid} "
            f"({pointer.size} bytes) is not on this machine",
            hint="git lfs fetch --all   then begin again, after: git merge --abort (or the like)",
        )
    return _cleaned(found, path, repository, blocks)


@dataclass(frozen=True, slots=True)
class Held:
    """What the work tree holds at a path: the manifest of a checkpoint, or one itself.

    `identity` is that of the file while it was read; None where the manifest itself stands there.
    """

    manifest: Manifest
    identity: Identity | None

    def is_still(self, repository: Repository, path: str) -> bool:
        """Whether nobody wrote to the file since."""
        try:
            with FileSource(repository.top / path) as source:
                return self.identity in (None, source.identity())
        except OSError:
            return False


def held_in_work_tree(repository: Repository, path: str, blocks: Blocks) -> Held:
    """The manifest of the file at a path of the work tree, as `git add` of it would make it.

    Args:
        repository: one with a work tree.
        path: from its top.
        blocks: where its tensors are stored, as far as they are not.

    Raises:
        UsageError: there is no regular file.
        ManifestError: a damaged manifest stands there.
        ChangedWhileReadError: the file changed meanwhile.
    """
    text = manifests_in_work_tree(repository, [path]).get(path)
    if text is not None:
        return Held(parse_manifest(text), None)
    if not WorkTree(repository.top).has_file(path):
        raise UsageError(f"{path!r} is not in the work tree")
    memo = Memo(store_of(repository).root / "memo")
    cleaner = Cleaner(blocks, Predecessors(repository), memo)
    with FileSource(repository.top / path) as source:
        found = cleaner.remembered(path, source)
        if found is None:
            found = cleaner.clean(path, source)
            cleaner.remember(path, source, found)
        held = Held(parse_manifest(found), source.identity())
    memo.trim(store_of(repository).root / "objects")
    if not held.is_still(repository, path):
        raise ChangedWhileReadError(f"{path} changed while it was read")
    return held


def _cleaned(place: Path, path: str, repository: Repository, blocks: Blocks) -> Manifest:
    memo = Memo(store_of(repository).root / "memo")
    with FileSource(place) as source:
        found = Cleaner(blocks, Predecessors(repository), memo).clean(path, source)
    memo.trim(store_of(repository).root / "objects")
    return parse_manifest(found)
