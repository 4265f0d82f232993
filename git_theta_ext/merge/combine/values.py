"""Raw bits as numbers and back, rounded once; the figures of two updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.tensors import DType
from git_theta_ext.core.values import Values, as_floats, values_dtype

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


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
        return _to_odd(floats).astype(target.dtype).view(bits)


def _to_odd(floats: Floats) -> NDArray[np.float32]:
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


@dataclass(frozen=True, slots=True)
class Measure:
    """How two updates of one base meet, summed over a tensor.

    `entries` counts all entries compared, `collided` those that both sides changed; `dot`, `ours`
    and `theirs` are the inner product of the two updates and their squared norms, over finite
    entries; all zero where there is no base.
    """

    entries: int = 0
    collided: int = 0
    nan_ours: int = 0
    nan_theirs: int = 0
    dot: float = 0.0
    ours: float = 0.0
    theirs: float = 0.0

    def __add__(self, other: Measure) -> Measure:
        return Measure(
            self.entries + other.entries,
            self.collided + other.collided,
            self.nan_ours + other.nan_ours,
            self.nan_theirs + other.nan_theirs,
            self.dot + other.dot,
            self.ours + other.ours,
            self.theirs + other.theirs,
        )

    @property
    def share(self) -> float:
        """The share of entries that collide."""
        return self.collided / self.entries if self.entries else 0.0

    @property
    def cosine(self) -> float | None:
        """The cosine of the two updates, or None where one of them is nothing."""
        scale = self.ours**0.5 * self.theirs**0.5
        return self.dot / scale if scale > 0 else None

    @property
    def ratio(self) -> float | None:
        """How many times longer the update of theirs is than that of ours."""
        if self.ours <= 0 or self.theirs <= 0:
            return None
        return float((self.theirs / self.ours) ** 0.5)
