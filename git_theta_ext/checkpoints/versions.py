"""One side of a comparison: a manifest whose blocks lie in the store, or a checkpoint file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from git_theta_ext.checkpoints.companions import read_layout
from git_theta_ext.checkpoints.summary import summarise
from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import ChangedWhileReadError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.places import blocks_of
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.manifest.model import Block, Entry, Manifest, is_manifest
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks

Position = tuple[str, int]
"""A tensor's name and the number of one of its blocks."""


class Side(Protocol):
    """A version of a checkpoint whose blocks can be read one by one."""

    manifest: Manifest

    def read(self, spec: BlockSpec, position: Position, block: Block) -> Values:
        """The raw bits of a block's elements."""
        ...

    def store_of(self, position: Position) -> Blocks | None:
        """Where the block is rebuilt from; None if it is read from a file."""
        ...

    def structure(self) -> bytes:
        """The skeleton: everything that is no tensor's bytes, as `formats.skeleton` writes it."""
        ...

    def skeletons(self) -> list[Block]:
        """What the structure is read from, where it is stored."""
        ...

    def length(self) -> int:
        """The length of the file in bytes; about so, where its structure is not on this machine."""
        ...

    def prepare(self, blocks: Iterable[Block]) -> None:
        """Have what these blocks are rebuilt from at hand, in one batch."""
        ...

    def close(self) -> None:
        """Let go of the file, if there is one: on Windows nobody can replace it until then."""
        ...


class StoredSide:
    """A manifest; its blocks come from the store, verified."""

    def __init__(self, manifest: Manifest, blocks: Blocks) -> None:
        """Missing objects are fetched when they are asked for."""
        self.manifest = manifest
        self.blocks = blocks

    def read(self, spec: BlockSpec, position: Position, block: Block) -> Values:
        """The raw bits of a block's elements."""
        return self.blocks.read(spec, block)

    def skeletons(self) -> list[Block]:
        """The one of the manifest."""
        return [self.manifest.skeleton]

    def length(self) -> int:
        """The length of the file in bytes."""
        return summarise(self.manifest, self.blocks).raw

    def prepare(self, blocks: Iterable[Block]) -> None:
        """Fetch the objects that are missing."""
        self.blocks.ensure(ref for block in blocks for ref in block.objects())

    def structure(self) -> bytes:
        """The skeleton."""
        return self.blocks.read_bytes(self.manifest.skeleton)

    def store_of(self, position: Position) -> Blocks | None:
        """The store."""
        return self.blocks

    def close(self) -> None:
        """Nothing is open."""


class FileSide:
    """A checkpoint file; its manifest names blocks by their hashes and no objects at all."""

    def __init__(self, path: Path) -> None:
        """Read the file once, to hash its blocks; it stays open until `close`."""
        self._source = FileSource(path)
        try:
            self._index(path)
        except BaseException:
            self._source.close()
            raise

    def _index(self, path: Path) -> None:
        """Make the manifest that the file would have, and note where each block lies in it."""
        layout = read_layout(self._source, path.name, path.parent, (), None)
        self._offsets: dict[Position, int] = {}
        places = list(blocks_of(layout, self._source))
        hashes = ordered_map(
            lambda place: self._hash(place.offset, place.spec),
            places,
            lambda place: place.spec.nbytes,
        )
        blocks: dict[str, list[Block]] = {}
        for place, block in zip(places, hashes, strict=True):
            name = place.span.tensor.name
            blocks.setdefault(name, []).append(block)
            self._offsets[name, place.position] = place.offset
        entries = [
            Entry(segment.tensor, tuple(blocks[segment.tensor.name]), segment.opaque)
            for segment in layout.segments
            if isinstance(segment, Span)
        ]
        entries.sort(key=lambda entry: natural_key(entry.tensor.name))
        self._structure = skeleton.encode(layout)
        digest = hashlib.sha256(self._structure).hexdigest()
        self.manifest = Manifest(layout.format, Block(len(self._structure), digest), tuple(entries))

    def skeletons(self) -> list[Block]:
        """A file has its structure itself."""
        return []

    def length(self) -> int:
        """The length of the file in bytes."""
        return self._source.size

    def prepare(self, blocks: Iterable[Block]) -> None:
        """A file has everything."""

    def store_of(self, position: Position) -> Blocks | None:
        """A file is no store."""
        return None

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def structure(self) -> bytes:
        """The skeleton."""
        return self._structure

    def _hash(self, offset: int, spec: BlockSpec) -> Block:
        data = self._source.read(offset, spec.nbytes)
        return Block(spec.nbytes, hashlib.sha256(data).hexdigest())

    def read(self, spec: BlockSpec, position: Position, block: Block) -> Values:
        """The raw bits of a block's elements.

        Raises:
            ChangedWhileReadError: the file is being written to.
        """
        data = self._source.read(self._offsets[position], spec.nbytes)
        if hashlib.sha256(data).hexdigest() != block.sha256:
            raise ChangedWhileReadError(f"{self._source.path} changed while it was compared")
        return np.frombuffer(data, values_dtype(spec.dtype))


def read_both(
    old: Side,
    new: Side,
    then: tuple[BlockSpec, Position, Block],
    now: tuple[BlockSpec, Position, Block],
) -> tuple[Values, Values]:
    """The raw bits of two blocks; what both are made of is read once. Neither is to be written to.

    One array for both where they have the same bytes.

    Args:
        old, new: the two versions.
        then, now: the block in each of them: what it is, where it lies, and its hash and chain.
    """
    if then[2].sha256 == now[2].sha256 and then[0].dtype == now[0].dtype:
        values = old.read(*then)
        return values, values
    store = new.store_of(now[1])
    if store is not None and store is old.store_of(then[1]):
        found, _ = store.read_together([(then[0], then[2]), (now[0], now[2])])
        return found[0], found[1]
    return old.read(*then), new.read(*now)


def open_side(path: Path, blocks: Blocks | None) -> Side | None:
    """The side that a file is; None for an empty one.

    Args:
        path: a checkpoint, or a manifest.
        blocks: where a manifest's objects are; None outside a repository, where a manifest is
            compared as the text that it is.

    Raises:
        ManifestError: it begins like a manifest but is none.
        OSError: it cannot be read.
    """
    with files.plain(path, follow=True) as file:
        head = file.read(64)
        if not head:
            return None
        if is_manifest(head) and blocks is not None:
            return StoredSide(parse_manifest(head + file.read(limits.MANIFEST_BYTES)), blocks)
    return FileSide(path)
