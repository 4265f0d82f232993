"""TensorFlow Lite: the buffers of a flatbuffer that tensors name.

Codes of quantised tensors are QI8, QU8 and QI32; packed four-bit codes are U8. A buffer of several
tensors is one, the others its further names. Source: tensorflow/lite/schema/schema.fbs (2.17).
"""

from __future__ import annotations

from dataclasses import replace

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, DType, TensorInfo
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout.tiles import Names, tile_with_gaps
from git_theta_ext.formats.tensorflow.flatbuffer import FlatBuffer

NAME = "tflite"
_DTYPES = {
    0: "F32", 1: "F16", 2: "I32", 3: "U8", 4: "I64", 6: "BOOL", 7: "I16", 8: "C64", 9: "I8",
    10: "F64", 11: "C128", 12: "U64", 15: "U32", 16: "U16", 18: "BF16",
}  # fmt: skip
_QUANTISED = {"U8": "QU8", "I8": "QI8", "I32": "QI32"}
_SUBGRAPHS, _BUFFERS = 2, 4
_TENSORS = 0
_SHAPE, _TYPE, _BUFFER, _NAME, _QUANTISATION = 0, 1, 2, 3, 4
_DATA, _OFFSET, _SIZE = 0, 1, 2
_SCALES = 2


def sniff(head: bytes, source: Source) -> bool:
    """The identifier of a flatbuffer of this kind."""
    return head[4:8] == b"TFL3"


def layout(source: Source) -> Layout:
    """The buffers that tensors name, as tensors; everything else is literal.

    Raises:
        FormatError: the flatbuffer is damaged, or no tensor has values.
    """
    reader = FlatBuffer(source)
    root = reader.root
    buffers = [_extent(reader, table) for table in reader.tables(root, _BUFFERS)]
    if len(buffers) > limits.TFLITE_BUFFERS:
        raise BoundError(f"tflite: {len(buffers)} buffers are too many")
    found: dict[int, tuple[int, TensorInfo]] = {}
    further: list[tuple[str, int]] = []
    for graph in reader.tables(root, _SUBGRAPHS):
        for tensor in reader.tables(graph, _TENSORS):
            number = reader.scalar(tensor, _BUFFER, 4)
            if number >= len(buffers):
                raise FormatError(f"tflite: buffer {number} of {len(buffers)}")
            offset, length = buffers[number]
            name = reader.text(tensor, _NAME)
            if number in found:
                further.append((name, number))
            elif number and length:
                found[number] = (offset, _info(reader, tensor, name, length))
    if not found:
        raise FormatError("tflite: no tensor has values")
    names = Names()
    named: dict[int, TensorInfo] = {}
    for number, (_, info) in sorted(found.items(), key=lambda item: item[1][0]):
        named[number] = replace(info, name=names.free(info.name))
    made = tile_with_gaps(NAME, source, ((found[n][0], info) for n, info in named.items()))
    taken = {info.name for info in named.values()}
    aliases = {name: named[number].name for name, number in further if name not in taken}
    return Layout(NAME, made.segments, aliases)


def _extent(reader: FlatBuffer, table: int) -> tuple[int, int]:
    """Offset and length of a buffer; of large models it lies behind the flatbuffer."""
    offset, size = reader.scalar(table, _OFFSET, 8), reader.scalar(table, _SIZE, 8)
    return (offset, size) if offset > 1 else reader.vector(table, _DATA)


def _info(reader: FlatBuffer, tensor: int, name: str, length: int) -> TensorInfo:
    """The tensor that a buffer is; flat bytes where shape and type do not account for them."""
    shape = reader.numbers(tensor, _SHAPE, limits.AXES)
    known = _DTYPES.get(reader.scalar(tensor, _TYPE, 1))
    if known is not None and min(shape, default=0) >= 0:
        info = TensorInfo(name, _dtype(reader, tensor, known), shape)
        if info.nbytes == length:
            return info
    return TensorInfo(name, DTYPES["U8"], (length,))


def _dtype(reader: FlatBuffer, tensor: int, known: str) -> DType:
    quantisation = reader.table(tensor, _QUANTISATION)
    if quantisation is not None and reader.vector(quantisation, _SCALES)[1]:
        return DTYPES[_QUANTISED.get(known, known)]
    return DTYPES[known]
