"""`scale`: predicts that every row, or every column, was multiplied by one number.

IA3 (Liu and others, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", 2022) does this when it is merged, and so does rescaling a layer. Each entry, being
rounded, allows an interval of multipliers; a row's multiplier lies in the intersection.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values, raw_bytes
from git_theta_ext.updates import correction
from git_theta_ext.updates.arithmetic import mantissa_bits, narrow, pieces, widen
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.coders import compress_numbers, decompress_numbers
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import apply as move
from git_theta_ext.updates.residual import difference, is_ordered, neighbours

_ROWS, _COLUMNS = 0, 1
_GLANCE = 64
"""Entries of a row that are looked at before the whole block is."""


class Scale:
    """The update that stores one multiplier for each row or column."""

    kind: ClassVar[str] = "scale"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Store the multipliers and what they miss; None where samples show no common ratio."""
        if base is None or base.dtype != new.dtype or len(base) != len(new) or not len(new):
            return None
        if mantissa_bits(spec.dtype) is None:
            return None
        shape = _matrix(spec, len(new))
        for axis in (_ROWS, _COLUMNS):
            if not _looks_scaled(spec.dtype, new, base, shape, axis):
                continue
            factors = find_factors(spec.dtype, new, base, shape, axis)
            return self.encode_factors(spec, new, base, factors, axis)
        return None

    def encode_factors(
        self,
        spec: BlockSpec,
        new: Values,
        base: Values,
        factors: NDArray[Any],
        axis: int,
    ) -> Encoded:
        """The update with given multipliers, and what they miss.

        Args:
            spec: what the block is, of a float or complex dtype.
            new, base: its raw bits and its predecessor's, flat, of one dtype and length.
            factors: float32 (float64 for F64 and C128), one for each row or column.
            axis: 0 if they are of the rows, the block's first axis in memory; 1 if they are of the
                columns, all other axes.
        """
        shape = _matrix(spec, len(new))
        predicted = predict(spec.dtype, base.copy(), factors, shape, axis)
        settings, parts = correction.encode(new, predicted, is_ordered(spec.dtype))
        settings.update(shape=shape, axis=axis)
        parts["factors"] = pack_factors(factors)
        info = (("factors", str(len(factors))),)
        return Encoded(self.kind, build(self.kind, settings, parts), info)

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values; writes into `base`."""
        if base is None:
            raise CorruptObjectError(f"multipliers do not fit a block of {spec.dtype.name}")
        factors, shape, axis = read_factors(spec, parameters, len(base))
        values = predict(spec.dtype, base, factors, shape, axis)
        correction.apply(parameters.settings, parameters.parts, values, is_ordered(spec.dtype))
        return values


def read_factors(
    spec: BlockSpec, parameters: Parameters, count: int
) -> tuple[NDArray[Any], tuple[int, int], int]:
    """The multipliers that a parameter file holds, the shape of the matrix, and their axis.

    Args:
        spec: what the block is.
        parameters: of kind `scale`.
        count: how many values the block has.

    Raises:
        CorruptObjectError, KeyError, TypeError, ValueError: the file is damaged.
    """
    shape, axis = parameters.settings["shape"], parameters.settings["axis"]
    if mantissa_bits(spec.dtype) is None or axis not in (_ROWS, _COLUMNS):
        raise CorruptObjectError(f"multipliers do not fit a block of {spec.dtype.name}")
    if not _fits(shape, count):
        raise CorruptObjectError(f"a matrix of {shape!r} is no block of {count} values")
    factors = unpack_factors(parameters.parts["factors"], shape[axis], _factor_dtype(spec.dtype))
    return factors, (shape[0], shape[1]), axis


def _fits(shape: Any, count: int) -> bool:
    """Whether settings give the shape of a matrix with so many values."""
    return (
        isinstance(shape, list)
        and len(shape) == 2
        and all(isinstance(extent, int) and extent > 0 for extent in shape)
        and shape[0] * shape[1] == count
    )


def _matrix(spec: BlockSpec, count: int) -> tuple[int, int]:
    """Rows and columns: the first axis in memory against the rest, or one row."""
    rows = spec.shape[0] if len(spec.shape) > 1 else 1
    return rows, count // rows


def _factor_dtype(dtype: DType) -> np.dtype[Any]:
    return np.dtype("<f8" if mantissa_bits(dtype) == 52 else "<f4")


def predict(
    dtype: DType, values: Values, factors: NDArray[Any], shape: tuple[int, int], axis: int
) -> Values:
    """Multiply rows or columns, each product rounded once more to the dtype, in place.

    Args:
        dtype: a float or complex dtype.
        values: raw bits, flat, row after row.
        factors: float32 (float64 for F64 and C128), as many as there are rows or columns.
        shape: rows and columns.
        axis: 0 to multiply rows, 1 to multiply columns.

    Returns:
        The same array `values`.
    """
    columns = shape[1]
    for piece in pieces(len(values), columns if columns <= 1 << 20 else 1):
        old = values[piece]
        wide = widen(dtype, old)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            if axis == _ROWS and columns <= 1 << 20:
                part = factors[piece.start // columns : piece.stop // columns]
                wide.reshape(-1, columns)[:] *= part[:, None]
            elif axis == _COLUMNS and columns <= 1 << 20:
                wide.reshape(-1, columns)[:] *= factors
            else:
                places = np.arange(piece.start, piece.stop)
                wide *= factors[places // columns if axis == _ROWS else places % columns]
        values[piece] = narrow(dtype, wide, old)
    return values


# -- finding ---------------------------------------------------------------------------------------


def _bounds(dtype: DType, new: Values, base: Values) -> tuple[NDArray[Any], NDArray[Any]]:
    """The multipliers, smallest and largest, that make `new` of `base` when rounded (float64).

    Where an entry says nothing (zero, not finite), from minus to plus infinity.
    """
    low, high = neighbours(new)
    with np.errstate(all="ignore"):
        value, below, above = (widen(dtype, side).astype(np.float64) for side in (new, low, high))
        old = widen(dtype, base).astype(np.float64)
        first, last = (value + below) / 2 / old, (value + above) / 2 / old
    low_factor, high_factor = np.minimum(first, last), np.maximum(first, last)
    silent = ~np.isfinite(low_factor) | ~np.isfinite(high_factor) | (value == 0)
    low_factor[silent], high_factor[silent] = -np.inf, np.inf
    return low_factor, high_factor


def _looks_scaled(
    dtype: DType, new: Values, base: Values, shape: tuple[int, int], axis: int
) -> bool:
    """Whether most of a few rows (or columns) have a multiplier that suits all entries seen."""
    lines = sorted({shape[axis] * part // 8 for part in range(8)})
    across = min(shape[1 - axis], _GLANCE)
    if across < 4:
        return False
    places = np.arange(across) * shape[1 - axis] // across
    if axis == _ROWS:
        index = np.array(lines)[:, None] * shape[1] + places
    else:
        index = places * shape[1] + np.array(lines)[:, None]
    now, then = new[index].ravel(), base[index].ravel()
    if 4 * np.count_nonzero(now != then) < len(now):
        return False
    low, high = (side.reshape(index.shape) for side in _bounds(dtype, now, then))
    slack = 2.0**-40
    fits = low.max(axis=1) <= high.min(axis=1) * (1 + slack) + slack * slack
    said = np.isfinite(low).any(axis=1)
    return bool(said.any()) and 2 * int(np.count_nonzero(fits & said)) >= int(
        np.count_nonzero(said)
    )


def find_factors(
    dtype: DType, new: Values, base: Values, shape: tuple[int, int], axis: int
) -> NDArray[Any]:
    """The middle of the multipliers that suit every entry of a row (or column).

    Rounded to the block's own dtype where that suits as well: it is shorter to store. It is 1 where
    no entry tells one.

    Args:
        dtype: a float or complex dtype.
        new, base: raw bits, flat, of one dtype and length, row after row.
        shape: rows and columns.
        axis: 0 for a multiplier of each row, 1 of each column.

    Returns:
        Float32 (float64 for F64 and C128), as many as there are rows or columns.
    """
    rows, columns = shape
    low, high = np.full(shape[axis], -np.inf), np.full(shape[axis], np.inf)
    step = max(1, (1 << 18) // columns)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        part = slice(start * columns, stop * columns)
        bottom, top = (side.reshape(-1, columns) for side in _bounds(dtype, new[part], base[part]))
        if axis == _ROWS:
            low[start:stop], high[start:stop] = bottom.max(axis=1), top.min(axis=1)
        else:
            np.maximum(low, bottom.max(axis=0), out=low)
            np.minimum(high, top.min(axis=0), out=high)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        middle = (low + high) / 2
        factors: NDArray[Any] = middle.astype(_factor_dtype(dtype))
    factors[~np.isfinite(factors)] = 1
    unsigned: Values = np.zeros(len(factors), new.dtype)
    short = widen(dtype, narrow(dtype, factors, unsigned)).astype(factors.dtype)
    suits = (short >= low) & (short <= high) & (short != 0)
    return np.where(suits, short, factors)


# -- storing ---------------------------------------------------------------------------------------


def pack_factors(factors: NDArray[Any]) -> bytes:
    """Multipliers as distances in ulps from the first one; equal ones cost next to nothing."""
    bits: Values = factors.view(f"u{factors.itemsize}")
    coded = difference(bits, np.full_like(bits, bits[0]), True)
    packed = bits[:1].tobytes() + compress_numbers(coded)
    return packed if len(packed) < bits.nbytes else bytes(raw_bytes(bits))


def unpack_factors(data: memoryview, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The multipliers that `pack_factors` packed.

    Raises:
        CorruptObjectError: they are not as many.
    """
    unsigned = np.dtype(f"<u{dtype.itemsize}")
    if len(data) == count * dtype.itemsize:
        return np.frombuffer(data, dtype)
    coded: Values = np.empty(count, unsigned)
    decompress_numbers(data[dtype.itemsize :], coded)
    first = np.frombuffer(data[: dtype.itemsize], unsigned)
    if len(first) != 1:
        raise CorruptObjectError("the multipliers are cut short")
    return move(coded, np.full(count, first[0], unsigned), True).view(dtype)
