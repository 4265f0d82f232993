"""Differences of floats that are small where the floats are close: order-preserving integers.

The bits of an IEEE-like float (sign, exponent, mantissa) compare like sign-and-magnitude integers.
Mapped so that they compare like unsigned integers, neighbouring floats become neighbouring
integers, and the distance of two floats is the number of floats between them (units in the last
place). Differences are taken modulo 2^n and zigzag-coded, so every pair of bit patterns, NaNs and
-0.0 included, has one difference and comes back from it exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.tensors import DType
from git_theta_ext.updates.base import Values

SLICE = 65_536
"""Elements handled at once: temporaries stay in the processor's cache. Decoding whole tensors at
once ran at 188 MB/s, in slices of this size at 1,392 MB/s (benchmarks/coders.py)."""


def is_ordered(dtype: DType) -> bool:
    """Whether values of a dtype are floats, whose bits need the mapping; integers do not."""
    return dtype.kind in ("float", "complex")


def difference(new: Values, base: Values, floats: bool) -> Values:
    """The zigzag-coded distance from `base` to `new`, element by element.

    Args:
        new, base: raw bits, flat, of one unsigned dtype.
        floats: whether the bits are floats'; else integers'.
    """
    if floats:
        new, base = _ordered(new), _ordered(base)
    return _zigzag(new - base)


def apply(difference: Values, base: Values, floats: bool) -> Values:
    """The values at a zigzag-coded distance from `base`; undoes `difference` exactly."""
    step = _unzigzag(difference)
    if not floats:
        return base + step
    return _disordered(_ordered(base) + step)


def neighbours(values: Values) -> tuple[Values, Values]:
    """The next lower and the next higher float of each, -0.0 and 0.0 counting as two."""
    ordered, one = _ordered(values), values.dtype.type(1)
    return _disordered(ordered - one), _disordered(ordered + one)


def _signed(values: Values) -> NDArray[np.signedinteger[Any]]:
    return values.view(f"i{values.itemsize}")


def _sign_fill(values: Values) -> Values:
    """All ones where the top bit is set, else zero."""
    fill: Values = (_signed(values) >> (values.itemsize * 8 - 1)).view(values.dtype)
    return fill


def _top_bit(values: Values) -> np.unsignedinteger[Any]:
    top: np.unsignedinteger[Any] = values.dtype.type(1 << (values.itemsize * 8 - 1))
    return top


def _ordered(values: Values) -> Values:
    """Negative: all bits flipped. Positive: only the sign bit."""
    mask = _sign_fill(values)
    mask |= _top_bit(values)
    mask ^= values
    return mask


def _disordered(values: Values) -> Values:
    mask = _sign_fill(values)
    np.invert(mask, out=mask)
    mask |= _top_bit(values)
    mask ^= values
    return mask


def _zigzag(values: Values) -> Values:
    coded = _sign_fill(values)
    coded ^= values << values.dtype.type(1)
    return coded


def _unzigzag(values: Values) -> Values:
    one = values.dtype.type(1)
    sign = values & one
    np.negative(sign, out=sign)
    sign ^= values >> one
    return sign
