"""Files of an OCDBT database, such as Orbax writes: chunks of Zarr arrays, by their keys.

Where a value lies, and which array it is of, stands in the tree, of which `manifest.ocdbt` names
the root. It lies in the folder of the database, or, where several processes wrote one checkpoint,
in the folder above theirs. A chunk that is not compressed is a tensor. One that is, is opaque by
itself: so it is stored once for all versions that have it, in whatever file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.arrays import ocdbt, zarr, zarr_metadata
from git_theta_ext.formats.arrays.grid import Array
from git_theta_ext.formats.arrays.ocdbt import Value
from git_theta_ext.formats.arrays.zarr_metadata import Keys
from git_theta_ext.formats.base import Layout, Literal, Source, Span
from git_theta_ext.formats.layout.source import PartSource
from git_theta_ext.formats.layout.storages import Piece
from git_theta_ext.formats.layout.tiles import Names, assemble, gaps

NAME = "ocdbt"
_DATA = re.compile(r"((?:.*/)?)d/[0-9a-f]{32}", re.DOTALL)
_MENTIONED_BYTES = 1 << 20
"""Compressed arrays that are worth a word."""
_VALUE_BYTES = 1 << 12
"""Values that are no chunks are chunked from this length on; shorter ones are structure."""


def sniff(head: bytes, source: Source) -> bool:
    """A manifest, or a file that begins with a node of a tree."""
    return ocdbt.begins(head)


def layout(source: Source) -> Layout:
    """A manifest, or nodes and nothing else: all of it is structure.

    Raises:
        FormatError: there is something else, or it is damaged.
    """
    if source.size > limits.OCDBT_NODE_BYTES:
        raise BoundError(f"ocdbt: {source.size} bytes of nodes")
    data = source.read(0, source.size)
    ocdbt.check_frames(data)
    return Layout(NAME, (Literal(data),))


def may_be_data(path: str) -> bool:
    """Whether a path is one that a data file has."""
    return _DATA.fullmatch(path) is not None


def layout_within(source: Source, path: str, opened: zarr.Open, part: ocdbt.Read) -> Layout | None:
    """The layout of a data file by the tree that tells of it; None where none does.

    Args:
        source: the file.
        path: where it lies, with slashes.
        opened: gives the file at a path, None if there is none.
        part: gives bytes of the file at a path, at an offset, of a length.

    Raises:
        FormatError: a tree is damaged, or says what this file cannot be.
    """
    match = _DATA.fullmatch(path)
    if match is None:
        return None
    own = match[1].rstrip("/")
    for folder in dict.fromkeys([posixpath.dirname(own), own]):
        manifest = opened(posixpath.join(folder, ocdbt.FILE))
        if manifest is None:
            continue
        if manifest.size > limits.OCDBT_NODE_BYTES:
            raise BoundError(f"ocdbt: a manifest of {manifest.size} bytes")
        here = posixpath.relpath(path, folder or ".")

        def read(file: str, offset: int, length: int, folder: str = folder) -> bytes | None:
            return part(posixpath.join(folder, file), offset, length)

        found = list(ocdbt.values(manifest.read(0, manifest.size), read))
        if any(value.file == here for _, value in found):
            return _layout(source, here, _Database(dict(found), read))
    return None


def is_compressed(layout: Layout) -> bool:
    """Whether a data file has so many compressed chunks that the user should hear of it."""
    spans = [one for one in layout.segments if isinstance(one, Span)]
    packed = sum(one.tensor.nbytes for one in spans if one.opaque)
    return layout.format == NAME and packed >= _MENTIONED_BYTES


class _Database:
    """Keys and values, and the arrays among them."""

    def __init__(self, values: Mapping[str, Value], read: ocdbt.Read) -> None:
        """`read` gives parts of the data files."""
        self.values = values
        self._read = read
        self._arrays: dict[str, tuple[Array, Keys] | None] = {}

    def chunk(self, key: str) -> tuple[str, Array, tuple[int, ...]] | None:
        """Name, array and place of the chunk that a key is of; None for other keys."""
        for folder in zarr.folders(key):
            if folder not in self._arrays:
                self._arrays[folder] = self._array(folder)
            if (told := self._arrays[folder]) is not None:
                array, keys = told
                at = keys.place(posixpath.relpath(key, folder or "."), len(array.shape))
                if at is not None and array.has(at):
                    return folder or "array", array, at
        return None

    def _array(self, folder: str) -> tuple[Array, Keys] | None:
        """The array of a folder; None where it has none that can be read."""
        for file, make in zarr.METADATA:
            value = self.values.get(posixpath.join(folder, file))
            if value is None or value.length > limits.ARRAY_JSON_BYTES:
                continue
            data = value.data
            if data is None:
                data = self._read(value.file, value.offset, value.length)
            if data is not None:
                return make(zarr_metadata.parse(data))
        return None


def _layout(source: Source, here: str, database: _Database) -> Layout:
    names = Names()
    pieces: list[Piece] = []
    for key, value in database.values.items():
        if value.file != here or not value.length:
            continue
        if value.offset + value.length > source.size:
            raise FormatError(f"ocdbt: the value of {key!r} does not lie in its file")
        part = PartSource(source, value.offset, value.offset + value.length)
        for piece in _pieces(part, key, value.offset, database):
            info = piece.span.tensor
            named = TensorInfo(names.free(info.name), info.dtype, info.shape, info.order)
            pieces.append(Piece(piece.offset, piece.length, Span(named, piece.span.opaque)))
    pieces.sort(key=lambda piece: piece.offset)
    return Layout(NAME, assemble(source, [*pieces, *gaps(source, pieces, names)]))


def _pieces(value: Source, key: str, start: int, database: _Database) -> Iterator[Piece]:
    """The tensors of a value that begins at `start`; bytes where it is no chunk of an array."""
    found = database.chunk(key)
    if found is not None:
        yield from zarr.chunk_pieces(value, start, *found)
    elif value.size >= _VALUE_BYTES:
        info = TensorInfo(key, DTYPES["U8"], (value.size,))
        yield Piece(start, value.size, Span(info, opaque=True))
