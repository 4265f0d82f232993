"""What old and new weights say about a change: how large it is, and how exactly that is known.

A change is seen through the rounding of the weights: an entry tells it to within an ulp of its new
value, or of the change, where that is larger. Numbers are in units of the block's typical ulp, so
that float32 holds all that the fit needs but the changes of float32 and float64 weights, which it
would round; these are float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values
from git_theta_ext.updates.arithmetic import mantissa_bits, widen
from git_theta_ext.updates.low_rank.factors import DTYPES

Matrix = NDArray[np.floating[Any]]
"""float32, or float64 where changes are."""
Weights = NDArray[np.float32]
Precise = NDArray[np.float64]
Places = slice | NDArray[np.intp]

SMALLEST = 32
"""Rows and columns from which on factors are smaller than the matrix."""
_MOST_LIFT, _LEAST_LIFT = 5, -60
"""No entry weighs more than 4^5 times the typical one, a zero would decide everything; and none
less than float32 can say."""
_SMALLEST_EXPONENT = {"F64": -1022, "F16": -14, "F8_E4M3": -6, "F8_E5M2": -14,
                      "F8_E4M3FNUZ": -7, "F8_E5M2FNUZ": -15}  # fmt: skip
"""Of normal numbers; -126 in float32 and bfloat16."""
_SAMPLE = 64
"""Rows and columns, or entries of a line, by which a typical size is judged."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Entries of a change, in typical ulps.

    `weights` are the precisions, 1 / ulp². `slack` is half the ulp of the new values, within which
    the change may lie anywhere; None where changes are far larger than that anyway.
    """

    change: Matrix
    weights: Weights
    slack: Weights | None = None

    def turned(self) -> Seen:
        """The same, transposed; no copy."""
        return Seen(self.change.T, self.weights.T, None if self.slack is None else self.slack.T)


@dataclass(frozen=True, slots=True)
class Pair:
    """New and old weights as matrices of raw bits; `typical` is the exponent of the typical one."""

    dtype: DType
    new: Values
    base: Values
    typical: int = 0

    @property
    def coarse(self) -> bool:
        """Whether a change may well be smaller than the rounding of the weights."""
        return self.dtype.bits <= 16

    @property
    def unit(self) -> float:
        """The typical ulp."""
        return 2.0 ** (self.typical - (mantissa_bits(self.dtype) or 0))

    def spread(self, axis: int, count: int) -> NDArray[np.intp]:
        """At most `count` rows (axis 0) or columns (1), spread evenly."""
        extent = self.new.shape[axis]
        taken = min(count, extent)
        places: NDArray[np.intp] = np.arange(taken) * extent // taken
        return places

    def observe(self, rows: Places, columns: NDArray[np.intp] | None = None) -> Seen:
        """Some rows; of their columns, some or all. What is not finite is 0 and weighs nothing."""
        new, base = self.new[rows], self.base[rows]
        if columns is not None:
            new, base = new[:, columns], base[:, columns]
        change, size = _change(self.dtype, new, base)
        slack = self._slack(size) if self.coarse else None
        np.maximum(size, np.abs(change), out=size)
        weights = self._weights(size)
        if not np.isfinite(np.max(size, initial=0)):
            silent = ~np.isfinite(size)
            change[silent], weights[silent] = 0, 0
        if not self.coarse:
            change = change.astype(np.float64, copy=False)
        change *= change.dtype.type(1 / self.unit)
        return Seen(change, weights, slack)

    def _weights(self, size: Matrix) -> Weights:
        """1 / ulp², from the exponents alone: powers of four."""
        bits = self._lifts(size)
        np.clip(bits, _LEAST_LIFT, _MOST_LIFT, out=bits)
        bits <<= 1
        bits += 127
        bits <<= 23
        return bits.view(np.float32)

    def _slack(self, size: Matrix) -> Weights:
        """Half of an ulp."""
        bits = self._lifts(size)
        np.subtract(126, bits, out=bits)
        np.clip(bits, 1, 254, out=bits)
        bits <<= 23
        return bits.view(np.float32)

    def _lifts(self, size: Matrix) -> NDArray[np.int32]:
        """The binary logarithm of the typical ulp over that of each number."""
        exponents = np.maximum(_exponents(size), _lowest(self.dtype, size))
        np.subtract(self.typical + _bias(size), exponents, out=exponents)
        return exponents


def pair_of(spec: BlockSpec, new: Values, base: Values) -> Pair | None:
    """A block as a matrix of its first axis in memory by the rest; None where no fit is made."""
    if spec.dtype.name not in DTYPES or len(spec.shape) < 2:
        return None
    rows = spec.shape[0]
    if rows < SMALLEST or len(new) // rows < SMALLEST:
        return None
    pair = Pair(spec.dtype, new.reshape(rows, -1), base.reshape(rows, -1))
    places = np.ix_(pair.spread(0, _SAMPLE), pair.spread(1, 4 * _SAMPLE))
    change, size = _change(spec.dtype, pair.new[places], pair.base[places])
    np.maximum(size, np.abs(change), out=size)
    finite = size[np.isfinite(size)]
    if not len(finite):
        return None
    exponents = np.maximum(_exponents(finite), _lowest(spec.dtype, finite))
    # One over the unit must be a number; below, changes are in larger units than ulps.
    lowest = -900 if size.itemsize == 8 else -100
    typical = max(int(np.median(exponents)) - _bias(size), lowest)
    return Pair(spec.dtype, pair.new, pair.base, typical)


def typical_size(numbers: Matrix) -> float:
    """The median size of numbers that are not zero, judged by some of them; 1 if there is none."""
    few = numbers[:: max(1, len(numbers) // _SAMPLE), :: max(1, numbers.shape[1] // _SAMPLE)]
    moved = np.abs(few[few != 0])
    return float(np.median(moved)) if len(moved) else 1.0


def typical_rows(numbers: Matrix) -> Matrix:
    """The same for each row; where most are zero, about what their fellows have."""
    few = np.abs(numbers[:, :: max(1, numbers.shape[1] // (2 * _SAMPLE))])
    moved = np.count_nonzero(few) / few.size
    middle = min(int((1 - moved / 2) * few.shape[1]), few.shape[1] - 1)
    found = np.partition(few, middle, axis=1)[:, middle]
    sizes: Matrix = np.maximum(found, 0.1 * typical_size(few))
    return sizes


def _change(dtype: DType, new: Values, base: Values) -> tuple[Matrix, Matrix]:
    """The change, and the size of the new values, both fresh.

    In float32 it is exact where the two differ by less than half; else it is off by half its ulp.
    """
    now, change = (widen(dtype, side.ravel()).reshape(side.shape) for side in (new, base))
    np.subtract(now, change, out=change)
    np.abs(now, out=now)
    return change, now


def _exponents(size: Matrix) -> NDArray[np.int32]:
    """The biased exponents of numbers that are not negative."""
    if size.itemsize == 8:
        return (size.view(np.int64) >> 52).astype(np.int32)
    return size.view(np.int32) >> np.int32(23)


def _bias(size: Matrix) -> int:
    return 1023 if size.itemsize == 8 else 127


def _lowest(dtype: DType, size: Matrix) -> int:
    """The biased exponent of the smallest number whose ulp is not that of the next smaller."""
    return _SMALLEST_EXPONENT.get(dtype.name, -126) + _bias(size)
