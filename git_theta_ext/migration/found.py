"""What the files of a history are: manifests, pointers of git-lfs, or checkpoints as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from git_theta_ext import formats
from git_theta_ext.core import files
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.formats.layout import opaque
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.git.object_pipes import Item, ObjectPipes
from git_theta_ext.manifest.model import HEAD_BYTES, MAX_BYTES, SHORTEST, UpdateRef, is_manifest
from git_theta_ext.migration.headers import parse_commit
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.selection import Selection
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, read_any_pointer

MANIFEST, LFS, RAW, MISSING, OTHER = "theta", "lfs", "raw", "missing", "other"
"""Kinds of files: ours, of git-lfs, plain; of git-lfs and not here; not a checkpoint, or empty."""
EXTENDED = "extended"
"""Of git-lfs with an extension: only a program of the user's can make the file."""

_WORTH_KEEPING = 1 << 20
"""Of smaller files that are no checkpoints there may be millions; they are looked at again."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a blob is, the bytes of the file that it stands for, and the object that it points to.

    The bytes of a manifest's file are not told here: they are 0.
    """

    kind: str
    size: int = 0
    ref: UpdateRef | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one file of a history."""

    path: str
    oid: str
    found: Found


class Files:
    """Looks at the blobs of a repository, at each once."""

    def __init__(self, pipes: ObjectPipes, selection: Selection, lfs: LfsFiles) -> None:
        """Nothing is read before it is asked for."""
        self.pipes, self._lfs = pipes, lfs
        self.selection = selection
        self.whole: frozenset[str] = frozenset()
        """Paths that are moved in all their versions: those that are tracked by their paths. One
        version may be too small or no checkpoint, and what tracks the path means it all the same.
        """
        self._seen: dict[tuple[str, bool, bool], Found] = {}

    def look(self, path: str, oid: str) -> Found:
        """What a file that the selection names is."""
        whole = path in self.whole
        key = (oid, not whole and self.selection.by_content(path), whole)
        known = self._seen.get(key)
        if known is not None:
            return known
        found = self._look(oid, by_content=key[1], whole=whole)
        if found.kind != OTHER or found.size > _WORTH_KEEPING:
            self._seen[key] = found
        return found

    def kind_of_text(self, oid: str) -> str:
        """`MANIFEST` or `LFS`, by a blob's own words, else `OTHER`."""
        size = self.pipes.size_of(oid, "blob")
        if SHORTEST <= size <= MAX_BYTES and self._begins_as_manifest(oid, size):
            return MANIFEST
        return LFS if self.is_pointer(oid) else OTHER

    def is_pointer(self, oid: str) -> bool:
        """Whether a blob is a pointer of git-lfs, with extensions or without."""
        if self.pipes.size_of(oid, "blob") > POINTER_BYTES:
            return False
        return read_any_pointer(self.pipes.read(oid, "blob")) is not None

    def forget_missing(self) -> None:
        """Look again for what was missing: it may have been fetched."""
        self._seen = {key: one for key, one in self._seen.items() if one.kind != MISSING}

    def _look(self, oid: str, *, by_content: bool, whole: bool) -> Found:
        """What a blob is; a pointer in any form that git-lfs reads is never a plain file."""
        size = self.pipes.size_of(oid, "blob")
        if not size:
            return Found(OTHER)
        if SHORTEST <= size <= MAX_BYTES and self._begins_as_manifest(oid, size):
            return Found(MANIFEST)
        if size <= POINTER_BYTES:
            pointer = read_any_pointer(self.pipes.read(oid, "blob"))
            if pointer is not None:
                ref, extended = pointer
                if extended:
                    return Found(EXTENDED, ref.size)
                return self._pointed(ref, by_content=by_content, whole=whole)
        fits = whole or self.selection.fits(size)
        if not fits or (by_content and not self._is_checkpoint(oid)):
            return Found(OTHER, size)
        return Found(RAW, size)

    def _pointed(self, ref: UpdateRef, *, by_content: bool, whole: bool) -> Found:
        if not (whole or self.selection.fits(ref.size)) or not ref.size:
            return Found(OTHER, ref.size)
        path = self._lfs.find(ref)
        if path is None:
            return Found(MISSING, ref.size, ref)
        if by_content:
            with FileSource(path) as source:
                if formats.sniff(source) == opaque.NAME:
                    return Found(OTHER, ref.size)
        return Found(LFS, ref.size, ref)

    def _begins_as_manifest(self, oid: str, size: int) -> bool:
        if size <= 1 << 20:
            return is_manifest(self.pipes.read(oid, "blob")[:HEAD_BYTES])
        head = _Head()
        self.pipes.copy(oid, head)
        return is_manifest(head.data)

    def _is_checkpoint(self, oid: str) -> bool:
        with self.pipes.scratch() as path:
            with files.new_file(path, mode=0o600) as file:
                self.pipes.copy(oid, file)
            with FileSource(path) as source:
                try:
                    return formats.sniff(source) != opaque.NAME
                except ThetaError:
                    return False


