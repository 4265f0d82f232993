"""What stands at a path in a version: a manifest, a plain blob, or a pointer of Git LFS.

A history may change between the three, for a team moves in and out. A version that is not stored
by tensor is read where its bytes are at hand (the blob in Git, the object in git-lfs's folder), and
otherwise named for what it is: it is neither deleted nor new.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from git_theta_ext import formats
from git_theta_ext.checkpoints.versions import FileSide, Side, StoredSide, open_side
from git_theta_ext.core import files
from git_theta_ext.core.errors import ManifestError, RepositoryError
from git_theta_ext.core.text import size
from git_theta_ext.formats.layout import opaque
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import blobs_of
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import HEAD_BYTES, MAX_BYTES, Manifest, UpdateRef, is_manifest
from git_theta_ext.manifest.text import Parser, parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer.endpoints import lfs_folder
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, read_pointer

Storage = Literal["tensors", "git-lfs", "whole", "damaged", "work tree"]

_KEPT = 8
"""Contents whose manifests are held at a time: those of a version and of its parents."""
_SLICE_BYTES = 1 << 20
LFS_FETCH = "git lfs fetch --all"
"""Brings the objects of pointers: of every version, for which one is lacking is not known."""
_BATCH_BYTES = 64 << 20
"""How much of blobs is held at a time, to tell which are plain."""


@dataclass(frozen=True, slots=True)
class Content:
    """A version of a checkpoint: how it is stored, and its manifest.

    `manifest` is None where the bytes are not on this machine, or the manifest is damaged; that of
    a version which is not stored by tensor names no objects. `size` is the length in bytes of what
    is stored whole or by git-lfs, None for others. `recognised` says whether it is a checkpoint of
    a known container; of bytes that are not here, whether the name promises one.
    """

    storage: Storage
    oid: str
    name: str
    size: int | None
    manifest: Manifest | None
    recognised: bool = True
    pointer: UpdateRef | None = None

    @property
    def is_here(self) -> bool:
        """Whether its bytes are on this machine, as far as they can be read at all."""
        return self.manifest is not None or self.storage in ("damaged", "work tree")

    @property
    def words(self) -> str:
        """How it is stored, for a reader: `stored by git-lfs, 90.9 MB, not on this machine`."""
        if self.storage == "tensors":
            return "stored by tensor"
        if self.storage == "damaged":
            return "a damaged manifest"
        how = "stored by git-lfs" if self.storage == "git-lfs" else "stored whole"
        length = "" if self.size is None else f", {size(self.size)}"
        return f"{how}{length}{'' if self.is_here else ', not on this machine'}"


class Contents:
    """The contents of a repository's blobs, read when asked for; the last few are remembered."""

    def __init__(self, repository: Repository, blocks: Blocks | None = None) -> None:
        """`blocks`: where the blocks of manifests are read, if it is open already."""
        self.repository = repository
        self._blocks = blocks
        self._parser = Parser()
        self._ahead: dict[str, bytes] = {}
        self._known: OrderedDict[tuple[str, str], Content | None] = OrderedDict()

    @property
    def blocks(self) -> Blocks:
        """The store."""
        if self._blocks is None:
            self._blocks = Blocks.open(self.repository)
        return self._blocks

    def get(self, oid: str | None, name: str) -> Content | None:
        """What a blob is; None where there is none, it is not here, or it is empty.

        Args:
            oid: of Git's; zeros stand for no blob.
            name: the path that it stands at, which some containers are told by.
        """
        if oid is None or not set(oid) - {"0"}:
            return None
        key = (oid, name)
        if key not in self._known:
            self._known[key] = self._look(oid, name)
        self._known.move_to_end(key)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return self._known[key]

    def read_ahead(self, oids: Iterable[str]) -> None:
        """Read what is asked for next at once, where each would start processes of its own."""
        self._ahead = {}
        if self.repository.reads_within_process:
            return
        sizes = self.repository.blob_sizes(oids)
        if sum(sizes.values()) <= _BATCH_BYTES:
            self._ahead = dict(self.repository.blobs(sizes))

    def in_work_tree(self, path: str) -> Content | None:
        """The file at a path of the work tree; None where there is no regular file."""
        if not WorkTree(self.repository.top).has_file(path):
            return None
        try:
            with files.plain(self.repository.top / path) as file:
                pointer = read_pointer(file.read(POINTER_BYTES + 1))
        except OSError:
            return None
        if pointer is not None:
            return self._pointed("", path, pointer)
        return Content("work tree", "", path, None, None)

    def manifest(self, oid: str) -> Manifest | None:
        """The manifest of a blob, made of its bytes where it is none; None where it cannot be."""
        found = self.get(oid, "")
        return None if found is None else found.manifest

    def _look(self, oid: str, name: str) -> Content | None:
        text = self._ahead.get(oid)
        length = len(text) if text else self.repository.blob_sizes([oid]).get(oid)
        if not length:
            return None
        if length <= MAX_BYTES:
            text = text or self.repository.blob(oid)
            if is_manifest(text[:HEAD_BYTES]):
                return self._stored(oid, name, text)
            if length <= POINTER_BYTES and (pointer := read_pointer(text)) is not None:
                return self._pointed(oid, name, pointer)
        return self._read(Content("whole", oid, name, length, None))

    def _stored(self, oid: str, name: str, text: bytes) -> Content:
        try:
            return Content("tensors", oid, name, None, self._parser.parse(text))
        except ManifestError:
            return Content("damaged", oid, name, None, None)

    def _pointed(self, oid: str, name: str, pointer: UpdateRef) -> Content:
        content = Content("git-lfs", oid, name, pointer.size, None, formats.promises(name), pointer)
        return content if lfs_object(self.repository, pointer) is None else self._read(content)

    def _read(self, content: Content) -> Content:
        """A content with the manifest that its bytes give."""
        with closing(self._open_bytes(content)) as side:
            found = side.manifest
        known = found.format != opaque.NAME or formats.promises(content.name)
        return replace(content, manifest=found, recognised=known)

    def open(self, content: Content | None) -> Side | None:
        """The side of a comparison that a content is; None where its bytes are not here.

        Raises:
            ManifestError: it is a damaged manifest.
            OSError: it is a file of the work tree that cannot be read.
        """
        if content is None:
            return None
        if content.storage == "work tree":
            return open_side(self.repository.top / content.name, self.blocks)
        if content.storage == "damaged":
            parse_manifest(self.repository.blob(content.oid))
        if content.manifest is None:
            return None
        if content.storage == "tensors":
            return StoredSide(content.manifest, self.blocks)
        return self._open_bytes(content)

    def _open_bytes(self, content: Content) -> FileSide:
        if content.pointer is not None:
            path = lfs_object(self.repository, content.pointer)
            if path is None:
                raise RepositoryError(
                    f"the object of git-lfs that {content.name!r} points to has gone",
                    hint=LFS_FETCH,
                )
            return FileSide(path)
        return _BlobSide(self.repository, content.oid, content.name)


