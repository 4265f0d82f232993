"""The factors of a low-rank change: whole numbers over a common power of two, and their storage.

Their products and sums stay below 2^53, so float64 holds them exactly and any BLAS, whatever its
order of operations, gives the same bits; factors too wide for that are split into halves first
(`prediction`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.base import Part
from git_theta_ext.updates.coders import compress_numbers, decompress_numbers
from git_theta_ext.updates.residual import apply as move
from git_theta_ext.updates.residual import difference

DTYPES = frozenset({"F64", "F32", "BF16", "F16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ",
                    "F8_E5M2FNUZ"})  # fmt: skip
"""Real floats; others have no fit."""
_LIMIT = 1 << 30
"""Factors stay below this."""
_MAX_EXPONENT = 1000
_WIDTH = 29
"""Bits of the largest integer of a factor that is rounded to them."""


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


def pack(factor: NDArray[np.float64]) -> tuple[Part, int | None]:
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
    """Given factors as integers over powers of two, if they are that without rounding.

    None where one is zero everywhere or not finite, or its integers would reach 2^30.

    Args:
        left: rows × rank.
        right: rank × columns.
        order: how the sum is rounded, `sum` or `rounded`.
        scaling: the number by which the product, rounded to float32, is multiplied.
    """
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


# -- a trainer's own factors -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trained:
    """Factors as a trainer saved them, of float32, and the scaling of their product."""

    left: NDArray[np.float32]
    right: NDArray[np.float32]
    scaling: float


def nearest_factors(trained: Trained, order: str) -> tuple[Factors, int] | None:
    """The integers nearest to given factors, and the exponent of the left one.

    None where a factor is zero everywhere, or not finite.
    """
    found, exponents = [], []
    for side in (trained.left, trained.right):
        top = float(np.abs(side).max(initial=0))
        if not 0 < top < math.inf:
            return None
        exponents.append(int(np.frexp(top)[1]) - _WIDTH)
        # Integers have no -0: plus zero makes it zero.
        found.append(np.rint(np.ldexp(side.astype(np.float64), -exponents[-1])) + 0.0)
    return (
        Factors(found[0], found[1], sum(exponents), order, float(trained.scaling)),
        exponents[0],
    )


def rest_parts(
    factors: Factors, left_exponent: int, trained: Trained
) -> tuple[dict[str, Any], dict[str, Part]]:
    """What leads from the integers back to the trainer's numbers: settings and parts.

    Distances in float32 numbers, most of them zero. Decoding a block does not need them.
    """
    parts: dict[str, Part] = {}
    sides = _as_floats(factors, left_exponent)
    for name, near, true in zip(
        ("left_rest", "right_rest"), sides, (trained.left, trained.right), strict=True
    ):
        bits = np.ascontiguousarray(true).view(np.uint32).ravel()
        parts[name] = compress_numbers(difference(bits, near.view(np.uint32).ravel(), True))
    return {"left_exponent": left_exponent}, parts


def read_trained(
    settings: Mapping[str, Any], parts: Mapping[str, memoryview], factors: Factors
) -> Trained | None:
    """The trainer's factors that a parameter file holds; None where it holds none.

    Raises:
        CorruptObjectError, KeyError, TypeError, ValueError: the file is damaged.
    """
    if "left_rest" not in parts:
        return None
    exponent = settings["left_exponent"]
    if type(exponent) is not int or abs(exponent) > 2 * _MAX_EXPONENT:
        raise CorruptObjectError(f"an exponent of {exponent!r} of a factor")
    sides = []
    for name, near in zip(("left_rest", "right_rest"), _as_floats(factors, exponent), strict=True):
        coded: Values = np.empty(near.size, np.uint32)
        decompress_numbers(parts[name], coded)
        bits = move(coded, near.view(np.uint32).ravel(), True)
        sides.append(bits.view(np.float32).reshape(near.shape))
    return Trained(sides[0], sides[1], factors.scaling)


def _as_floats(factors: Factors, left_exponent: int) -> tuple[NDArray[np.float32], ...]:
    """Both factors, rounded to float32."""
    exponents = (left_exponent, factors.exponent - left_exponent)
    with np.errstate(over="ignore", under="ignore"):
        return tuple(
            np.ascontiguousarray(np.ldexp(side, power).astype(np.float32))
            for side, power in zip((factors.left, factors.right), exponents, strict=True)
        )
