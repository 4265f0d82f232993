"""The raw bits of a block's elements, and what they mean as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.arrays import numpy_dtype
from git_theta_ext.core.tensors import DTYPES, DType

Values = NDArray[np.unsignedinteger[Any]]
"""Flat raw bits of a block's elements; see `updates.base`."""

_HALVES = {2: "F16", 4: "F32", 8: "F64"}
"""What the real and imaginary parts of complex elements are, by their bytes."""


def values_dtype(dtype: DType) -> np.dtype[np.unsignedinteger[Any]]:
    """The unsigned integers that hold the raw bits of a dtype's elements."""
    size = 1 if dtype.kind in ("bool", "bits") else dtype.itemsize
    if dtype.kind == "complex":
        size //= 2
    return np.dtype(f"<u{size}")


def raw_bytes(values: NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    return values.data.cast("B") if values.size else memoryview(b"")


def as_floats(dtype: DType, values: Values) -> NDArray[np.floating] | None:
    """Raw bits as the floats that they are, or None if they are not; complex ones as pairs."""
    if dtype.kind not in ("float", "complex"):
        return None
    found = DTYPES[_HALVES[values.itemsize]] if dtype.kind == "complex" else dtype
    floats = numpy_dtype(found)
    return None if floats is None else values.view(floats)