def lfs_object(repository: Repository, pointer: UpdateRef) -> Path | None:
    """git-lfs's copy of an object, if it is here and has the bytes that its name says."""
    folder = lfs_folder(repository, repository.common_dir)
    path = folder / "objects" / pointer.oid[:2] / pointer.oid[2:4] / pointer.oid
    try:
        if path.stat().st_size != pointer.size:
            return None
        digest = hashlib.sha256()
        with files.plain(path, follow=True) as file:
            while data := file.read(_SLICE_BYTES):
                digest.update(data)
    except OSError:
        return None
    return path if digest.hexdigest() == pointer.oid else None


def not_plain(repository: Repository, oids: Iterable[str]) -> set[str]:
    """Those of some blobs that are manifests or pointers of git-lfs, in few processes.

    Of a hundred thousand files that changed, most are no checkpoints.
    """
    found: set[str] = set()
    batch: list[str] = []
    waiting = 0

    def look() -> None:
        for oid, text in repository.blobs(batch):
            small = len(text) <= POINTER_BYTES
            if is_manifest(text[:HEAD_BYTES]) or (small and read_pointer(text) is not None):
                found.add(oid)

    for oid, length in repository.blob_sizes(oids).items():
        if 0 < length <= MAX_BYTES:
            batch.append(oid)
            waiting += length
        if waiting > _BATCH_BYTES:
            look()
            batch, waiting = [], 0
    look()
    return found


class _BlobSide(FileSide):
    """A blob of Git as a file, in a temporary folder until it is closed."""

    def __init__(self, repository: Repository, oid: str, name: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="git-theta-")
        try:
            # Under its own name: what lies beside a file may tell how it is made up.
            path = Path(self._folder.name) / (Path(name).name or "blob")
            with files.new_file(path) as file:
                repository.write_blob(oid, file)
            super().__init__(path)
        except BaseException:
            self._folder.cleanup()
            raise

    def close(self) -> None:
        """Close the file and remove it."""
        super().close()
        self._folder.cleanup()


def objects_in(repository: Repository, revision: str | None) -> Iterator[str]:
    """The ids of all objects that the manifests of a revision (None: the index) name."""
    if revision is None:
        oids = [entry.oid for entry in repository.tracked()]
    else:
        oids = [oid for _, oid in blobs_of(repository, revision)]
    for _, manifest in reachable.manifests(repository, oids):
        if not isinstance(manifest, ManifestError):
            yield from reachable.objects(manifest)
