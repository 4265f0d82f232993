"""The raw bits of a block's elements, and what they mean as numbers.

What is decoded and what a merge computes go through these, and are rounded once: the same on every
machine (decision 0010). A change here would change the bits of what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.arrays import numpy_dtype
from git_theta_ext.core.tensors import DTYPES, DType

Values = NDArray[np.unsignedinteger[Any]]
"""Flat raw bits of a block's elements; see `updates.base`."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

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


def to_floats(dtype: DType, values: Values) -> Floats:
    """The numbers that raw bits stand for, in float64; exact for every float dtype but no integer.

    Complex elements are two numbers. Only for dtypes of kind float or complex.
    """
    floats = as_floats(dtype, values)
    if floats is None:
        raise TypeError(f"{dtype.name} has no floats")
    with np.errstate(invalid="ignore"):
        return floats.astype(np.float64)


def from_floats(dtype: DType, floats: Floats) -> Values:
    """The raw bits of float64 numbers in another dtype: rounded once, half to even.

    Types narrower than float16 have no direct conversion from float64 in `ml_dtypes`; they are
    reached through a float32 that is rounded to odd, which makes the second rounding exact
    (Boldo and Melquiond, "Emulation of FMA and Correctly-Rounded Sums", 2008).
    """
    bits = values_dtype(dtype)
    target = as_floats(dtype, np.zeros(0, bits))
    if target is None:
        raise TypeError(f"{dtype.name} has no floats")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if target.dtype in (np.float64, np.float32, np.float16):
            return floats.astype(target.dtype).view(bits)
        return to_odd(floats).astype(target.dtype).view(bits)


def to_odd(floats: Floats) -> NDArray[np.float32]:
    """Numbers as float32, an inexact one with a last bit of 1: it is as good as all of its bits."""
    near = floats.astype(np.float32)
    bits = near.view(np.uint32)
    inexact = (near.astype(np.float64) != floats) & ~np.isnan(floats)
    beyond = np.abs(near.astype(np.float64)) > np.abs(floats)
    odd = np.where(inexact, (bits - beyond.astype(np.uint32)) | np.uint32(1), bits)
    result: NDArray[np.float32] = odd.astype(np.uint32).view(np.float32)
    return result


def not_numbers(dtype: DType, values: Values) -> Mask:
    """Which entries are NaN; none for dtypes that have none."""
    floats = as_floats(dtype, values)
    if floats is None:
        return np.zeros(len(values), np.bool_)
    with np.errstate(invalid="ignore"):  # ml_dtypes tells of NaN that it looks at
        found: Mask = np.isnan(floats)
    return found


def not_finite(versions: Sequence[Floats]) -> Mask | None:
    """Which entries are infinite or NaN in some version; None if there are none."""
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is finite only if every number in it is, and quicker than looking at each.
        if all(np.isfinite(np.sum(one)) for one in versions):
            return None
    wrong: Mask = ~np.logical_and.reduce([np.isfinite(one) for one in versions])
    return wrong if wrong.any() else None


def beyond_range(dtype: DType, values: Values) -> Mask | None:
    """Which entries, made of finite numbers, are infinite or NaN in a dtype; None if none are."""
    floats = as_floats(dtype, values)
    if floats is None:
        return None
    with np.errstate(invalid="ignore"):
        finite: Mask = np.isfinite(floats)
    return None if finite.all() else ~finite


def larger(dtype: DType, mine: Values, yours: Values) -> Values:
    """Entry by entry the larger number of two, for integers and floats alike."""
    a, b = numbers(dtype, mine), numbers(dtype, yours)
    with np.errstate(invalid="ignore"):
        return np.where(b > a, yours, mine)


def numbers(dtype: DType, values: Values) -> NDArray[Any]:
    """Raw bits in a type that compares as the dtype does."""
    floats = as_floats(dtype, values)
    if floats is not None:
        return floats
    return values.view(f"<i{values.itemsize}") if dtype.kind == "int" else values
