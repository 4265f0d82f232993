"""TensorFlow's checkpoints: `NAME.data-00000-of-00001`, given the `NAME.index` beside it.

The data file has neither names nor sizes; the index, a sorted table, has them, and a CRC-32C of
every tensor. A layout is made only where each of these agrees with the data, so that an index of
another version is never believed. Source: tensor_bundle.proto, tensor_bundle.cc (2.15).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.layout.tiles import tile_with_gaps
from git_theta_ext.formats.layout.window import Window
from git_theta_ext.formats.neighbours import tensorflow_data
from git_theta_ext.formats.tensorflow import leveldb_table
from git_theta_ext.formats.tensorflow.crc32c import crc32c, masked

NAME = "tensorflow"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DTYPES = {
    1: "F32", 2: "F64", 3: "I32", 4: "U8", 5: "I16", 6: "I8", 8: "C64", 9: "I64", 10: "BOOL",
    11: "QI8", 12: "QU8", 13: "QI32", 14: "BF16", 17: "U16", 18: "C128", 19: "F16", 22: "U32",
    23: "U64", 24: "F8_E5M2", 25: "F8_E4M3",
}  # fmt: skip
"""Numbers of tensorflow.DataType; strings (7) and variants have no fixed size and are no spans."""


def layout_beside(source: Source, path: str, index: Source) -> Layout:
    """The layout of a data file that an index describes; texts are literal or opaque.

    Raises:
        FormatError: the index is damaged, or a tensor does not have the CRC that it says.
    """
    match = tensorflow_data(path)
    if match is None:
        raise FormatError(f"tensorflow: {path!r} is not the name of a data file")
    shard = int(match[2])
    found, total = [], 0
    for key, value in leveldb_table.entries(index):
        if not key:
            _check_header(value, int(match[3]))
            continue
        entry = _entry(value)
        if entry.shard != shard or entry.dtype not in _DTYPES or not entry.size:
            continue
        name = key.decode("utf-8", "backslashreplace")
        total += entry.size
        if total > source.size:
            raise FormatError(f"tensorflow: the tensors up to {name!r} do not fit into the file")
        if masked(crc32c(source, entry.offset, entry.size)) != entry.crc:
            raise FormatError(f"tensorflow: {name!r} does not have the CRC of the index")
        info = TensorInfo(name, DTYPES[_DTYPES[entry.dtype]], tuple(entry.shape))
        if info.nbytes != entry.size:
            raise FormatError(
                f"tensorflow: {name!r}: {info.shape} does not take {entry.size} bytes"
            )
        found.append((entry.offset, info))
    if not found:
        raise FormatError("tensorflow: the index has no tensors of this file")
    return tile_with_gaps(NAME, source, found)


@dataclass(slots=True)
class _Entry:
    """A BundleEntryProto."""

    dtype: int = 0
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    shape: list[int] = field(default_factory=list)


def _check_header(value: bytes, shards: int) -> None:
    fields = {number: content for number, content in _fields(value) if isinstance(content, int)}
    if fields.get(1, 0) != shards or fields.get(2, 0):
        raise FormatError("tensorflow: the index is of another number of files, or big-endian")


def _entry(value: bytes) -> _Entry:
    """What a BundleEntryProto says; fields that are not known are ignored."""
    entry = _Entry()
    for number, content in _fields(value):
        if isinstance(content, bytes):
            if number == 2:
                entry.shape = list(_shape(content))
        elif number == 1:
            entry.dtype = content
        elif number == 3:
            entry.shard = content
        elif number == 4:
            entry.offset = content
        elif number == 5:
            entry.size = content
        elif number == 6:
            entry.crc = content
    return entry


def _shape(value: bytes) -> Iterator[int]:
    axes = [content for number, content in _fields(value) if number == 2]
    if len(axes) > limits.AXES:
        raise FormatError(f"tensorflow: a tensor of {len(axes)} axes")
    for axis in axes:
        sizes = [content for number, content in _fields(bytes(axis)) if number == 1]
        size = sizes[-1] if sizes else 0
        if not isinstance(size, int) or size >= 1 << 63:
            raise FormatError("tensorflow: a shape that is not known")
        yield size


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and contents of a protocol buffer's fields."""
    window = Window(BytesSource(data))
    while window.left:
        tag = window.varint()
        wire = tag & 7
        if wire == _VARINT:
            yield tag >> 3, window.varint()
        elif wire == _BYTES:
            yield tag >> 3, window.take(window.varint())
        elif wire in (_FIXED32, _FIXED64):
            yield tag >> 3, window.number(4 if wire == _FIXED32 else 8)
        else:
            raise FormatError(f"tensorflow: wire type {wire} in the index")
