"""The exact residual behind a prediction: nothing, a list of the few misses, or every distance.

Three codings, and the one that suits is taken: `exact` (the prediction was right everywhere),
`list` (positions as gaps, then either distances or new values), and `pco` (all distances, slice by
slice). Every one of them is exact for every pair of bit patterns, whatever the prediction was.

A list also serves whole rows: then its positions count runs of `unit` values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.values import Values, raw_bytes
from git_theta_ext.updates import coders, residual
from git_theta_ext.updates.base import Part
from git_theta_ext.updates.residual import SLICE

_FEW = 16
"""Up to one miss in so many is listed; from there on the distances of all values are smaller."""
_POOR = 0.6
"""Distances that keep more than this share of the raw bytes may lose to the new values."""


def encode(new: Values, predicted: Values, floats: bool) -> tuple[dict[str, Any], dict[str, Part]]:
    """The settings and parts that turn `predicted` into `new`.

    Args:
        new, predicted: raw bits, flat, of one dtype and length.
        floats: whether distances are counted in floats; else in integers.
    """
    misses = np.flatnonzero(new != predicted)
    if not len(misses):
        return {"coder": "exact"}, {}
    if len(misses) <= len(new) // _FEW:
        return encode_list(misses, new[misses], predicted[misses], floats)
    return {"coder": "pco"}, encode_slices(new, predicted, floats)


def apply(
    settings: Mapping[str, Any], parts: Mapping[str, memoryview], values: Values, floats: bool
) -> None:
    """Turn a prediction into the truth, in place.

    Args:
        settings, parts: what `encode` gave, the parts as raw bytes.
        values: the prediction: raw bits, flat.
        floats: as for `encode`.

    Raises:
        CorruptObjectError: the parts do not fit `values`, or are damaged.
    """
    coder = settings["coder"]
    if coder == "list":
        apply_list(settings, parts, values, floats)
    elif coder == "pco":
        apply_slices(parts, values, floats)
    elif coder != "exact":
        raise CorruptObjectError(f"unknown coder {coder!r} of a residual")


# -- all distances ---------------------------------------------------------------------------------


_HIGH = "pco-high"
"""As `pco`, of values whose lowest bits are zero, before and after: weights of half the precision
that are kept in float32 (benchmarks/updates.py, "kept in fp32")."""


def encode_distances(
    new: Values, base: Values, floats: bool, level: int = coders.PCO_LEVEL
) -> tuple[dict[str, Any], dict[str, Part]]:
    """The settings and parts of the distances of all values from their predecessors.

    Args:
        new, base: raw bits, flat, of one dtype and length.
        floats: as for `encode`.
        level: of compression, pcodec's.
    """
    low = residual.zeros_below(new, base)
    settings: dict[str, Any] = {"coder": _HIGH, "low": low} if low else {"coder": "pco"}
    return settings, encode_slices(new, base, floats, level, low)


def apply_distances(
    settings: Mapping[str, Any], parts: Mapping[str, memoryview], values: Values, floats: bool
) -> None:
    """Undo `encode_distances`, in place.

    Args:
        settings, parts: what that gave, the parts as raw bytes.
        values: the predecessors: raw bits, flat.
        floats: as for `encode`.

    Raises:
        CorruptObjectError: the settings are none, the parts do not fit, or bits of the predecessors
            that were left out are not zero.
    """
    coder, low = settings["coder"], settings.get("low", 0)
    if (coder, low) != ("pco", 0):
        if coder != _HIGH or type(low) is not int or not 0 < low < values.itemsize * 8:
            raise CorruptObjectError(f"unknown coder {coder!r} of distances, {low!r} bits left out")
        # Else there would be two predecessors from which the same values follow.
        for start in range(0, len(values), SLICE):
            if int(np.bitwise_or.reduce(values[start : start + SLICE])) & ((1 << low) - 1):
                raise CorruptObjectError(f"the lowest {low} bits of a predecessor are not zero")
    apply_slices(parts, values, floats, low)


def encode_slices(
    new: Values, predicted: Values, floats: bool, level: int = coders.PCO_LEVEL, low: int = 0
) -> dict[str, Part]:
    """The distance of every value from its prediction, slice by slice.

    Args:
        new, predicted: raw bits, flat, of one dtype and length.
        floats: as for `encode`.
        level: of compression, pcodec's.
        low: how many of the lowest bits are zero in all of them.
    """
    streams = []
    room: Values = np.empty(min(SLICE, len(new)), new.dtype)
    for start in range(0, len(new), SLICE):
        piece = slice(start, start + SLICE)
        part = new[piece]
        distances = residual.difference(part, predicted[piece], floats, room[: len(part)], low)
        streams.append(coders.compress_numbers(distances, level))
    lengths = np.array([len(stream) for stream in streams], np.uint32)
    return {"data": b"".join(streams), "lengths": lengths}


def apply_slices(
    parts: Mapping[str, memoryview], values: Values, floats: bool, low: int = 0
) -> None:
    """Move every value by its distance, in place.

    Args:
        parts: what `encode_slices` gave, as raw bytes.
        values: the prediction: raw bits, flat.
        floats, low: as for `encode_slices`.

    Raises:
        CorruptObjectError: the parts do not fit `values`, or are damaged.
    """
    streams = coders.slices(parts["data"], parts["lengths"], len(values))
    steps: Values = np.empty(min(SLICE, len(values)), values.dtype)
    for start, stream in zip(range(0, len(values), SLICE), streams, strict=True):
        if len(stream):
            piece = values[start : start + SLICE]
            step = steps[: len(piece)]
            coders.decompress_numbers(stream, step)
            residual.apply(step, piece, floats, piece, low)


# -- few misses ------------------------------------------------------------------------------------


def encode_list(
    positions: NDArray[np.intp], new: Values, predicted: Values, floats: bool, unit: int = 1
) -> tuple[dict[str, Any], dict[str, Part]]:
    """A list of places and what stands there: distances, or the values if those are smaller.

    Args:
        positions: increasing; in runs of `unit` values.
        new, predicted: the values there, `unit` for each position.
        floats: as for `encode`.
        unit: values that one position stands for.
    """
    gaps = _pack(np.diff(positions, prepend=-1).astype(np.uint32) - np.uint32(1))
    numbers = _pack(residual.difference(new, predicted, floats))
    settings: dict[str, Any] = {"coder": "list", "count": len(positions), "split": len(gaps)}
    if len(numbers) > _POOR * new.nbytes:
        plain = _pack(residual.difference(new, np.zeros_like(new), floats))
        if len(plain) < len(numbers):
            numbers = plain
            settings["plain"] = True
    if unit != 1:
        settings["unit"] = unit
    return settings, {"list": gaps + numbers}


def apply_list(
    settings: Mapping[str, Any], parts: Mapping[str, memoryview], values: Values, floats: bool
) -> None:
    """Put right the values that a list names, in place.

    Args:
        settings, parts: what `encode_list` gave, the parts as raw bytes.
        values: the prediction: raw bits, flat.
        floats: as for `encode`.

    Raises:
        CorruptObjectError: a position lies outside, or the counts do not fit.
    """
    count, split, unit = settings["count"], settings["split"], settings.get("unit", 1)
    plain = settings.get("plain", False)
    if not all(isinstance(number, int) for number in (count, split, unit)) or unit < 1:
        raise CorruptObjectError("the counts of a list are no numbers")
    places = len(values) // unit
    data = parts["list"]
    if not 0 <= count <= places or places * unit != len(values) or not 0 <= split <= len(data):
        raise CorruptObjectError(
            f"a list of {count} runs of {unit} does not fit a block of {len(values)} values"
        )
    gaps = _unpack(data[:split], count, np.dtype("<u4")).astype(np.int64)
    positions = np.cumsum(gaps + 1) - 1
    if count and positions[-1] >= places:
        raise CorruptObjectError(f"a list names place {positions[-1]} of {places}")
    numbers = _unpack(data[split:], count * unit, values.dtype)
    rows = values.reshape(places, unit)
    listed = rows[positions].ravel()
    before = np.zeros_like(listed) if plain else listed
    rows[positions] = residual.apply(numbers, before, floats).reshape(count, unit)


def _pack(numbers: Values) -> bytes:
    """A pcodec stream, or the raw bytes where that is no longer: the length tells which."""
    packed = coders.compress_numbers(numbers)
    return packed if len(packed) < numbers.nbytes else bytes(raw_bytes(numbers))


def _unpack(stream: memoryview, count: int, dtype: np.dtype[Any]) -> Values:
    if len(stream) == count * dtype.itemsize:
        return np.frombuffer(stream, dtype)
    out: Values = np.empty(count, dtype)
    coders.decompress_numbers(stream, out)
    return out
