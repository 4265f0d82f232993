"""Differences of floats that are small where the floats are close: order-preserving integers.

The bits of an IEEE-like float (sign, exponent, mantissa) compare like sign-and-magnitude integers.
Mapped so that they compare like unsigned integers, neighbouring floats become neighbouring
integers, and the distance of two floats is the number of floats between them (units in the last
place). Differences are taken modulo 2^n and zigzag-coded, so every pair of bit patterns, NaNs and
-0.0 included, has one difference and comes back from it exactly.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.tensors import DType
from git_theta_ext.core.values import Values

SLICE = 65_536
"""Elements handled at once: temporaries stay in the processor's cache. Decoding whole tensors at
once ran at 188 MB/s, in slices of this size at 1,392 MB/s (benchmarks/coders.py)."""


def is_ordered(dtype: DType) -> bool:
    """Whether values of a dtype are floats, whose bits need the mapping; integers do not."""
    return dtype.kind in ("float", "complex")


def difference(
    new: Values, base: Values, floats: bool, out: Values | None = None, low: int = 0
) -> Values:
    """The zigzag-coded distance from `base` to `new`, element by element.

    Args:
        new, base: raw bits, flat, of one unsigned dtype.
        floats: whether the bits are floats'; else integers'.
        out: where to write it; a fresh array if it is None.
        low: how many of the lowest bits are zero in all of them, and are left out.
    """
    out = np.empty_like(new) if out is None else out
    if floats:
        first, second = _spare(new)
        _order(new, first)
        _order(base, second)
        if low:  # where the sign has changed, so have the low bits
            np.bitwise_and(first, _high(first, low), out=first)
            np.bitwise_and(second, _high(second, low), out=second)
        np.subtract(first, second, out=second)
    else:
        (second,) = _spare(new, 1)
        np.subtract(new, base, out=second)
    if low:
        np.right_shift(_signed(second), low, out=_signed(second))
    # Zigzag: the sign goes to the lowest bit.
    np.left_shift(second, second.dtype.type(1), out=out)
    _fill_with_sign(second, second)
    np.bitwise_xor(out, second, out=out)
    return out


def apply(
    difference: Values, base: Values, floats: bool, out: Values | None = None, low: int = 0
) -> Values:
    """The values at a zigzag-coded distance from `base`; undoes `difference` exactly.

    Args:
        difference: the distances.
        base: raw bits, flat, of the same unsigned dtype and length.
        floats: whether the bits are floats'; else integers'.
        out: where to write the values, which may be `base`; a fresh array if it is None.
        low: as for `difference`; these bits of `base` are zero.
    """
    out = np.empty_like(base) if out is None else out
    one = difference.dtype.type(1)
    step, other = _spare(difference)
    np.bitwise_and(difference, one, out=other)
    np.negative(other, out=other)
    np.right_shift(difference, one, out=step)
    np.bitwise_xor(step, other, out=step)
    if low:
        np.left_shift(step, step.dtype.type(low), out=step)
    if not floats:
        return np.add(base, step, out=out)
    _order(base, other)
    np.add(other, step, out=step)
    if low:  # where the sign has changed, so would the low bits
        np.bitwise_and(step, _high(step, low), out=step)
    _fill_with_sign(step, other)
    np.invert(other, out=other)
    np.bitwise_or(other, _top_bit(other), out=other)
    if low:
        np.bitwise_and(other, _high(other, low), out=other)
    return np.bitwise_xor(step, other, out=out)


def zeros_below(*arrays: Values) -> int:
    """How many of the lowest bits are zero in all values of some arrays of one dtype.

    0 where all bits are: there is nothing to leave out.
    """
    found = 0
    for piece in (slice(0, SLICE), slice(SLICE, None)):  # most are known by the first
        for values in arrays:
            found |= int(np.bitwise_or.reduce(values[piece]))
        if found & 1:
            return 0
    return (found & -found).bit_length() - 1 if found else 0


def _high(values: Values, low: int) -> np.unsignedinteger[Any]:
    """All bits of a value but the lowest."""
    bits = values.itemsize * 8
    mask: np.unsignedinteger[Any] = values.dtype.type((1 << bits) - (1 << low))
    return mask


def neighbours(values: Values) -> tuple[Values, Values]:
    """The next lower and the next higher float of each, -0.0 and 0.0 counting as two."""
    ordered, one = _ordered(values), values.dtype.type(1)
    return _disordered(ordered - one), _disordered(ordered + one)


def _signed(values: Values) -> NDArray[np.signedinteger[Any]]:
    return values.view(f"i{values.itemsize}")


def _fill_with_sign(values: Values, out: Values) -> None:
    """All ones where the top bit is set, else zero."""
    np.right_shift(_signed(values), values.itemsize * 8 - 1, out=_signed(out))


def _top_bit(values: Values) -> np.unsignedinteger[Any]:
    top: np.unsignedinteger[Any] = values.dtype.type(1 << (values.itemsize * 8 - 1))
    return top


def _order(values: Values, out: Values) -> None:
    """Negative: all bits flipped. Positive: only the sign bit."""
    _fill_with_sign(values, out)
    np.bitwise_or(out, _top_bit(out), out=out)
    np.bitwise_xor(out, values, out=out)


def _ordered(values: Values) -> Values:
    ordered = np.empty_like(values)
    _order(values, ordered)
    return ordered


def _disordered(values: Values) -> Values:
    mask = np.empty_like(values)
    _fill_with_sign(values, mask)
    np.invert(mask, out=mask)
    mask |= _top_bit(values)
    mask ^= values
    return mask


_kept = threading.local()


def _spare(like: Values, count: int = 2) -> list[Values]:
    """Arrays for intermediate results, of this thread and this call alone.

    Up to a slice they are used again: the C library would map new memory for each of them, and
    that takes longer than the arithmetic.
    """
    if len(like) > SLICE:
        return [np.empty_like(like) for _ in range(count)]
    if not hasattr(_kept, "bytes"):
        _kept.bytes = [np.empty(8 * SLICE, np.uint8) for _ in range(2)]
    return [room[: like.nbytes].view(like.dtype) for room in _kept.bytes[:count]]
