"""`step`: predicts that magnitudes moved by whole ulps that depend on their leading mantissa bits.

Weight decay does this to rows that saw no gradient: it multiplies by nearly one in many rounded
steps, and every step moves a value by a number of ulps that its mantissa decides. One product
cannot express that; a table of the most frequent move for each value of the leading bits does.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values, raw_bytes
from git_theta_ext.updates import coders, correction
from git_theta_ext.updates.arithmetic import first_special, mantissa_bits
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.coders import sample_of
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import SLICE, is_ordered

_SAMPLE = 1 << 18
"""Values that a table is made from."""
_WIDTHS = (4, 7, 10, 12)
"""Leading mantissa bits that are tried."""
_MAX_WIDTH = 16
_LIMIT = 1 << 30
"""Larger moves, in ulps, are no steps."""


class Step:
    """The update of values that decayed."""

    kind: ClassVar[str] = "step"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Store the table whose prediction leaves the least, judged by a sample, and the rest."""
        if base is None or base.dtype != new.dtype or len(base) != len(new):
            return None
        table = find_table(spec.dtype, new, base)
        if table is None:
            return None
        predicted = predict(spec.dtype, base.copy(), table)
        settings, parts = correction.encode(new, predicted, is_ordered(spec.dtype))
        parts["table"] = coders.compress(raw_bytes(table), 19)
        settings["width"] = len(table).bit_length() - 1
        return Encoded(self.kind, build(self.kind, settings, parts))

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values; writes into `base`."""
        settings, parts = parameters.settings, parameters.parts
        width, mantissa = settings["width"], mantissa_bits(spec.dtype)
        if base is None or mantissa is None:
            raise CorruptObjectError(f"steps do not fit a block of {spec.dtype.name}")
        if not isinstance(width, int) or not 0 <= width <= min(mantissa, _MAX_WIDTH):
            raise CorruptObjectError(f"a table of steps by {width!r} bits of {mantissa}")
        table = np.frombuffer(coders.decompress(parts["table"], 4 << width), "<i4")
        values = predict(spec.dtype, base, table)
        correction.apply(settings, parts, values, is_ordered(spec.dtype))
        return values


def predict(dtype: DType, values: Values, table: NDArray[np.int32]) -> Values:
    """Move every finite value other than zero by its step, in place, keeping its sign."""
    mantissa = mantissa_bits(dtype)
    if mantissa is None:
        raise TypeError(f"{dtype.name} has no mantissa")
    width = len(table).bit_length() - 1
    bits = values.itemsize * 8
    unsigned = values.dtype.type
    sign, magnitude = unsigned(1 << (bits - 1)), unsigned((1 << (bits - 1)) - 1)
    shift, mask = unsigned(mantissa - width), unsigned((1 << width) - 1)
    limit = unsigned(first_special(dtype, bits))
    steps = table.astype(f"i{values.itemsize}", casting="unsafe").view(values.dtype)
    for start in range(0, len(values), SLICE):
        piece = values[start : start + SLICE]
        size = piece & magnitude
        move = steps[(piece >> shift) & mask]
        move[(size == 0) | (size >= limit)] = 0
        moved = (size + move) & magnitude
        moved |= piece & sign
        piece[:] = moved
    return values


def find_table(dtype: DType, new: Values, base: Values) -> NDArray[np.int32] | None:
    """The most frequent step for each value of the leading mantissa bits, from a sample."""
    mantissa = mantissa_bits(dtype)
    if mantissa is None or len(new) == 0:
        return None
    few, old = sample_of(new, _SAMPLE, 64), sample_of(base, _SAMPLE, 64)
    best: tuple[int, NDArray[np.int32]] | None = None
    for width in sorted({min(width, mantissa) for width in _WIDTHS}):
        table = modes(dtype, few, old, width, mantissa)
        predicted = predict(dtype, old.copy(), table)
        hits = int(np.count_nonzero(predicted == few))
        # A wider table must earn its place: some two bytes an entry, against two a hit.
        score = hits - len(table) * len(few) // max(len(new), 1)
        if best is None or score > best[0]:
            best = (score, table)
    return best[1] if best is not None and best[1].any() else None


def modes(dtype: DType, new: Values, base: Values, width: int, mantissa: int) -> NDArray[np.int32]:
    """The most frequent step of each bucket; the smaller magnitude of equally frequent ones.

    A step that was seen once is none. A bucket without one has that of the bucket before it.

    Args:
        dtype: a float or complex dtype.
        new, base: raw bits, flat, of one dtype and length.
        width: how many leading mantissa bits make the bucket.
        mantissa: how many the dtype stores.

    Returns:
        A table of 2^`width` steps in ulps, away from zero.
    """
    buckets, steps = steps_of(dtype, new, base, width, mantissa)
    keys = (buckets << 33) | (steps + (1 << 32))
    found, counts = np.unique(keys, return_counts=True)
    bucket, step = found >> 33, (found & ((1 << 33) - 1)) - (1 << 32)
    order = np.lexsort((np.abs(step), -counts, bucket))
    first = order[np.unique(bucket[order], return_index=True)[1]]
    first = first[counts[first] > 1]
    table = np.zeros(1 << width, np.int32)
    if len(first):
        # A bucket that the sample says nothing about is like the one before it.
        known = np.searchsorted(bucket[first], np.arange(1 << width), side="right") - 1
        table[:] = step[first][np.maximum(known, 0)]
    return table


def steps_of(
    dtype: DType, new: Values, base: Values, width: int, mantissa: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bucket and step, in ulps away from zero, of the values that can have made one.

    Those are finite, were not zero, and kept their sign.

    Args:
        dtype: a float or complex dtype.
        new, base: raw bits, flat, of one dtype and length.
        width: how many leading mantissa bits make the bucket.
        mantissa: how many the dtype stores.
    """
    bits = new.itemsize * 8
    unsigned = new.dtype.type
    magnitude = unsigned((1 << (bits - 1)) - 1)
    now, then = new & magnitude, base & magnitude
    limit = unsigned(first_special(dtype, bits))
    usable = ((new ^ base) <= magnitude) & (then != 0) & (then < limit) & (now < limit)
    steps = (now[usable] - then[usable]).view(f"i{new.itemsize}").astype(np.int64)
    shift, mask = unsigned(mantissa - width), unsigned((1 << width) - 1)
    buckets = ((base[usable] >> shift) & mask).astype(np.int64)
    near = np.abs(steps) < _LIMIT
    return buckets[near], steps[near]