class _Head:
    """Takes bytes and keeps the first."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes, /) -> None:
        if len(self.data) < HEAD_BYTES:
            self.data += data[:HEAD_BYTES]


def walk(
    pipes: ObjectPipes, commits: Iterable[str], names: Callable[[str], bool]
) -> Iterator[tuple[str, str]]:
    """Path and blob of every version of the regular files that are meant, each once.

    Args:
        pipes: reads the history.
        commits: ids, parents first; so come the versions.
        names: whether a path is meant.
    """
    seen = set[tuple[str, str]]()

    def folder(path: str, oid: str) -> Iterator[tuple[str, str]]:
        if (path, oid) in seen:
            return
        seen.add((path, oid))
        for item in pipes.tree(oid, path):
            name = os.fsdecode(item.name)
            below = f"{path}/{name}" if path else name
            if item.is_folder:
                yield from folder(below, item.oid)
            elif item.is_file and (below, item.oid) not in seen and names(below):
                seen.add((below, item.oid))
                yield below, item.oid

    for commit in commits:
        yield from folder("", parse_commit(pipes.read(commit, "commit")).tree)


def versions(found: Files, commits: Iterable[str]) -> Iterator[Version]:
    """Every version of every file that the selection names, parents' before children's, each once.

    Args:
        found: looks at the files.
        commits: ids, parents first.
    """
    for path, oid in walk(found.pipes, commits, found.selection.names):
        yield Version(path, oid, found.look(path, oid))


class Checkpoints:
    """The manifests of trees by path: what a version in a commit after them is compared with."""

    _KEPT = 4096

    def __init__(self, found: Files, made: Collection[str]) -> None:
        """`made` are blobs of manifests, whatever their paths; it may grow."""
        self._pipes, self._found, self._made = found.pipes, found, made
        self._kept: dict[tuple[str, str], Mapping[str, str]] = {}

    def of(self, tree: str) -> Mapping[str, str]:
        """Path -> blob, of a whole tree."""
        return self._folder("", tree)

    def _folder(self, path: str, oid: str) -> Mapping[str, str]:
        key = (path, oid)
        if key not in self._kept:
            made: dict[str, str] = {}
            for item in self._pipes.tree(oid):
                below = f"{path}/{os.fsdecode(item.name)}" if path else os.fsdecode(item.name)
                if item.is_folder:
                    made |= self._folder(below, item.oid)
                elif self._is_checkpoint(below, item):
                    made[below] = item.oid
            while len(self._kept) >= self._KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = made
        return self._kept[key]

    def _is_checkpoint(self, path: str, item: Item) -> bool:
        if item.oid in self._made:
            return True
        meant = item.is_file and self._found.selection.names(path)
        return meant and self._found.look(path, item.oid).kind == MANIFEST
