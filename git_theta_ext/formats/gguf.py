"""GGUF, versions 2 and 3: key-values, a list of tensors, then their values, aligned.

Source: ggml's docs/gguf.md and ggml.h. A quantised tensor has no element type here, for its
elements come in blocks with scales of their own: it is U8 of the shape [..., blocks in a row, bytes
of a block], so rows stay rows. Shapes are in NumPy's order, the reverse of the file's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Literal, Segment, Source, Span
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.layout.tiles import tile
from git_theta_ext.formats.layout.window import Window

NAME = "gguf"
_MAGIC = b"GGUF"
_FLOAT32, _STRING, _ARRAY = 6, 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type's number."""

_PLAIN = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
_KINDS = {name: kind for kind, name in _PLAIN.items()} | {"QI8": 24, "QI32": 26}
_MAX_AXES = 4
_ALIGNMENT = 32
_BLOCKS = {
    2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 29: (256, 56), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
"""Elements and bytes of a block by the type's number (Q4_0 is 2, Q4_K 12, IQ4_XS 23, MXFP4 39)."""

_NAMES = {
    2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
    19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0",
    35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


def quantisations(tensor: TensorInfo, row: int) -> list[str]:
    """What a tensor may be quantised as, if its rows stand for `row` elements; mostly one name.

    None where it is no quantised tensor of rows of that length. (Two types can have blocks of the
    same form; which of them it is stands in the file's list of tensors only.)
    """
    if tensor.dtype.name != "U8" or len(tensor.shape) < 2:
        return []
    blocks, size = tensor.shape[-2:]
    return [
        _NAMES[kind]
        for kind, (elements, length) in _BLOCKS.items()
        if length == size and blocks * elements == row
    ]


def block_of(name: str) -> tuple[int, int]:
    """Elements and bytes of a block of a quantised type, by its name."""
    return _BLOCKS[next(kind for kind, found in _NAMES.items() if found == name)]


def sniff(head: bytes, source: Source) -> bool:
    """Whether the file begins as GGUF does."""
    return head.startswith(_MAGIC)


def layout(source: Source) -> Layout:
    """Header, key-values and list as literals, then each tensor."""
    window = Window(source)
    window.take(4)
    version = window.number(4)
    if version not in (2, 3):
        raise FormatError(f"gguf: version {version} at offset 4; expected 2 or 3, little-endian")
    tensors, pairs = window.number(8), window.number(8)
    if tensors > limits.GGUF_TENSORS or pairs > limits.GGUF_PAIRS:
        raise BoundError(f"gguf: {tensors} tensors and {pairs} key-values are too many")
    alignment = 32
    items = _Items()
    for _ in range(pairs):
        key = _text(window)
        kind = window.number(4)
        value = _skip(window, kind, 0, items)
        if key == "general.alignment" and value is not None:
            alignment = value
    if not 0 < alignment <= 1 << 20:
        raise FormatError(f"gguf: an alignment of {alignment}")
    found = [_tensor(window) for _ in range(tensors)]
    start = -(-window.position // alignment) * alignment
    return tile(NAME, source, ((start + offset, tensor) for offset, tensor in found))


def _text(window: Window) -> str:
    length = window.number(8)
    if length > limits.GGUF_TEXT_BYTES:
        raise BoundError(f"gguf: a text of {length} bytes at offset {window.position}")
    return window.take(length).decode("utf-8", "backslashreplace")


class _Items:
    """How many items of arrays were met."""

    def __init__(self) -> None:
        self._left = limits.GGUF_ITEMS

    def spend(self, count: int) -> None:
        """Count some more; BoundError if they are too many."""
        self._left -= count
        if self._left < 0:
            raise BoundError(f"gguf: more than {limits.GGUF_ITEMS} items of arrays")


def _skip(window: Window, kind: int, depth: int, items: _Items) -> int | None:
    """Step over a value; an unsigned 32-bit one is returned."""
    if kind in _SIZES:
        data = window.take(_SIZES[kind])
        return int(struct.unpack("<I", data)[0]) if kind == 4 else None
    if kind == _STRING:
        window.skip(window.number(8))
        return None
    if kind != _ARRAY or depth >= limits.GGUF_DEPTH:
        raise FormatError(f"gguf: a value of type {kind} at offset {window.position}")
    inner, count = window.number(4), window.number(8)
    if inner in _SIZES:
        window.skip(count * _SIZES[inner])
        return None
    items.spend(count)
    for _ in range(count):
        _skip(window, inner, depth + 1, items)
    return None


def _tensor(window: Window) -> tuple[int, TensorInfo]:
    """Offset (from the start of the values) and description of the next tensor of the list."""
    name = _text(window)
    axes = window.number(4)
    if axes > 8:
        raise FormatError(f"gguf: tensor {name!r} has {axes} axes at offset {window.position}")
    shape = tuple(reversed([window.number(8) for _ in range(axes)]))
    kind, offset = window.number(4), window.number(8)
    if kind in _PLAIN:
        return offset, TensorInfo(name, DTYPES[_PLAIN[kind]], shape)
    if kind not in _BLOCKS:
        raise FormatError(f"gguf: tensor {name!r} is of the unknown type {kind}")
    elements, size = _BLOCKS[kind]
    if not shape or shape[-1] % elements:
        raise FormatError(f"gguf: tensor {name!r}: rows of {shape[-1:]} in blocks of {elements}")
    blocks = (*shape[:-1], shape[-1] // elements, size)
    return offset, TensorInfo(name, DTYPES["U8"], blocks)


def build(
    tensors: Mapping[str, TensorInfo],
    model: Layout | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Layout:
    """The layout of a version 3 file of these tensors; metadata become key-values of text.

    Quantised blocks need a `model`, a GGUF layout with a tensor of the same name and shape: its
    key-values and its types are taken over.

    Raises:
        FormatError: GGUF has no such element type, or no so many axes.
    """
    pairs, kinds = _taken(model)
    if not pairs:
        pairs = [
            _packed(key) + struct.pack("<I", _STRING) + _packed(value)
            for key, value in (metadata or {}).items()
        ]
    header = _MAGIC + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs)
    position = 0
    for name, info in tensors.items():
        kind, shape = kinds.get((name, info.shape)) or (_kind(info), info.shape)
        header += _packed(name) + struct.pack("<I", len(shape))
        header += struct.pack(f"<{len(shape)}QIQ", *reversed(shape), kind, position)
        position += -(-info.nbytes // _ALIGNMENT) * _ALIGNMENT
    segments: list[Segment] = [Literal(header + bytes(-len(header) % _ALIGNMENT))]
    for info in tensors.values():
        if info.nbytes:
            segments.append(Span(info))
        if info.nbytes % _ALIGNMENT:
            segments.append(Literal(bytes(-info.nbytes % _ALIGNMENT)))
    return Layout(NAME, tuple(segments))


def _kind(info: TensorInfo) -> int:
    if info.dtype.name not in _KINDS or info.order is not None:
        raise FormatError(f"tensor {info.name!r}: GGUF has no element type {info.dtype.name}")
    if len(info.shape) > _MAX_AXES:
        raise FormatError(f"tensor {info.name!r} has {len(info.shape)} axes; GGUF has up to 4")
    return _KINDS[info.dtype.name]


def _packed(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


def types(model: Layout) -> dict[str, str]:
    """What each tensor is stored as (`Q4_0`), by its name, as the file's list of tensors says it.

    Raises:
        FormatError: it cannot be read.
    """
    return {name: _NAMES.get(kind, str(kind)) for (name, _), (kind, _) in _taken(model)[1].items()}


_Kinds = dict[tuple[str, tuple[int, ...]], tuple[int, tuple[int, ...]]]


def _taken(model: Layout | None) -> tuple[list[bytes], _Kinds]:
    """A file's key-values, all but its alignment, and type and shape of its tensors.

    The latter by name and by the shape that the tensor has here.
    """
    first = model.segments[0] if model is not None and model.segments else None
    if not isinstance(first, Literal) or not first.data.startswith(_MAGIC):
        return [], {}
    window = Window(BytesSource(first.data), 8)
    count, pairs = window.number(8), window.number(8)
    kept, items = [], _Items()
    for _ in range(pairs):
        start = window.position
        key = _text(window)
        _skip(window, window.number(4), 0, items)
        if key != "general.alignment":
            kept.append(first.data[start : window.position])
    kinds: _Kinds = {}
    for _ in range(count):
        name = _text(window)
        shape = tuple(reversed([window.number(8) for _ in range(window.number(4))]))
        kind = window.number(4)
        window.skip(8)
        elements, size = _BLOCKS.get(kind, (0, 0))
        here = (*shape[:-1], shape[-1] // elements, size) if elements else shape
        kinds[name, here] = kind, shape
    return kept, kinds


def key_values(pairs: Mapping[str, str | float]) -> Layout:
    """A file of no tensors with these key-values, texts and float32: a `model` for `build`."""
    data = _MAGIC + struct.pack("<IQQ", 3, 0, len(pairs))
    for key, value in pairs.items():
        data += _packed(key)
        if isinstance(value, str):
            data += struct.pack("<I", _STRING) + _packed(value)
        else:
            data += struct.pack("<If", _FLOAT32, value)
    return Layout(NAME, (Literal(data),))


def text_of(head: bytes, key: str) -> str | None:
    """The text that stands under a key in the beginning of a file; None where there is none.

    Raises:
        FormatError: the file is damaged.
    """
    if not head.startswith(_MAGIC):
        return None
    window, items = Window(BytesSource(head), 16), _Items()
    for _ in range(window.number(8)):
        found, kind = _text(window), window.number(4)
        if found == key and kind == _STRING:
            return _text(window)
        _skip(window, kind, 0, items)
    return None
