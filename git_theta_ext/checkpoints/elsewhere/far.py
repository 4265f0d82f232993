"""Work on a file that other processes do: they find it by its path, and make sure that it is it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.checkpoints.elsewhere.unstored import Unstored, hash_of
from git_theta_ext.core.errors import CorruptObjectError, StoreError
from git_theta_ext.core.names import quote
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import raw_bytes
from git_theta_ext.formats.base import Source
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import Block
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.executor import UnseenError

WORTH_SENDING = 1 << 20
"""A smaller file is worked on here: to send it takes as long."""


@dataclass(frozen=True, slots=True)
class FarFile:
    """A file as other processes find it: its path, and what it must be there.

    Another file of that path is told by its inode, which the machines of one network file system
    agree on; a device's number they do not.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, source: FileSource) -> FarFile:
        """What others are told of a file that is open here."""
        found = source.identity()
        return cls(os.path.abspath(source.path), found.size, found.mtime_ns, found.inode)

    @contextmanager
    def opened(self) -> Iterator[FileSource]:
        """The file, where it is seen.

        Raises:
            UnseenError: there is none at that path, or another one.
        """
        try:
            source = FileSource(Path(self.path))
        except OSError as error:
            raise UnseenError(self.path, error.strerror or str(error)) from error
        with source:
            there = FarFile.of(source)
            if there != self:
                raise UnseenError(self.path, "another file is there, or an older state of it")
            yield source


@dataclass(frozen=True, slots=True)
class HashAt:
    """Work on a file: the SHA-256 of the bytes of a place, given as offset and length."""

    file: FarFile

    def __call__(self, blocks: Blocks, place: tuple[int, int]) -> str:
        """See `hash_of`; errors as for `FarFile.opened`."""
        with self.file.opened() as source:
            return hash_of(source, *place)


@dataclass(frozen=True, slots=True)
class StoreFrom:
    """Work on a file: encode a block of it, and store that."""

    file: FarFile

    def __call__(self, blocks: Blocks, unstored: Unstored) -> Block:
        """See `Unstored`; errors as for `FarFile.opened` and `Blocks.write`."""
        with self.file.opened() as source:
            return unstored.store(blocks, unstored.read(source))


@dataclass(frozen=True, slots=True)
class BlockAt:
    """A block of a file that is to be rebuilt: where it begins, and of which tensor it is."""

    offset: int
    name: str
    spec: BlockSpec
    block: Block


@dataclass(frozen=True, slots=True)
class PutInto:
    """Work on a new file: rebuild a block, verified, and write it at its place.

    `top` is the work tree's, and `path` the file's, which has a name that nobody could guess.
    """

    top: str
    path: str

    def __call__(self, blocks: Blocks, one: BlockAt) -> None:
        """See `WorkTree.write_at`; errors as for `rebuilt`.

        Raises:
            UnseenError: there is no such file.
            StoreError: it cannot be written.
        """
        data = rebuilt(blocks, one.name, one.spec, one.block)
        try:
            WorkTree(Path(self.top)).write_at(self.path, one.offset, data)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise UnseenError(os.path.join(self.top, self.path), "it is not there") from error
            raise


def rebuilt(blocks: Blocks, name: str, spec: BlockSpec, block: Block) -> memoryview:
    """The bytes of a tensor's block, verified; an error names the tensor.

    Args:
        blocks: where its objects are.
        name: the tensor's.
        spec: what the block is.
        block: how it is rebuilt.

    Raises:
        CorruptObjectError, MissingObjectError: see `Blocks.read`.
    """
    try:
        return raw_bytes(blocks.read(spec, block))
    except CorruptObjectError as error:
        raise CorruptObjectError(f"{quote(name)}: {error.message}", hint=error.hint) from error


def check_written(blocks: Blocks, source: FileSource, written: Sequence[BlockAt]) -> None:
    """Have all blocks of a file read again that several machines have written.

    Raises:
        StoreError: one is not what was written.
    """
    places = ((one.offset, one.spec.nbytes) for one in written)
    found = blocks.map(HashAt(FarFile.of(source)), places, lambda place: place[1])
    for one, digest in zip(written, found, strict=True):
        if digest != one.block.sha256:
            raise StoreError(
                f"{source.path}: {quote(one.name)} was written and reads otherwise: this file "
                "system loses what several machines write to one file",
                hint="write it from this machine alone: git theta pull --on here",
            )


def far_file(blocks: Blocks, source: Source, folders: Iterable[Path]) -> FarFile | None:
    """A file that other processes work on; None where it is to be worked on here.

    Args:
        blocks: whose executor would do it.
        source: the file; a small one is not worth the way.
        folders: what these processes see; a copy in a folder of this machine they do not.
    """
    if not blocks.executor.far or source.size < WORTH_SENDING:
        return None
    if not isinstance(source, FileSource):
        return None
    path = os.path.abspath(source.path)
    return FarFile.of(source) if any(map(Path(path).is_relative_to, folders)) else None
