"""What a low-rank change makes of the old values: the same bits on every machine."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.tensors import DType
from git_theta_ext.core.values import Values
from git_theta_ext.updates.arithmetic import narrow, pieces, widen
from git_theta_ext.updates.low_rank.factors import Factors

_HALF = 15
_EXACT_BITS = 53
_CHUNK = 1 << 15
"""Elements predicted at once: the float64 product stays in the processor's cache."""


@cache
def library_is_exact() -> bool:
    """Whether NumPy's products of integers below 2^53 are exact here; tried once in a process.

    They are wherever float64 is IEEE's and no library computes with fewer bits; else decoding does
    without it, some ten times slower. The known answers come from 64-bit integers.
    """
    numbers = np.arange(1, 256 * 40 + 1, dtype=np.int64)
    for rows, rank, columns in ((7, 256, 33), (33, 64, 40), (1, 256, 3), (40, 3, 40)):
        left = (numbers[: rows * rank] * 2654435761 % (1 << 30) - (1 << 29)).reshape(rows, rank)
        right = (numbers[: rank * columns] * 40503 % (1 << 15) - (1 << 14)).reshape(rank, columns)
        found = np.matmul(left.astype(np.float64), right.astype(np.float64))
        if not np.array_equal(found, np.matmul(left, right).astype(np.float64)):
            return False
    return True


def predict(
    dtype: DType, values: Values, factors: Factors, product: type[Product] | None = None
) -> Values:
    """Add the change to the values, in place, rounded in the order of the factors.

    Args:
        dtype: a real float dtype.
        values: raw bits, flat, row after row of a matrix of the factors' shape.
        factors: the change.
        product: how to multiply; by default the quick way, if that is exact here.

    Returns:
        The same array `values`.
    """
    if product is None:
        product = Product if library_is_exact() else SlowProduct
    columns = factors.shape[1]
    step = max(1, _CHUNK // columns)
    change = product(factors, step)
    for start in range(0, factors.shape[0], step):
        rows = slice(start, min(start + step, factors.shape[0]))
        added = change.rows(rows).ravel()
        part = values[rows.start * columns : rows.stop * columns]
        for piece in pieces(len(part)):
            part[piece] = add(dtype, part[piece], added[piece], factors.order, factors.scaling)
    return values


def add(
    dtype: DType, old: Values, change: NDArray[np.float64], order: str, scaling: float = 1.0
) -> Values:
    """The old values plus a change, rounded as `order` says; NaNs become the old bits.

    The change is rounded to float32, and multiplied by `scaling` there, before anything else. On
    float64 weights only `rounded` does that; `sum` adds it as it is.

    Args:
        dtype: the real float dtype of `old`.
        old: raw bits, flat; not written to.
        change: as many numbers, not scaled yet.
        order: `sum` to round once, with the sum; `rounded` to round the change before, too.
        scaling: the number by which the change is multiplied.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if dtype.name == "F64" and order == "sum":
            return narrow(dtype, change * scaling + old.view(np.float64), old)
        step: NDArray[Any] = change.astype(np.float32)
        if scaling != 1.0:
            step *= np.float32(scaling)
        if order == "rounded" and dtype.bits < 32:
            step = widen(dtype, narrow(dtype, step, np.zeros_like(old)))
        return narrow(dtype, step + widen(dtype, old), old)


class Product:
    """Rows of the product of two integer factors, times a power of two, in float64.

    What it gives is overwritten by the next call: new memory for each would cost more than the
    arithmetic.
    """

    def __init__(self, factors: Factors, most: int) -> None:
        """At most `most` rows at once."""
        left, right = factors.left, factors.right
        rank = left.shape[1]
        widest = [int(np.abs(side).max(initial=0)).bit_length() for side in (left, right)]
        # Scaling by a power of two is exact, so it is done once, on the thin factor.
        scale = 2.0**factors.exponent
        self._right = right
        self._halves = [left * scale]
        if sum(widest) + rank.bit_length() > _EXACT_BITS:
            # Each half is at most 2^15: sums of up to 2^8 products with 2^30 stay within 2^53.
            high = np.floor(left * 2.0**-_HALF) * 2.0**_HALF
            self._halves = [high * scale, (left - high) * scale]
        shape = min(most, len(left)), right.shape[1]
        self._room = [np.empty(shape) for _ in self._halves]

    def rows(self, rows: slice) -> NDArray[np.float64]:
        """The change to some rows: exact products, then at most one rounded sum of two."""
        product, *others = (
            self._times(half[rows], room[: rows.stop - rows.start])
            for half, room in zip(self._halves, self._room, strict=True)
        )
        for other in others:
            product += other
        return product

    def _times(self, left: NDArray[np.float64], out: NDArray[np.float64]) -> NDArray[np.float64]:
        """Some rows of a half, times the right factor; exact in any order of operations."""
        product: NDArray[np.float64] = np.matmul(left, self._right, out=out)
        return product


class SlowProduct(Product):
    """The same without BLAS."""

    def _times(self, left: NDArray[np.float64], out: NDArray[np.float64]) -> NDArray[np.float64]:
        out.fill(0)
        for column, row in zip(left.T, self._right, strict=True):
            out += column[:, None] * row
        return out
