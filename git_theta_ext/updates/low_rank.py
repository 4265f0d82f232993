"""`low-rank`: predicts that the product of two thin matrices was added, as merging LoRA does.

Hu and others, "LoRA: Low-Rank Adaptation of Large Language Models", 2021. The factors are stored
as integers over a common power of two. Their products and sums stay below 2^53, so float64
holds them exactly and any BLAS, whatever its order of operations, gives the same bits; factors
too wide for that are split into halves first, and the two exact products added. The sum with
the old values is rounded as the merge itself rounded: the change either once with the sum
(`sum`), or to the weights' dtype before it is added (`rounded`). Factors that a trainer supplied
may have a `scaling`, by which the product is multiplied in float32, as PEFT does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values
from git_theta_ext.updates import correction
from git_theta_ext.updates.arithmetic import narrow, pieces, widen
from git_theta_ext.updates.base import Encoded, Parameters, Part
from git_theta_ext.updates.coders import compress_numbers, decompress_numbers
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import apply as move
from git_theta_ext.updates.residual import difference

DTYPES = frozenset({"F64", "F32", "BF16", "F16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ",
                    "F8_E5M2FNUZ"})  # fmt: skip
"""Real floats; others have no fit."""
_HALF = 15
_LIMIT = 1 << 30
"""Factors stay below this."""
_MAX_EXPONENT = 1000
_EXACT_BITS = 53
_CHUNK = 1 << 15
"""Elements predicted at once: the float64 product stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Factors:
    """A change `left @ right * 2**exponent`; both factors are integers in float64.

    `left` is rows × rank, `right` rank × columns; `order` is `sum` or `rounded`. The product,
    rounded to float32, is multiplied by `scaling` unless that is 1.
    """

    left: NDArray[np.float64]
    right: NDArray[np.float64]
    exponent: int
    order: str
    scaling: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the change."""
        return self.left.shape[0], self.right.shape[1]


class LowRank:
    """The update that stores two thin factors."""

    kind: ClassVar[str] = "low-rank"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Fit factors to the change; None where samples show none, or the dtype has no fit."""
        from git_theta_ext.updates.find_low_rank import find_factors

        if base is None or base.dtype != new.dtype or len(base) != len(new):
            return None
        factors = find_factors(spec, new, base)
        return None if factors is None else self.encode_factors(spec, new, base, factors)

    def encode_factors(
        self, spec: BlockSpec, new: Values, base: Values, factors: Factors
    ) -> Encoded:
        """The update with given factors, and what they miss."""
        predicted = predict(spec.dtype, base.copy(), factors)
        settings, parts = correction.encode(new, predicted, True)
        rank = factors.left.shape[1]
        settings.update(
            shape=list(factors.shape), rank=rank, exponent=factors.exponent, order=factors.order
        )
        if factors.scaling != 1.0:
            settings["scaling"] = factors.scaling
        for name, factor in (("left", factors.left), ("right", factors.right)):
            parts[name], shift = _pack(factor)
            if shift is not None:
                settings[f"{name}_shift"] = shift
        return Encoded(self.kind, build(self.kind, settings, parts), (("rank", str(rank)),))

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values; writes into `base`."""
        if base is None or spec.dtype.name not in DTYPES:
            raise CorruptObjectError(f"a low-rank change to a block of {spec.dtype.name}")
        factors = read_factors(parameters.settings, parameters.parts, len(base))
        values = predict(spec.dtype, base, factors)
        correction.apply(parameters.settings, parameters.parts, values, True)
        return values


def read_factors(
    settings: Mapping[str, Any], parts: Mapping[str, memoryview], count: int
) -> Factors:
    """The factors that a parameter file holds, for a block of `count` values.

    Raises:
        CorruptObjectError, KeyError, TypeError, ValueError: the file is damaged.
    """
    (rows, columns), rank = settings["shape"], settings["rank"]
    exponent, order = settings["exponent"], settings["order"]
    if not all(isinstance(number, int) for number in (rows, columns, rank, exponent)):
        raise CorruptObjectError("the shape of a low-rank change is damaged")
    if min(rows, columns) < 1 or rows * columns != count or not 1 <= rank <= limits.RANK:
        raise CorruptObjectError(
            f"a change of rank {rank}, {rows} × {columns}, does not fit a block of {count} values"
        )
    # Without this, a small file could make a large block of one row cost rank times its size.
    if rank > min(rows, columns):
        raise CorruptObjectError(f"rank {rank} of a matrix of {rows} × {columns}")
    if abs(exponent) > _MAX_EXPONENT or order not in ("sum", "rounded"):
        raise CorruptObjectError(f"exponent {exponent} or order {order!r} of a low-rank change")
    scaling = settings.get("scaling", 1.0)
    if not isinstance(scaling, float) or not math.isfinite(scaling):
        raise CorruptObjectError(f"a scaling of {scaling!r} of a low-rank change")
    left = _unpack(parts["left"], rows * rank, settings.get("left_shift"))
    right = _unpack(parts["right"], rank * columns, settings.get("right_shift"))
    return Factors(left.reshape(rows, rank), right.reshape(rank, columns), exponent, order, scaling)


def _pack(factor: NDArray[np.float64]) -> tuple[Part, int | None]:
    """A factor's integers; or their float32 bits without so many trailing zeros, if smaller.

    The second suits factors that were 16-bit floats: eight or eleven bits of each are not zero.
    """
    signed = factor.astype(np.int32).ravel().view(np.uint32)
    whole = compress_numbers(difference(signed, np.zeros_like(signed), False))
    floats = factor.astype(np.float32).ravel()
    if not np.array_equal(floats, factor.ravel()):
        return whole, None
    bits = floats.view(np.uint32)
    union = int(np.bitwise_or.reduce(bits))
    shift = (union & -union).bit_length() - 1 if union else 31
    short = compress_numbers(bits >> np.uint32(shift))
    return (short, shift) if len(short) < len(whole) else (whole, None)


def _unpack(stream: memoryview, count: int, shift: int | None) -> NDArray[np.float64]:
    coded: Values = np.empty(count, np.uint32)
    decompress_numbers(stream, coded)
    if shift is None:
        whole = move(coded, np.zeros_like(coded), False).view(np.int32).astype(np.float64)
    elif type(shift) is int and 0 <= shift < 32:
        with np.errstate(invalid="ignore"):
            whole = (coded << np.uint32(shift)).view(np.float32).astype(np.float64)
    else:
        raise CorruptObjectError(f"a shift of {shift!r} of a factor")
    # The negation is true of NaNs as well.
    if not (np.abs(whole) < _LIMIT).all() or not np.array_equal(whole, np.rint(whole)):
        raise CorruptObjectError("a factor of a low-rank change is out of its range")
    return whole


def is_low_rank(spec: BlockSpec, factors: Factors) -> bool:
    """Whether factors may be stored as a change of a block: dtype, exponent and rank."""
    rank = factors.left.shape[1]
    return (
        spec.dtype.name in DTYPES
        and 1 <= rank <= min(limits.RANK, *factors.shape)
        and -_MAX_EXPONENT <= factors.exponent <= _MAX_EXPONENT
    )


def exact_factors(
    left: NDArray[np.float32], right: NDArray[np.float32], order: str, scaling: float
) -> Factors | None:
    """Given factors as integers over powers of two, if they are that without rounding."""
    found = []
    exponent = 0
    for side in (left, right):
        bits = side.astype(np.float64)
        fraction, powers = np.frexp(bits[bits != 0])
        if not len(powers) or not np.isfinite(bits).all():
            return None
        # Of 24 bits of mantissa, those behind the last one that is set are no part of the number.
        digits = (fraction * 2.0**24).astype(np.int64)
        lowest = int((powers - 24 + np.log2(digits & -digits).astype(np.int64)).min())
        whole = np.ldexp(bits, -lowest)
        if float(np.abs(whole).max()) >= _LIMIT:
            return None
        found.append(whole)
        exponent += lowest
    return Factors(found[0], found[1], exponent, order, float(scaling))


# -- prediction ------------------------------------------------------------------------------------


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
    dtype: DType, values: Values, factors: Factors, product: type[_Product] | None = None
) -> Values:
    """Add the change to the values, in place, rounded in the order of the factors.

    `product` is how to multiply; by default the quick way, if that is exact here.
    """
    if product is None:
        product = _Product if library_is_exact() else _SlowProduct
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


class _Product:
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


class _SlowProduct(_Product):
    """The same without BLAS."""

    def _times(self, left: NDArray[np.float64], out: NDArray[np.float64]) -> NDArray[np.float64]:
        out.fill(0)
        for column, row in zip(left.T, self._right, strict=True):
            out += column[:, None] * row
        return out
