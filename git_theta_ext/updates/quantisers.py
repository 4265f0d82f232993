"""The quantisers of ggml whose result follows from the values alone, in arithmetic that is fixed.

Each takes blocks of 32 float32 numbers and gives the bytes of as many blocks. Source: the reference
quantisers in ggml's ggml-quants.c (`quantize_row_q8_0_ref` and its siblings), and gguf-py's
`gguf/quants.py`. K-quants search for their scales, so that their result is no simple function.

What both leave to the machine is settled here: a block with a number that is not finite, or from
2^126 on, counts as zeros; an inverse that is not finite is 0; an extreme of -0.0 is 0.0. A compiler
may join a product and a sum into one rounding (`fused`): it does where ggml is built for AVX2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.tensors import DTYPES
from git_theta_ext.updates.arithmetic import narrow

ELEMENTS = 32
"""Numbers in a block."""
FLOATS = ("F32", "F16", "BF16")
"""What is quantised: types that float32 holds exactly."""
_LARGEST = np.float32(2.0**126)

Numbers = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Quantiser:
    """One type: bits of a code, bytes of a block, and whether a block has a minimum of its own."""

    name: str
    bits: int
    size: int
    minimum: bool = False


QUANTISERS: Mapping[str, Quantiser] = MappingProxyType({
    one.name: one
    for one in (
        Quantiser("Q8_0", 8, 34),
        Quantiser("Q4_0", 4, 18),
        Quantiser("Q4_1", 4, 20, minimum=True),
        Quantiser("Q5_0", 5, 22),
        Quantiser("Q5_1", 5, 24, minimum=True),
    )
})  # fmt: skip
BY_SIZE: Mapping[int, Quantiser] = MappingProxyType({one.size: one for one in QUANTISERS.values()})
"""By the bytes of a block (IQ4_NL has blocks of 18, too: its values tell it)."""


def quantise(kind: Quantiser, numbers: Numbers, *, fused: bool) -> Bytes:
    """The bytes of blocks, one row for each.

    Args:
        kind: the type.
        numbers: float32, shape [blocks, 32].
        fused: round the product and the half that is added to it once, as one operation.
            `Q8_0` adds none.

    Returns:
        uint8, shape [blocks, bytes of a block].
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
        fits = (np.abs(numbers) < _LARGEST).all(axis=1, keepdims=True)
        numbers = np.where(fits, numbers, np.float32(0))
        if kind.bits == 8:
            return _symmetric_bytes(numbers)
        low = np.zeros((len(numbers), 1), np.float32)
        if kind.minimum:
            low = _without_sign(numbers.min(axis=1, keepdims=True))
            high = _without_sign(numbers.max(axis=1, keepdims=True))
            scale = (high - low) / np.float32(2**kind.bits - 1)
            codes = _codes(numbers - low, _inverse(scale), 0.5, fused)
        else:
            half = 2 ** (kind.bits - 1)
            places = np.abs(numbers).argmax(axis=1)[:, None]
            scale = _without_sign(np.take_along_axis(numbers, places, 1)) / np.float32(-half)
            codes = _codes(numbers, _inverse(scale), half + 0.5, fused)
        codes = np.clip(codes, 0, 2**kind.bits - 1)
    heads = [_half(scale), *([_half(low)] if kind.minimum else [])]
    if kind.bits == 5:
        heads.append(np.packbits(codes >> 4, axis=1, bitorder="little"))
    packed = (codes[:, :16] & 15) | (codes[:, 16:] & 15) << 4
    return np.concatenate([*heads, packed], axis=1)


def _symmetric_bytes(numbers: Numbers) -> Bytes:
    """Codes of 8 bits, rounded to nearest, halves away from zero."""
    scale = np.abs(numbers).max(axis=1, keepdims=True) / np.float32(127)
    wanted = numbers * _inverse(scale)
    size = np.abs(wanted)
    whole = np.floor(size)
    whole += size - whole >= np.float32(0.5)
    codes = np.copysign(np.minimum(whole, np.float32(127)), wanted).astype(np.int8)
    return np.concatenate([_half(scale), codes.view(np.uint8)], axis=1)


def _inverse(scale: Numbers) -> Numbers:
    inverse = np.float32(1) / scale
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def _without_sign(numbers: Numbers) -> Numbers:
    """The same numbers, 0.0 for -0.0."""
    return numbers + np.float32(0)


def _codes(numbers: Numbers, inverse: Numbers, shift: float, fused: bool) -> Bytes:
    """The whole part of a product and a shift that makes it positive."""
    if fused:
        exact = numbers.astype(np.float64) * inverse.astype(np.float64)
        return (exact + shift).astype(np.float32).astype(np.uint8)
    return (numbers * inverse + np.float32(shift)).astype(np.uint8)


def _half(numbers: Numbers) -> Bytes:
    """float32 of shape [blocks, 1] as the two bytes of float16 each."""
    flat: NDArray[Any] = np.ascontiguousarray(numbers).ravel()
    bits = narrow(DTYPES["F16"], flat, np.zeros(len(flat), np.uint16))
    return np.ascontiguousarray(bits, "<u2").view(np.uint8).reshape(-1, 2)
