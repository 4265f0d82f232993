"""The k-th largest magnitude, and ranks, of a tensor that is seen slice by slice.

Magnitudes are compared as float32: the bits of one that is not negative are an integer that sorts
as it does, so two passes of counting 65,536 classes find any rank exactly, in bounded memory. One
pass is enough where the first slice tells about where to look, as it does for most tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.values import Floats
from git_theta_ext.updates.recipes.arithmetic import magnitudes

Slices = Callable[[], Iterable[Floats]]
"""Gives the slices of a tensor anew each time."""

_CLASSES = 1 << 16
_MARGIN = 0.05
"""How far, as a share of all entries, the rank in the whole may be from that in the first slice."""
_HELD = 1 << 20
"""Magnitudes held for each tensor while one pass looks around the expected rank."""


def _bits(numbers: Floats) -> NDArray[np.uint32]:
    return magnitudes(numbers).view(np.uint32)


def kth_largest(slices: Slices, wanted: int, total: int) -> np.float32:
    """The magnitude that exactly the `wanted` largest entries reach, or more where some are equal.

    Infinity if none of the `total` entries are wanted, zero if all are.
    """
    return kth_largest_each(lambda: ((numbers,) for numbers in slices()), 1, wanted, total)[0]


def kth_largest_each(
    slices: Callable[[], Iterable[Sequence[Floats]]], count: int, wanted: int, total: int
) -> list[np.float32]:
    """As `kth_largest`, for each of `count` tensors that are seen side by side.

    Args:
        slices: gives, anew each time, the slices of all tensors, one array for each tensor.
        count: of tensors.
        wanted: how many entries of each are to reach the answer.
        total: entries of each tensor.
    """
    if wanted <= 0:
        return [np.float32(np.inf)] * count
    if wanted >= total:
        return [np.float32(0.0)] * count
    found = _guessed(slices(), count, wanted, total) if total * 2 * _MARGIN < _HELD else None
    return found or _counted(slices, count, wanted)


def _guessed(
    slices: Iterable[Sequence[Floats]], count: int, wanted: int, total: int
) -> list[np.float32] | None:
    """In one pass: sort what lies around the rank that the first slice suggests.

    None if some tensor's wanted entry is not there, or too much is.
    """
    bounds: list[tuple[np.uint32, np.uint32]] = []
    left = [wanted] * count
    held: list[list[NDArray[np.uint32]]] = [[] for _ in range(count)]
    for columns in slices:
        every = [_bits(column) for column in columns]
        bounds = bounds or [_around(bits, wanted / total) for bits in every]
        for number, (bits, (low, high)) in enumerate(zip(every, bounds, strict=True)):
            reaching = bits >= low
            above = bits > high
            left[number] -= int(np.count_nonzero(above))
            held[number].append(bits[reaching ^ above])
            if sum(map(len, held[number])) > _HELD:
                return None
    found = []
    for pieces, still in zip(held, left, strict=True):
        inside = np.concatenate(pieces)
        if not 0 < still <= len(inside):
            return None
        place = len(inside) - still
        found.append(np.partition(inside, place)[place : place + 1].view(np.float32)[0])
    return found


def _around(bits: NDArray[np.uint32], share: float) -> tuple[np.uint32, np.uint32]:
    """Magnitudes a little below and above the one that a share of these reaches."""
    ordered = np.sort(bits)
    places = [round((1 - share + side) * len(bits)) for side in (-_MARGIN, _MARGIN)]
    low, high = (min(max(place, 0), len(bits) - 1) for place in places)
    return ordered[low], ordered[high]


def _counted(
    slices: Callable[[], Iterable[Sequence[Floats]]], count: int, wanted: int
) -> list[np.float32]:
    """In two passes: count the upper halves of the bits, then the lower ones in the class found."""
    high = np.zeros((count, _CLASSES), np.int64)
    for columns in slices():
        for number, column in enumerate(columns):
            high[number] += np.bincount(_bits(column) >> 16, minlength=_CLASSES)
    found = [_find(counts, wanted) for counts in high]
    low = np.zeros((count, _CLASSES), np.int64)
    for columns in slices():
        for number, column in enumerate(columns):
            bits = _bits(column)
            inside = bits[(bits >> 16) == found[number][0]] & np.uint32(0xFFFF)
            low[number] += np.bincount(inside, minlength=_CLASSES)
    return [_joined(top, _find(low[at], left)[0]) for at, (top, left) in enumerate(found)]


def _joined(top: int, bottom: int) -> np.float32:
    """The float whose bits have these halves."""
    whole: np.float32 = np.array([(top << 16) | bottom], np.uint32).view(np.float32)[0]
    return whole


def _find(counts: NDArray[np.int64], wanted: int) -> tuple[int, int]:
    """The class of the `wanted`-th largest, and how many are still wanted inside it."""
    reached = np.cumsum(counts[::-1])
    place = int(np.searchsorted(reached, wanted))
    before = int(reached[place - 1]) if place else 0
    return _CLASSES - 1 - place, wanted - before


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which share of a tensor's entries is smaller, for each class of magnitudes."""

    table: NDArray[np.float64]

    def of(self, numbers: Floats) -> Floats:
        """The rank of each entry, from 0 (smallest) to 1; equal to a part in 128."""
        found: Floats = self.table[_bits(numbers) >> 16]
        return found


def ranks(slices: Slices) -> Ranks:
    """Count the magnitudes of a tensor once."""
    counts = np.zeros(_CLASSES, np.int64)
    for numbers in slices():
        counts += np.bincount((_bits(numbers) >> 16).astype(np.int64), minlength=_CLASSES)
    total = max(1, int(counts.sum()))
    below = np.cumsum(counts) - counts
    return Ranks((below + counts / 2) / total)
