"""Small checkpoints for tests, made without any framework."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_NAMES = {
    np.dtype(np.float64): "F64",
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(ml_dtypes.float8_e4m3fn): "F8_E4M3",
    np.dtype(ml_dtypes.float8_e5m2): "F8_E5M2",
    np.dtype(np.int64): "I64",
    np.dtype(np.int32): "I32",
    np.dtype(np.int8): "I8",
    np.dtype(np.uint8): "U8",
    np.dtype(np.bool_): "BOOL",
}

Tensors = Mapping[str, NDArray[np.generic]]

NAME = "model.safetensors"
"""How tests that have one checkpoint call it."""


def safetensors(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file that holds these tensors in this order."""
    header: dict[str, object] = {}
    if metadata is not None:
        header["__metadata__"] = dict(metadata)
    offset = 0
    for name, value in tensors.items():
        header[name] = {
            "dtype": _NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [offset, offset + value.nbytes],
        }
        offset += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(np.ascontiguousarray(value).tobytes() for value in tensors.values())
    return struct.pack("<Q", len(text)) + text + data


def model(seed: int = 0, layers: int = 3, width: int = 64) -> dict[str, NDArray[np.generic]]:
    """A little transformer-like state dict: float32 weights and biases, a bf16 one, a counter."""
    random = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.generic]] = {}
    for layer in range(layers):
        for kind in ("query", "value"):
            name = f"encoder.layer.{layer}.attention.{kind}"
            tensors[f"{name}.weight"] = random.normal(0, 0.02, (width, width)).astype(np.float32)
            tensors[f"{name}.bias"] = random.normal(0, 0.02, width).astype(np.float32)
    tensors["head.weight"] = random.normal(0, 0.02, (10, width)).astype(ml_dtypes.bfloat16)
    tensors["num_batches_tracked"] = np.array(seed, np.int64)
    return tensors


def awkward() -> dict[str, NDArray[np.generic]]:
    """Values that lossy systems lose: NaN payloads, -0.0, subnormals, huge integers, empty axes."""
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x80000000, 1, 0x7F800000], np.uint32)
    return {
        "nan.payloads": bits.view(np.float32),
        "all.bf16": np.arange(65536, dtype=np.uint16).view(ml_dtypes.bfloat16),
        "all.f16": np.arange(65536, dtype=np.uint16).view(np.float16).reshape(256, 256),
        "all.f8": np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn),
        "all.f8e5": np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e5m2),
        "ids": np.array([2**62 + 1, -(2**63), 2**63 - 1], np.int64),
        "scalar": np.array(3.25, np.float64),
        "empty": np.zeros((0, 7), np.float32),
        "flags": np.array([[True, False], [False, True]]),
        "tiny": np.full(500, 1e-9, np.float32),
    }


def changed(value: NDArray[np.generic], scale: float = 1e-3, seed: int = 1) -> NDArray[np.generic]:
    """The same tensor after a little training: every entry moves by about `scale`."""
    random = np.random.default_rng(seed)
    moved = value.astype(np.float64) + random.normal(0, scale, value.shape)
    return moved.astype(value.dtype)
