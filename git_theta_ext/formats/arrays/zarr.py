"""Chunks of Zarr 2 and 3, given the `.zarray` or the `zarr.json` in the folder above.

A chunk has neither names nor sizes. Where its length is that of the values which the array's
metadata promise, it is a tensor, called by the path of the array from the outermost group and by
the slice that it is. A shard has an index, with a checksum, that says where each of its chunks
lies. Sources: the Zarr specifications, v2, and v3 with `sharding_indexed`.
"""

from __future__ import annotations

import itertools
import posixpath
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.arrays import grid, zarr_metadata
from git_theta_ext.formats.arrays.grid import Array
from git_theta_ext.formats.arrays.zarr_metadata import Keys
from git_theta_ext.formats.base import Layout, Source, Span
from git_theta_ext.formats.layout.source import PartSource
from git_theta_ext.formats.layout.storages import Piece
from git_theta_ext.formats.layout.tiles import Names, assemble, gaps
from git_theta_ext.formats.tensorflow.crc32c import crc32c

NAME = "zarr"
_ABSENT = (1 << 64) - 1

METADATA = ((".zarray", zarr_metadata.version_2), ("zarr.json", zarr_metadata.version_3))
"""The files that describe an array, and what reads them."""

Open = Callable[[str], Source | None]


def layout_within(source: Source, path: str, opened: Open) -> Layout | None:
    """The layout of a chunk by the metadata of its array; None where there are none.

    Args:
        source: the chunk.
        path: where it lies, with slashes.
        opened: gives the file at a path, None if there is none.

    Raises:
        FormatError: the metadata are damaged, or of chunks of another length.
    """
    for folder in folders(path):
        told = _array(folder, opened)
        if told is None:
            continue
        array, keys = told
        at = keys.place(posixpath.relpath(path, folder or "."), len(array.shape))
        if at is None:
            continue
        if not array.has(at):
            raise FormatError(f"zarr: {path!r} lies outside its array")
        names = Names()
        pieces = list(chunk_pieces(source, 0, array_name(folder, opened), array, at))
        return Layout(NAME, assemble(source, [*pieces, *gaps(source, pieces, names)]))
    return None


def folders(path: str) -> Iterator[str]:
    """The folders that may be that of the array whose chunk lies at a path, the nearest first."""
    parts = path.split("/")
    for depth in range(1, min(len(parts), limits.AXES) + 1):
        word = parts[-depth]
        if depth > 1 and not (word.isascii() and (word.isdigit() or word == "c")):
            return
        yield "/".join(parts[:-depth])


def _array(folder: str, opened: Open) -> tuple[Array, Keys] | None:
    """The array of a folder; None where it has none."""
    for file, read in METADATA:
        found = opened(posixpath.join(folder, file))
        if found is not None:
            return read(document(found))
    return None


def document(source: Source) -> dict[str, Any]:
    """The metadata in a file.

    Raises:
        FormatError: it is no object of JSON, or too long.
    """
    if source.size > limits.ARRAY_JSON_BYTES:
        raise BoundError(f"zarr: {source.size} bytes of JSON")
    return zarr_metadata.parse(source.read(0, source.size))


def array_name(folder: str, opened: Open) -> str:
    """What an array is called: its path from the outermost group, or the name of its folder."""
    parts = folder.split("/") if folder else ["array"]
    first = len(parts) - 1
    for start in range(first, max(-1, first - limits.AXES), -1):
        above = "/".join(parts[:start])
        found = opened(posixpath.join(above, "zarr.json")) or opened(
            posixpath.join(above, ".zgroup")
        )
        if found is None or not zarr_metadata.is_group(document(found)):
            break
        first = start
    return "/".join(parts[first:])


def chunk_pieces(
    source: Source, start: int, name: str, array: Array, at: Sequence[int]
) -> Iterator[Piece]:
    """The tensors of a chunk, or of the chunks of a shard.

    Compressed ones are opaque, each by itself.

    Args:
        source: the chunk.
        start: the offset of the pieces of its first byte.
        name: the array's.
        array: it.
        at: the chunk's place in the grid.

    Raises:
        FormatError: the values are not those of such a chunk, or the index of a shard is damaged.
    """
    if array.inner is not None:
        for place, offset, length in _chunks_of_shard(source, array, array.inner, at):
            part = PartSource(source, offset, offset + length)
            yield from chunk_pieces(part, start + offset, name, array.inner, place)
    elif array.compressed:
        if not array.has(at) or not source.size:
            raise FormatError(f"zarr: {name!r} has no chunk at {tuple(at)}")
        info = TensorInfo(grid.name_of(name, array, at), DTYPES["U8"], (source.size,))
        yield Piece(start, source.size, Span(info, opaque=True))
    else:
        for offset, info in grid.tensors(name, array, at, source.size):
            yield Piece(start + offset, info.nbytes, Span(info))


def _chunks_of_shard(
    shard: Source, array: Array, inner: Array, at: Sequence[int]
) -> Iterator[tuple[list[int], int, int]]:
    """Of each chunk of a shard its place in the grid of chunks, its offset and its length."""
    within = [size // step for size, step in zip(array.chunk, inner.chunk, strict=True)]
    index = _index(shard, array, within)  # which refuses more than can be listed
    spots = itertools.product(*map(range, within))
    for spot, (offset, length) in zip(spots, index, strict=True):
        if offset == length == _ABSENT:
            continue
        if offset + length > shard.size:
            raise FormatError(f"zarr: a shard ends before its chunk {spot}")
        firsts = (one * count for one, count in zip(at, within, strict=True))
        yield [first + step for first, step in zip(firsts, spot, strict=True)], offset, length


def _index(shard: Source, array: Array, within: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Offset and length of each chunk of a shard, in the order of the grid."""
    count = 1
    for size in within:
        count *= size
        if count > limits.SHARD_CHUNKS:
            raise BoundError(f"zarr: more than {limits.SHARD_CHUNKS} chunks in a shard")
    body = 16 * count
    size = body + grid.CHECKSUM_BYTES * array.index_checksum
    start = 0 if array.index_first else shard.size - size
    if not 0 <= start <= shard.size - size:
        raise FormatError("zarr: a shard that is shorter than its index")
    data = shard.read(start, size)
    if array.index_checksum and crc32c(shard, start, body) != int.from_bytes(data[body:], "little"):
        raise FormatError("zarr: the index of a shard does not have its checksum")
    return struct.iter_unpack("<QQ", data[:body])
