"""CoreML's `weight.bin`: records of 64 bytes, each followed by the values of one constant.

The file has no names and no shapes; those stand in the `model.mlmodel` beside it. Tensors are flat
and called by their position. Source: coremltools, mlmodel/src/MILBlob/Blob/StorageFormat.hpp.
"""

from __future__ import annotations

import struct

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Source, Span
from git_theta_ext.formats.layout.storages import Piece
from git_theta_ext.formats.layout.tiles import assemble

NAME = "coreml-weights"
_ALIGNMENT = 64
_SENTINEL = 0xDEADBEEF
_RECORD = struct.Struct("<2I2Q")
_DTYPES = {
    1: "F16", 2: "F32", 3: "U8", 4: "I8", 5: "BF16", 6: "I16", 7: "U16", 14: "I32", 15: "U32",
}  # fmt: skip


def sniff(head: bytes, source: Source) -> bool:
    """A header of version 2, then a record."""
    return (
        len(head) >= 128
        and head[4:8] == b"\2\0\0\0"
        and not any(head[8:64])
        and head[64:68] == _SENTINEL.to_bytes(4, "little")
    )


def layout(source: Source) -> Layout:
    """Every record's values as a flat tensor; values of packed types are opaque.

    Raises:
        FormatError: a record is damaged or not where the one before it ends.
    """
    count = int.from_bytes(source.read(0, 4), "little")
    if count > source.size // _ALIGNMENT:
        raise FormatError(f"coreml-weights: {count} records in {source.size} bytes")
    if count > limits.COREML_RECORDS:
        raise BoundError(f"coreml-weights: more than {limits.COREML_RECORDS} records")
    pieces = []
    at = _ALIGNMENT
    for number in range(count):
        sentinel, code, size, offset = _RECORD.unpack(source.read(at, _RECORD.size))
        if sentinel != _SENTINEL or offset < at + _ALIGNMENT or offset + size > source.size:
            raise FormatError(
                f"coreml-weights, record {number} at offset {at}: {size} bytes at {offset} of "
                f"{source.size}"
            )
        dtype = DTYPES[_DTYPES.get(code, "U8")]
        known = code in _DTYPES and size % dtype.itemsize == 0
        dtype = dtype if known else DTYPES["U8"]
        info = TensorInfo(f"weight.{number}", dtype, (size // dtype.itemsize,))
        pieces.append(Piece(offset, size, Span(info, opaque=not known)))
        at = -(-(offset + size) // _ALIGNMENT) * _ALIGNMENT
    return Layout(NAME, assemble(source, pieces))
