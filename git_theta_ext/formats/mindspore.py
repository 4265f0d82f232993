"""MindSpore's `.ckpt`: a protocol buffer with one message for each parameter.

A parameter of more than 512 MiB is written in slices, which are tensors of their own here
(`NAME.chunks.N`). Sources: mindspore/train/serialization.py (`_write_parameter_data`) and the
descriptor in mindspore/train/checkpoint_pb2.py, both of MindSpore 2.10.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import prod

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DTYPES, DType, TensorInfo
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout.messages import BYTES, FIELDS_OF_TENSOR, Messages
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.layout.tiles import tile_with_gaps
from git_theta_ext.formats.layout.window import Window

NAME = "mindspore"
_VALUE = _TAG = b"\x0a"
"""Tags of the first field of a checkpoint, and of the first of a parameter: a message, a text."""
_TENSORS = (b"\x12", b"\x1a")
"""Tags of the second: a tensor, or a table of embeddings."""
_SUM, _SUM_BYTES = b"crc_num", 17
"""What may follow the last message: a word and the CRC-32 of all before it, in ten bytes."""
_DTYPES = {
    "float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16", "int8": "I8",
    "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "uint16": "U16",
    "uint32": "U32", "uint64": "U64", "bool": "BOOL", "complex64": "C64", "complex128": "C128",
}  # fmt: skip


@dataclass(slots=True)
class _Value:
    """A parameter, or a slice of one: its name, its type, and where its bytes lie."""

    name: str = ""
    type: str = ""
    dims: list[int] = field(default_factory=list)
    offset: int = 0
    length: int = 0


def sniff(head: bytes, source: Source) -> bool:
    """A message of a text and a message: a parameter's name, then its tensor."""
    window = Window(BytesSource(head))
    try:
        if window.take(1) != _VALUE or window.varint() > source.size or window.take(1) != _TAG:
            return False
        window.skip(window.varint())
        return window.take(1) in _TENSORS
    except FormatError:
        return False


def layout(source: Source) -> Layout:
    """Every parameter by its name.

    Raises:
        FormatError: damaged, encrypted, past a limit, or a tensor is not as long as its shape.
    """
    values = list(_values(source))
    found: list[tuple[int, TensorInfo]] = []
    for name, group in groupby(values, key=lambda value: value.name):
        found += _tensors(name, list(group))
    if not found:
        raise FormatError("mindspore: no tensors")
    return tile_with_gaps(NAME, source, found)


def _values(source: Source) -> Iterator[_Value]:
    """Every parameter, or slice of one, in the order of the file."""
    messages, stop = Messages(source, NAME), source.size
    if stop > _SUM_BYTES and source.read(stop - _SUM_BYTES, len(_SUM)) == _SUM:
        stop -= _SUM_BYTES
    for number, wire, at, length in messages.walk(0, stop):
        if number != 1 or wire != BYTES:
            raise messages.error(f"field {number}", at)
        value: _Value | None = None
        name = ""
        for inner, kind, start, size in messages.walk(at, at + length):
            if inner == 1 and kind == BYTES:
                name = messages.text(start, size)
            elif inner == 2 and kind == BYTES:
                value = _tensor(messages, start, start + size)
            elif inner != 3:
                raise messages.error(f"field {inner} of a parameter", start)
        # A table of embeddings (field 3) is kept as it is.
        if value is not None:
            value.name = name
            yield value


def _tensor(messages: Messages, start: int, stop: int) -> _Value:
    value = _Value()
    messages.count += FIELDS_OF_TENSOR
    for number, wire, at, length in messages.walk(start, stop):
        if number == 1:
            value.dims += messages.shape(wire, at, length)
        elif number == 2 and wire == BYTES:
            value.type = messages.text(at, length)
        elif number == 3 and wire == BYTES:
            value.offset, value.length = at, length
        else:
            raise messages.error(f"field {number} of a tensor", at)
    if len(value.dims) > limits.AXES or any(axis >= 2**63 for axis in value.dims):
        raise messages.error("a shape of too many axes", start)
    return value


def _tensors(name: str, slices: Sequence[_Value]) -> Iterator[tuple[int, TensorInfo]]:
    """A parameter by its slices, of which there is mostly one; texts are none."""
    whole = slices[0]
    known = whole.type.removeprefix("mindspore.").rstrip("_").lower()
    if known not in _DTYPES:
        return
    dtype = DTYPES[_DTYPES[known]]
    total = sum(one.length for one in slices)
    if any((one.type, one.dims) != (whole.type, whole.dims) for one in slices) or (
        total != prod(whole.dims) * dtype.itemsize
    ):
        raise FormatError(
            f"mindspore: tensor {name!r} of {whole.type} {whole.dims} has {total} bytes"
        )
    for number, one in enumerate(slices):
        if len(slices) == 1:
            yield one.offset, TensorInfo(name, dtype, tuple(whole.dims))
        else:
            info = TensorInfo(f"{name}.chunks.{number}", *_slice(one.length, dtype, whole.dims))
            yield one.offset, info


def _slice(length: int, dtype: DType, dims: Sequence[int]) -> tuple[DType, tuple[int, ...]]:
    """Element type and shape of a slice: rows where it is some, else values or bytes."""
    row = prod(dims[1:]) * dtype.itemsize
    if row and length % row == 0:
        return dtype, (length // row, *dims[1:])
    if length % dtype.itemsize == 0:
        return dtype, (length // dtype.itemsize,)
    return DTYPES["U8"], (length,)
