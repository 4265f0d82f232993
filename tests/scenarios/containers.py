"""Small files of several containers, written here from their specifications."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = tuple[int, Sequence[int], bytes]
"""Number of the container's element type, shape, bytes."""


def npy(array: NDArray[Any]) -> bytes:
    """A .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def npz(arrays: Mapping[str, NDArray[Any]], *, compressed: bool = False) -> bytes:
    """An .npz file."""
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


def gguf(
    tensors: Mapping[str, Tensor], pairs: Sequence[tuple[str, int, bytes]] = (), version: int = 3
) -> bytes:
    """A GGUF file; `pairs` are key, number of the value's type, and the value's bytes."""

    def text(value: str) -> bytes:
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    for key, kind, value in pairs:
        out += text(key) + struct.pack("<I", kind) + value
    values = b""
    for name, (kind, shape, data) in tensors.items():
        out += text(name) + struct.pack("<I", len(shape))
        out += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        out += struct.pack("<IQ", kind, len(values))
        values += data + bytes(-len(data) % 32)
    return out + bytes(-len(out) % 32) + values


def varint(value: int) -> bytes:
    """A number as protocol buffers write it."""
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def tagged(number: int, content: bytes | int) -> bytes:
    """A field of a protocol buffer: bytes, or a number."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx_tensor(name: str, kind: int, shape: Sequence[int], data: bytes, number: int = 9) -> bytes:
    """A TensorProto whose values stand in the field of that number."""
    dims = b"".join(tagged(1, axis) for axis in shape)
    return dims + tagged(2, kind) + tagged(8, name.encode()) + tagged(number, data)


def onnx(tensors: Mapping[str, Tensor], nodes: Sequence[bytes] = (), packed: bool = False) -> bytes:
    """A model whose graph has these initialisers."""
    graph = b"".join(tagged(1, node) for node in nodes) + tagged(2, b"graph")
    for name, (kind, shape, data) in tensors.items():
        if packed:
            dims = tagged(1, b"".join(varint(axis) for axis in shape))
            graph += tagged(5, dims + tagged(2, kind) + tagged(8, name.encode()) + tagged(9, data))
        else:
            graph += tagged(5, onnx_tensor(name, kind, shape, data))
    return tagged(1, 8) + tagged(2, b"test") + tagged(7, graph) + tagged(8, tagged(2, 17))


def size_of(shape: Sequence[int], width: int) -> int:
    """Bytes of a tensor."""
    return prod(shape) * width


def hdf5(
    arrays: Mapping[str, NDArray[Any]],
    *,
    libver: str = "earliest",
    chunks: tuple[int, ...] | None = None,
    compressed: Collection[str] = (),
) -> bytes:
    """An HDF5 file, by h5py: one dataset for each path."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w", libver=libver) as file:
        for name, array in arrays.items():
            options = {"compression": "gzip"} if name in compressed else {}
            shape = chunks if chunks is not None and array.ndim == len(chunks) else None
            file.create_dataset(name, data=array, chunks=shape, track_times=False, **options)
    return stream.getvalue()


def keras(
    arrays: Mapping[str, NDArray[Any]],
    method: int = zipfile.ZIP_STORED,
    weights: bytes | None = None,
) -> bytes:
    """What Keras 3 writes for a model of these variables."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in (
            ("metadata.json", b'{"keras_version": "3.5.0"}'),
            ("config.json", b'{"class_name": "Sequential"}' * 9),
            ("model.weights.h5", hdf5(arrays) if weights is None else weights),
        ):
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), data, method)
    return stream.getvalue()


class _Buffer:
    """Writes a flatbuffer front to back: parents first, their offsets patched afterwards."""

    def __init__(self, identifier: bytes) -> None:
        self.out = bytearray(bytes(4) + identifier)

    def point(self, at: int) -> None:
        """Let the offset at `at` lead to what comes next."""
        self.out += bytes(-len(self.out) % 16)
        self.out[at : at + 4] = struct.pack("<I", len(self.out) - at)

    def table(self, at: int, fields: Mapping[int, bytes | None]) -> dict[int, int]:
        """A table that the offset at `at` leads to: where each field lies (None: an offset)."""
        size = 2 * (max(fields, default=-1) + 1)
        place, where, body = 4, {}, b""
        slots = bytearray(size)
        for number, content in fields.items():
            content = bytes(4) if content is None else content
            slots[2 * number : 2 * number + 2] = struct.pack("<H", place + len(body))
            where[number] = place + len(body)
            body += content + bytes(-len(content) % 4)
        self.out += bytes(-len(self.out) % 16)
        vtable = len(self.out)
        self.out += struct.pack("<HH", 4 + size, 4 + len(body)) + slots
        self.point(at)
        start = len(self.out)
        self.out += struct.pack("<i", start - vtable) + body
        return {number: start + offset for number, offset in where.items()}

    def vector(self, at: int, count: int, content: bytes) -> int:
        """A vector that the offset at `at` leads to: where its items begin."""
        self.point(at)
        self.out += struct.pack("<I", count) + content
        return len(self.out) - len(content)


