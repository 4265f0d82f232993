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
