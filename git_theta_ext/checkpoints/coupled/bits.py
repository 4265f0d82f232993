"""Codes of a few bits out of words and bytes, and floats of less than a byte or of one."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]
Numbers = NDArray[np.float32]

_HALVES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1: Numbers = np.array([*_HALVES, *(-one for one in _HALVES)], np.float32)
"""Numbers of four bits. Source: OCP Microscaling Formats 1.0, table 4."""


def unpack(words: NDArray[Any], bits: int, count: int) -> Codes:
    """Codes that follow each other from the lowest bit of the first word or byte on.

    Args:
        words: unsigned integers, little-endian, [rows, words of a row].
        bits: of a code, up to 8.
        count: codes of a row.

    Returns:
        uint8, [rows, count].
    """
    bytes_ = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1)
    if bits == 8:
        return bytes_[:, :count]
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        parts = (bytes_[:, :, None] >> shifts) & np.uint8((1 << bits) - 1)
        return parts.reshape(len(words), -1)[:, :count]
    flat = np.unpackbits(bytes_, axis=1, count=count * bits, bitorder="little")
    weights = (1 << np.arange(bits)).astype(np.uint8)
    codes: Codes = (flat.reshape(len(words), count, bits) * weights).sum(axis=2, dtype=np.uint8)
    return codes


def powers(exponents: NDArray[np.uint8]) -> Numbers:
    """E8M0: 2 to the power of each less 127; 255 is NaN. Source: the same, table 7."""
    found: Numbers = exponents.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    return found


def e4m3(values: NDArray[np.uint8]) -> Numbers:
    """Floats of 8 bits, four of them exponent."""
    with np.errstate(invalid="ignore"):
        found: Numbers = values.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return found
