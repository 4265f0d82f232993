"""Files of an OCDBT database, such as Orbax writes: chunks of Zarr arrays, by their keys.

Where a value lies, and which array it is of, stands in the tree, of which `manifest.ocdbt` names
the root. It lies in the folder of the database, or, where several processes wrote one checkpoint,
in the folder above theirs. A chunk that is not compressed is a tensor. One that is, is opaque by
itself: so it is stored once for all versions that have it, in whatever file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from contextlib import suppress

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
from git_theta_ext.formats.neighbours import orbax_data

NAME = "ocdbt"
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
    match = orbax_data(path)
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

        found = _opened.database(folder, manifest.read(0, manifest.size), read)
        if here in found.files:
            return _layout(source, here, found, read)
    return None


def is_compressed(layout: Layout) -> bool:
    """Whether a data file has so many compressed chunks that the user should hear of it."""
    spans = [one for one in layout.segments if isinstance(one, Span)]
    packed = sum(one.tensor.nbytes for one in spans if one.opaque)
    return layout.format == NAME and packed >= _MENTIONED_BYTES


class _Database:
    """Keys and values, and the arrays among them."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        """Nothing but the tree was read; arrays are as they are asked for."""
        self.values = values
        self.files = {value.file for value in values.values()}
        self._arrays: dict[str, tuple[Array, Keys] | None] = {}

    def chunk(self, key: str, read: ocdbt.Read) -> tuple[str, Array, tuple[int, ...]] | None:
        """Name, array and place of the chunk that a key is of; None for other keys.

        `read` gives parts of the data files.
        """
        for folder in zarr.folders(key):
            if folder not in self._arrays:
                self._arrays[folder] = self._array(folder, read)
            if (told := self._arrays[folder]) is not None:
                array, keys = told
                at = keys.place(posixpath.relpath(key, folder or "."), len(array.shape))
                if at is not None and array.has(at):
                    return folder or "array", array, at
        return None

    def _array(self, folder: str, read: ocdbt.Read) -> tuple[Array, Keys] | None:
        """The array of a folder; None where it has none that can be read."""
        for file, make in zarr.METADATA:
            value = self.values.get(posixpath.join(folder, file))
            if value is None or value.length > limits.ARRAY_JSON_BYTES:
                continue
            data = value.data
            if data is None:
                data = read(value.file, value.offset, value.length)
            with suppress(FormatError):
                return None if data is None else make(zarr_metadata.parse(data))
        return None


class _Opened:
    """The database that was read last: its data files are added one after the other."""

    def __init__(self) -> None:
        self._last: tuple[tuple[str, bytes], _Database] | None = None

    def database(self, folder: str, manifest: bytes, read: ocdbt.Read) -> _Database:
        """The database of a folder; read again only if its manifest is another."""
        last = self._last
        if last is None or last[0] != (folder, manifest):
            found = _Database(dict(ocdbt.values(manifest, read)))
            last = self._last = (folder, manifest), found
        return last[1]


_opened = _Opened()


def _layout(source: Source, here: str, database: _Database, read: ocdbt.Read) -> Layout:
    """The chunks of all arrays whose values lie in the file `here`, and the rest."""
    names = Names()
    pieces: list[Piece] = []
    for key, value in database.values.items():
        if value.file != here or not value.length:
            continue
        if value.offset + value.length > source.size:
            raise FormatError(f"ocdbt: the value of {key!r} does not lie in its file")
        part = PartSource(source, value.offset, value.offset + value.length)
        for piece in _pieces(part, value.offset, key, database.chunk(key, read)):
            info = piece.span.tensor
            named = TensorInfo(names.free(info.name), info.dtype, info.shape, info.order)
            pieces.append(Piece(piece.offset, piece.length, Span(named, piece.span.opaque)))
    pieces.sort(key=lambda piece: piece.offset)
    return Layout(NAME, assemble(source, [*pieces, *gaps(source, pieces, names)]))


def _pieces(
    value: Source, start: int, key: str, chunk: tuple[str, Array, tuple[int, ...]] | None
) -> Iterator[Piece]:
    """The tensors of a value that begins at `start`; bytes where it is no chunk of an array."""
    if chunk is not None:
        with suppress(FormatError):  # then it is not what its metadata say
            yield from list(zarr.chunk_pieces(value, start, *chunk))
            return
    if value.size >= _VALUE_BYTES:
        info = TensorInfo(key, DTYPES["U8"], (value.size,))
        yield Piece(start, value.size, Span(info, opaque=True))
