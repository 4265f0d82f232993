"""A trainer's float32 numbers, kept to the bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.values import Values, raw_bytes
from git_theta_ext.updates.base import Part
from git_theta_ext.updates.coders import compress_numbers, decompress_numbers

Numbers = NDArray[np.float32]

_BITS = 32


def pack(numbers: Numbers) -> Part:
    """A byte that says how many of the lowest bits are zero in all, then the rest of their bits.

    The sign is moved to the lowest place, which puts the exponent into the highest byte. Raw where
    that is no longer: the length tells which.
    """
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32).ravel()
    union = int(np.bitwise_or.reduce(bits, initial=0))
    shift = (union & -union).bit_length() - 1 if union else 0
    short = bits >> np.uint32(shift)
    sign = bits >> np.uint32(_BITS - 1)
    coded = ((short << np.uint32(1)) & _mask(shift)) | sign
    packed = bytes([shift]) + compress_numbers(coded)
    return packed if len(packed) < bits.nbytes else bytes(raw_bytes(bits))


def unpack(data: memoryview, shape: tuple[int, ...]) -> Numbers:
    """The numbers that `pack` packed, of a shape that the caller has found to be a sane one.

    Raises:
        CorruptObjectError: they are not as many.
    """
    count = math.prod(shape)
    if len(data) == 4 * count:
        return np.frombuffer(data, "<f4").reshape(shape)
    if not len(data) or data[0] >= _BITS:
        raise CorruptObjectError("the numbers of an update are cut short")
    shift = data[0]
    coded: Values = np.empty(count, np.uint32)
    decompress_numbers(data[1:], coded)
    sign: NDArray[Any] = (coded & np.uint32(1)) << np.uint32(_BITS - 1)
    rest = (coded >> np.uint32(1)) << np.uint32(shift)
    bits: Values = (rest & np.uint32(0x7FFFFFFF)) | sign
    return bits.view(np.float32).reshape(shape)


def rounded(numbers: Numbers, bits: int) -> Numbers:
    """The nearest numbers of so many bits of mantissa, which are stored without the others."""
    drop = 24 - bits
    if drop <= 0 or not np.isfinite(numbers).all():
        return numbers
    patterns = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    odd = (patterns >> np.uint32(drop)) & np.uint32(1)
    found: Values = patterns + odd + np.uint32((1 << (drop - 1)) - 1)
    found &= np.uint32(0xFFFFFFFF ^ ((1 << drop) - 1))
    return found.view(np.float32)


def _mask(shift: int) -> np.uint32:
    """All bits that are left when so many were dropped."""
    return np.uint32((1 << (_BITS - shift)) - 1)


def whole(settings: Any, name: str, least: int = 1, most: int | None = None) -> int:
    """A setting that is a whole number.

    Args:
        settings: of a parameter file, or a part of these.
        name: of the setting.
        least, most: between which it is.

    Raises:
        CorruptObjectError: it is none, or out of its range.
    """
    found = settings[name]
    if type(found) is not int or found < least or (most is not None and found > most):
        raise CorruptObjectError(f"a setting {name} of {found!r}")
    return found
