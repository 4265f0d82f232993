"""Caffe's `.caffemodel`: a protocol buffer of layers, each with its blobs.

A blob is called by its layer and its number, as in `net.params["conv1"][0]`: `conv1.0`. Source:
src/caffe/proto/caffe.proto of BVLC/caffe (`NetParameter`, `LayerParameter`, `V1LayerParameter`,
`BlobProto`). Values that were written one by one, before 2014, stay literal.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout.messages import BYTES, FIELDS_OF_TENSOR, VARINT, Messages
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.layout.tiles import tile_with_gaps
from git_theta_ext.formats.layout.window import Window

NAME = "caffe"
_NET_NAME = b"\x0a"
_FIRST = (_NET_NAME, b"\x12", b"\xa2\x06")
"""Tags of a net's name and of its layers, those of the first version and of the second."""
_AFTER_NAME = (0x12, 0x1A, 0x20, 0x22, 0x28, 0x32, 0x38, 0x42, 0xA2)
"""First bytes of the tags of its other fields."""
_LAYERS = {100: (1, 7), 2: (4, 6)}
"""Field of a net that is a layer: the fields of it that are its name and its blobs."""
_VALUES = {5: ("F32", ""), 6: ("F32", ".diff"), 8: ("F64", ""), 9: ("F64", ".diff")}
"""Field of a blob: element type of the values that are packed in it, and what they are called."""
_SHAPE, _AXES = 7, (1, 2, 3, 4)
"""The shape of a blob; before there was one: its number, channels, height and width."""


def sniff(head: bytes, source: Source) -> bool:
    """A first field that is a layer, or a net's name with another field of a net behind it."""
    tag = next((first for first in _FIRST if head.startswith(first)), None)
    if tag is None:
        return False
    window = Window(BytesSource(head), len(tag))
    try:
        length = window.varint()
        if tag != _NET_NAME:
            return 0 < length <= source.size
        window.skip(length)
        return window.take(1)[0] in _AFTER_NAME
    except FormatError:
        return False


def layout(source: Source) -> Layout:
    """The blobs of all layers; everything else is literal.

    Raises:
        FormatError: damaged, past a limit, or no blob has as many values as its shape says.
    """
    messages = Messages(source, NAME)
    found: list[tuple[int, TensorInfo]] = []
    for number, wire, at, length in messages.walk(0, source.size):
        if number in _LAYERS and wire == BYTES:
            found += _layer(messages, at, at + length, *_LAYERS[number])
    if not found:
        raise FormatError("caffe: no blobs")
    return tile_with_gaps(NAME, source, found)


def _layer(
    messages: Messages, start: int, stop: int, name_field: int, blob_field: int
) -> Iterator[tuple[int, TensorInfo]]:
    """The blobs of a layer between two offsets, by the fields that are its name and its blobs."""
    name, blobs = "", []
    for number, wire, at, length in messages.walk(start, stop):
        if number == name_field and wire == BYTES:
            name = messages.text(at, length)
        elif number == blob_field and wire == BYTES:
            blobs.append((at, at + length))
    for number, (at, end) in enumerate(blobs):
        yield from _blob(messages, at, end, f"{name}.{number}")


def _blob(messages: Messages, start: int, stop: int, name: str) -> Iterator[tuple[int, TensorInfo]]:
    """The values of a blob, and their gradients where it has them; each as long as its shape."""
    messages.count += FIELDS_OF_TENSOR
    shape: list[int] | None = None
    axes: dict[int, int] = {}
    values: dict[int, tuple[int, int]] = {}
    for number, wire, at, length in messages.walk(start, stop):
        if number == _SHAPE and wire == BYTES:
            shape = []
            for inner, kind, place, size in messages.walk(at, at + length):
                if inner == 1:
                    shape += messages.shape(kind, place, size)
        elif number in _AXES and wire == VARINT:
            axes[number] = messages.number(at, length)
        elif number in _VALUES and wire == BYTES:
            if number in values:
                raise messages.error("values of a blob in two parts", at)
            values[number] = at, length
    dims = [axes.get(axis, 0) for axis in _AXES] if shape is None else shape
    if len(dims) > limits.AXES or any(axis >= 2**31 for axis in dims):
        raise messages.error("a blob of too many axes", start)
    for number, (at, length) in values.items():
        dtype, suffix = DTYPES[_VALUES[number][0]], _VALUES[number][1]
        if length != prod(dims) * dtype.itemsize:
            raise messages.error(f"{length} bytes of a blob of {dims}", at)
        yield at, TensorInfo(name + suffix, dtype, tuple(dims))
