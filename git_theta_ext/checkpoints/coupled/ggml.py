"""The numbers that blocks of GGUF's types stand for. Source: ggml's `dequantize_row_*`.

Each function takes the bytes of some blocks, uint8 of [blocks, bytes], and gives float32 of
[blocks, elements]. The IQ types with a grid of their own are known by name only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.coupled.bits import E2M1, powers

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.float32]

_NIBBLES = np.array([0, 4], np.uint8)[:, None]
_PAIRS = np.array([0, 2, 4, 6], np.uint8)[:, None]
_SINGLES = np.arange(8, dtype=np.uint8)[:, None]
_IQ4 = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)  # fmt: skip
"""`kvalues_iq4nl`."""


def _half(data: Bytes) -> Numbers:
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _split(data: Bytes, *lengths: int) -> list[Bytes]:
    """Neighbouring columns of these lengths, and what is left."""
    return np.split(data, np.cumsum(lengths), axis=1)


def _spread(data: Bytes, run: int, shifts: NDArray[np.uint8], mask: int) -> Bytes:
    """Codes of runs of bytes: those in the lowest bits of a run first, then those above them."""
    parts = data.reshape(len(data), -1, 1, run) >> shifts
    return (parts & np.uint8(mask)).reshape(len(data), -1)


def _signed(data: Bytes) -> NDArray[np.int8]:
    return np.ascontiguousarray(data).view(np.int8)


def _q8_0(data: Bytes) -> Numbers:
    scale, codes = _split(data, 2)
    return _half(scale) * _signed(codes)


def _q4_0(data: Bytes) -> Numbers:
    scale, codes = _split(data, 2)
    return _half(scale) * (_spread(codes, 16, _NIBBLES, 15).astype(np.float32) - 8)


def _q4_1(data: Bytes) -> Numbers:
    scale, low, codes = _split(data, 2, 2)
    return _half(scale) * _spread(codes, 16, _NIBBLES, 15) + _half(low)


def _fifth(codes: Bytes, bits: Bytes) -> Numbers:
    top = np.unpackbits(np.ascontiguousarray(bits), axis=1, bitorder="little")
    return (_spread(codes, 16, _NIBBLES, 15) | top << 4).astype(np.float32)


def _q5_0(data: Bytes) -> Numbers:
    scale, bits, codes = _split(data, 2, 4)
    return _half(scale) * (_fifth(codes, bits) - 16)


def _q5_1(data: Bytes) -> Numbers:
    scale, low, bits, codes = _split(data, 2, 2, 4)
    return _half(scale) * _fifth(codes, bits) + _half(low)


def _iq4_nl(data: Bytes) -> Numbers:
    scale, codes = _split(data, 2)
    return _half(scale) * _IQ4[_spread(codes, 16, _NIBBLES, 15)]


def _iq4_xs(data: Bytes) -> Numbers:
    scale, high, low, codes = _split(data, 2, 2, 4)
    top = np.ascontiguousarray(high).view("<u2") >> (2 * np.arange(8, dtype=np.uint16)) & 3
    steps = (_spread(low, 1, _NIBBLES, 15) | top << 4).astype(np.float32) - 32
    numbers = _IQ4[_spread(codes, 16, _NIBBLES, 15)].reshape(len(data), 8, 32)
    return ((_half(scale) * steps)[:, :, None] * numbers).reshape(len(data), 256)


def _mxfp4(data: Bytes) -> Numbers:
    exponents, codes = _split(data, 1)
    return powers(np.ascontiguousarray(exponents)) * E2M1[_spread(codes, 16, _NIBBLES, 15)]


def _blended(scale: Numbers, codes: Any, low: Numbers) -> Numbers:
    """Scales and minima, one for a run of codes each."""
    runs = codes.reshape(len(scale), scale.shape[1], -1).astype(np.float32)
    found: Numbers = (scale[:, :, None] * runs - low[:, :, None]).reshape(len(scale), -1)
    return found


def _q2_k(data: Bytes) -> Numbers:
    scales, codes, whole, low = _split(data, 16, 64, 2)
    found = _spread(codes, 32, _PAIRS, 3)
    return _blended(_half(whole) * (scales & 15), found, _half(low) * (scales >> 4))


def _q3_k(data: Bytes) -> Numbers:
    masks, codes, scales, whole = _split(data, 32, 64, 12)
    low = _spread(scales[:, :8], 8, _NIBBLES, 15)
    steps = (low | _spread(scales[:, 8:], 4, _PAIRS, 3) << 4).astype(np.float32) - 32
    found = _spread(codes, 32, _PAIRS, 3).astype(np.float32)
    found -= 4 * (1 - _spread(masks, 32, _SINGLES, 1).astype(np.float32))
    scale = _half(whole) * steps
    return _blended(scale, found, np.zeros_like(scale))


def _six_bits(scales: Bytes) -> tuple[Bytes, Bytes]:
    """Eight scales and eight minima of six bits each out of twelve bytes."""
    first, second, third = _split(scales, 4, 4)
    scale = [first & 63, third & 15 | first >> 2 & 48]
    low = [second & 63, third >> 4 | second >> 2 & 48]
    return np.concatenate(scale, axis=1), np.concatenate(low, axis=1)


def _q4_k(data: Bytes) -> Numbers:
    whole, low, scales, codes = _split(data, 2, 2, 12)
    steps, minima = _six_bits(scales)
    found = _spread(codes, 32, _NIBBLES, 15)
    return _blended(_half(whole) * steps, found, _half(low) * minima)


def _q5_k(data: Bytes) -> Numbers:
    whole, low, scales, bits, codes = _split(data, 2, 2, 12, 32)
    steps, minima = _six_bits(scales)
    found = _spread(codes, 32, _NIBBLES, 15) | _spread(bits, 32, _SINGLES, 1) << 4
    return _blended(_half(whole) * steps, found, _half(low) * minima)


def _q6_k(data: Bytes) -> Numbers:
    low, high, scales, whole = _split(data, 128, 64, 16)
    found = _spread(low, 64, _NIBBLES, 15) | _spread(high, 32, _PAIRS, 3) << 4
    scale = _half(whole) * _signed(scales)
    return _blended(scale, found.astype(np.float32) - 32, np.zeros_like(scale))


def _tq1_0(data: Bytes) -> Numbers:
    """Five digits of three in a byte, of which the highest comes first."""
    first, second, third, scale = _split(data, 32, 16, 4)
    digits = [
        (part[:, None] * np.array(factors, np.uint8)[:, None]).reshape(len(data), -1)
        for part, factors in (
            (first, (1, 3, 9, 27, 81)), (second, (1, 3, 9, 27, 81)), (third, (1, 3, 9, 27))
        )
    ]  # fmt: skip
    found = (np.concatenate(digits, axis=1).astype(np.uint16) * 3 >> 8).astype(np.float32)
    return _half(scale) * (found - 1)


def _tq2_0(data: Bytes) -> Numbers:
    codes, scale = _split(data, 64)
    return _half(scale) * (_spread(codes, 32, _PAIRS, 3).astype(np.float32) - 1)


DECODE: dict[str, Callable[[Bytes], Numbers]] = {
    "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q2_K": _q2_k,
    "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k, "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs, "MXFP4": _mxfp4, "TQ1_0": _tq1_0, "TQ2_0": _tq2_0,
}  # fmt: skip
"""By the name of the type."""