def tflite(
    tensors: Mapping[str, tuple[int, Sequence[int], bytes, bool]], further: Mapping[str, str] = {}
) -> bytes:
    """A TensorFlow Lite model: number of the type, shape, bytes, and whether it is quantised.

    `further` gives names of more tensors that share the buffers of others.
    """
    numbers = {name: index + 1 for index, name in enumerate(tensors)}
    made = _Buffer(b"TFL3")
    root = made.table(0, {0: struct.pack("<I", 3), 2: None, 4: None})
    graphs = made.vector(root[2], 1, bytes(4))
    graph = made.table(graphs, {0: None})
    every = [*((n, n) for n in tensors), *further.items()]
    places = made.vector(graph[0], len(every), bytes(4 * len(every)))
    for index, (name, source) in enumerate(every):
        kind, shape, _, quantised = tensors[source]
        fields = {0: None, 1: bytes([kind]), 2: struct.pack("<I", numbers[source]), 3: None}
        where = made.table(places + 4 * index, {**fields, **({4: None} if quantised else {})})
        made.vector(where[0], len(shape), struct.pack(f"<{len(shape)}i", *shape))
        made.vector(where[3], len(name.encode()), name.encode() + b"\0")
        if quantised:
            scales = made.table(where[4], {2: None})
            made.vector(scales[2], 1, struct.pack("<f", 0.5))
    buffers = made.vector(root[4], len(tensors) + 1, bytes(4 * len(tensors) + 4))
    made.table(buffers, {})
    for index, (_, _, data, _) in enumerate(tensors.values()):
        where = made.table(buffers + 4 * index + 4, {0: None})
        made.vector(where[0], len(data), data)
    return bytes(made.out)


def crc32c(data: bytes) -> int:
    """CRC-32C, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def sorted_table(pairs: Mapping[bytes, bytes], per_block: int = 4) -> bytes:
    """A table as LevelDB writes it: keys with shared prefixes, blocks, an index and a footer."""

    def block(items: Sequence[tuple[bytes, bytes]]) -> bytes:
        out, last = b"", b""
        for key, value in items:
            shared = next(
                (n for n, (a, b) in enumerate(zip(key, last, strict=False)) if a != b),
                min(len(key), len(last)),
            )
            out += varint(shared) + varint(len(key) - shared) + varint(len(value))
            out += key[shared:] + value
            last = key
        out += struct.pack("<II", 0, 1)
        return out + b"\0" + _masked(out + b"\0")

    def handle(start: int, data: bytes) -> bytes:
        return varint(start) + varint(len(data) - 5)

    items = sorted(pairs.items())
    out, index = b"", []
    for start in range(0, len(items), per_block):
        made = block(items[start : start + per_block])
        index.append((items[min(start + per_block, len(items)) - 1][0], handle(len(out), made)))
        out += made
    meta, tree = block([]), block(index)
    footer = handle(len(out), meta) + handle(len(out) + len(meta), tree)
    return out + meta + tree + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def tensorflow(arrays: Mapping[str, NDArray[Any]], text: bytes = b"") -> tuple[bytes, bytes]:
    """A checkpoint of TensorFlow: the bytes of its `.data-00000-of-00001` and of its `.index`."""
    kinds = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}
    data, pairs = text, {b"": tagged(1, 1) + tagged(3, tagged(1, 1))}
    if text:
        pairs[b"_OBJECT_GRAPH"] = tagged(1, 7) + tagged(2, b"") + tagged(5, len(text))
    for name, array in arrays.items():
        raw = array.tobytes()
        shape = b"".join(tagged(2, tagged(1, axis)) for axis in array.shape)
        value = tagged(1, kinds[array.dtype.name]) + tagged(2, shape)
        value += tagged(4, len(data)) if data else b""
        value += tagged(5, len(raw)) + bytes([6 << 3 | 5]) + _masked(raw)
        pairs[name.encode()] = value
        data += raw
    return data, sorted_table(pairs)
