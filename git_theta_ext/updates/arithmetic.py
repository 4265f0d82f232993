"""Arithmetic on stored floats that gives the same bits on every machine.

Values are widened exactly (to float32, or float64 for F64), computed element by element, and
rounded back once, to nearest, ties to even. Where a result is NaN its payload would depend on the
machine, so the caller says which bits to take instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, BlockSpec, DType
from git_theta_ext.core.values import Values, as_floats
from git_theta_ext.updates.base import Part
from git_theta_ext.updates.residual import SLICE

Wide = NDArray[np.floating[Any]]
"""float32, or float64 for F64."""

_MANTISSA = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7, "F8_E4M3": 3, "F8_E5M2": 2,
             "F8_E4M3FNUZ": 3, "F8_E5M2FNUZ": 2}  # fmt: skip
_PARTS = {"C32": "F16", "C64": "F32", "C128": "F64"}
_CLEARLY = 0.99
"""What is hardly smaller is written so that every version can read it."""

_SMALLEST = np.array([1], np.uint32).view(np.float32)


def require_subnormals() -> None:
    """Refuse to compute in a thread whose processor turns the smallest numbers into zero.

    `torch.set_flush_denormal(True)` does that to NumPy as well: predictions would differ from those
    of every other process. Costs a microsecond.

    Raises:
        UsageError: it does.
    """
    if (_SMALLEST * np.float32(1)).view(np.uint32)[0] != 1:
        raise UsageError(
            "this thread flushes subnormal numbers to zero, so weights would come back changed",
            hint="call torch.set_flush_denormal(False) before reading or committing checkpoints",
        )


def component(dtype: DType) -> DType:
    """The dtype of one value: of the real and imaginary part if it is complex, else itself."""
    return DTYPES[_PARTS.get(dtype.name, dtype.name)]


def halves(spec: BlockSpec) -> BlockSpec:
    """A block of complex elements as one of real numbers, twice as many in each row; others as is.

    A product of complex matrices is one of real matrices then, of twice its rank.
    """
    if spec.dtype.kind != "complex":
        return spec
    *rows, last = spec.shape or (1,)
    return BlockSpec(component(spec.dtype), (*rows, 2 * last))


def apart(values: Values) -> Values:
    """Values of complex elements, all real parts first, then all imaginary ones; a fresh array."""
    return np.concatenate([values[0::2], values[1::2]])


def together(values: Values) -> Values:
    """Undo `apart`; a fresh array."""
    found = np.empty_like(values)
    count = len(values) // 2
    found[0::2], found[1::2] = values[:count], values[count:]
    return found


def smaller_apart(whole: Mapping[str, Part], parted: Mapping[str, Part]) -> bool:
    """Whether parts of real and imaginary values by themselves are clearly smaller."""
    sizes = [sum(map(_nbytes, parts.values())) for parts in (whole, parted)]
    return sizes[1] < _CLEARLY * sizes[0]


def _nbytes(part: Part) -> int:
    return len(part) if isinstance(part, bytes | bytearray) else part.nbytes


def mantissa_bits(dtype: DType) -> int | None:
    """Stored mantissa bits of a float dtype, or None for others."""
    return _MANTISSA.get(component(dtype).name)


def first_special(dtype: DType, bits: int) -> int:
    """The magnitude, as an integer of `bits` - 1 bits, from which on no number is finite."""
    name = component(dtype).name
    if name == "F8_E4M3":
        return 0x7F
    if name.endswith("FNUZ"):
        return 0x80
    return (1 << (bits - 1)) - (1 << (mantissa_bits(dtype) or 0))


def widen(dtype: DType, values: Values) -> Wide:
    """The numbers that raw bits stand for, exactly, in a fresh array."""
    name = component(dtype).name
    if name == "BF16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if name != "F64" and values.itemsize <= 2:
        return np.take(_numbers(name), values, mode="wrap")
    floats = as_floats(dtype, values)
    if floats is None:
        raise TypeError(f"{dtype.name} has no numbers to compute with")
    return floats.copy()


@cache
def _numbers(name: str) -> NDArray[np.float32]:
    """The number of every bit pattern: conversions one by one are slow where it is subnormal."""
    dtype = DTYPES[name]
    every = np.arange(1 << dtype.bits, dtype=np.uint32).astype(f"u{dtype.bits // 8}")
    floats = as_floats(dtype, every)
    if floats is None:
        raise TypeError(f"{name} has no numbers to compute with")
    with np.errstate(invalid="ignore"):
        return floats.astype(np.float32)


def narrow(dtype: DType, wide: Wide, instead_of_nan: Values) -> Values:
    """The raw bits of numbers rounded to a dtype; where that is NaN, the bits that are given."""
    name = component(dtype).name
    if name == "BF16":
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            bits = np.ascontiguousarray(wide, np.float32).view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        odd += np.uint32(0x7FFF)
        odd += bits
        odd >>= np.uint32(16)
        rounded: Values = odd.astype(np.uint16)
        nan = np.isnan(wide)
    elif name == "F16":
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            rounded = _to_half(np.ascontiguousarray(wide, np.float32))
        nan = np.isnan(wide)
    else:
        like = as_floats(dtype, instead_of_nan[:0])
        if like is None:
            raise TypeError(f"{dtype.name} has no numbers to compute with")
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            floats = wide.astype(like.dtype, copy=False)
        rounded = floats.view(instead_of_nan.dtype)
        nan = np.isnan(floats)
    if nan.any():
        rounded = np.where(nan, instead_of_nan, rounded)
    return rounded


_HALF_NORMAL, _HALF_OVERFLOW = np.uint32(0x38800000), np.uint32(0x477FF000)
"""The smallest normal half as a float32, and the smallest float32 that is rounded to infinity."""


def _to_half(numbers: NDArray[np.float32]) -> Values:
    """Rounded to float16, as NumPy does, whose own conversion takes 60 ns for a subnormal result.

    What NaNs become is arbitrary.
    """
    bits = numbers.view(np.uint32)
    size = bits & np.uint32(0x7FFFFFFF)
    # Adding a half leaves 24 bits of a subnormal half behind the point, rounded by the processor.
    tiny = (size.view(np.float32) + np.float32(0.5)).view(np.uint32)
    tiny -= np.uint32(0x3F000000)
    # Others: round to even where 13 bits are dropped, and move the exponent's bias by 112.
    half = size >> np.uint32(13)
    half &= np.uint32(1)
    half += np.uint32((0xFFF - (112 << 23)) % (1 << 32))
    half += size
    half >>= np.uint32(13)
    np.copyto(half, tiny, where=size < _HALF_NORMAL)
    np.copyto(half, np.uint32(0x7C00), where=size >= _HALF_OVERFLOW)
    np.right_shift(bits, np.uint32(16), out=tiny)
    tiny &= np.uint32(0x8000)
    half |= tiny
    return half.astype(np.uint16)


def pieces(count: int, unit: int = 1) -> list[slice]:
    """Ranges of whole runs of `unit` values, of about SLICE values each, that cover `count`."""
    step = max(1, SLICE // unit) * unit
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
