"""Which entries of two versions of a tensor stand for each other, and how far those moved.

Versions of one shape are compared entry by entry, also where the element type changed from one kind
of floats to another. Where one axis became longer or shorter, the entries that both versions have
are compared, and those that came are described. A tensor of another shape with as many entries is
compared in the order in which they lie in the file.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.versions import Side, read_both
from git_theta_ext.comparison.measure import Measure, measure_arrival, measure_block, sample_stride
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.manifest.model import Entry

_PIECE = 1 << 18
"""Values of a resized tensor that are picked out at once."""
_BUDGET_BYTES = 400 << 20
"""Memory of blocks under way: two blocks of the largest size are compared at once, and no more."""
_COPIES = 4
"""A block under comparison is in memory about so often: two versions and what they are made of."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions of a tensor on their sides; `old` and `then` are None where it was added."""

    old: Side | None
    new: Side
    then: Entry | None
    now: Entry


@dataclass(frozen=True, slots=True)
class Overlap:
    """`repeats` runs of `run` values stand for each other, one every `then` and `now` values."""

    run: int
    then: int
    now: int
    repeats: int = 1


def overlap(then: Entry, now: Entry) -> Overlap | None:
    """What two versions of a tensor have in common; None where that cannot be said."""
    a, b = then.tensor, now.tensor
    if then.opaque or now.opaque or a.order != b.order:
        return None
    if a.dtype != b.dtype and {a.dtype.kind, b.dtype.kind} != {"float"}:
        return None
    if a.count == b.count:
        return Overlap(_values(b), _values(a), _values(b))
    differing = [axis for axis, pair in enumerate(zip(a.shape, b.shape, strict=False)) if
                 pair[0] != pair[1]]  # fmt: skip
    if len(a.shape) != len(b.shape) or len(differing) != 1 or b.dtype.bits % 8:
        return None
    axis = differing[0] if b.order is None else b.order.index(differing[0])
    inner = math.prod(b.memory_shape[axis + 1 :]) * (2 if b.dtype.kind == "complex" else 1)
    lengths = a.memory_shape[axis] * inner, b.memory_shape[axis] * inner
    return Overlap(min(lengths), *lengths, math.prod(b.memory_shape[:axis]))


def _values(tensor: TensorInfo) -> int:
    if tensor.dtype.bits % 8:
        return tensor.nbytes
    return tensor.count * (2 if tensor.dtype.kind == "complex" else 1)


def same_but_for_ones(a: TensorInfo, b: TensorInfo) -> bool:
    """Whether two shapes differ in axes of length one at most: then places keep their meaning."""
    return [n for n in a.shape if n != 1] == [n for n in b.shape if n != 1]


class _Version:
    """One version of a tensor, read by ranges of its values."""

    def __init__(self, side: Side, entry: Entry) -> None:
        self.side, self.entry = side, entry
        self.specs = entry.specs()
        lengths = (spec.nbytes // values_dtype(spec.dtype).itemsize for spec in self.specs)
        self.starts = list(accumulate(lengths, initial=0))

    @property
    def count(self) -> int:
        return self.starts[-1]

    def read(self, number: int) -> Values:
        position = (self.entry.tensor.name, number)
        return self.side.read(self.specs[number], position, self.entry.blocks[number])

    def at(self, start: int) -> int | None:
        """The number of the block that begins at a value, if one does."""
        number = bisect_right(self.starts, start, hi=len(self.specs)) - 1
        return number if self.starts[number] == start else None

    def range(self, start: int, stop: int) -> Values:
        """Values from `start` to `stop` (not included), from as many blocks as that takes."""
        first = bisect_right(self.starts, start, hi=len(self.specs)) - 1
        parts = []
        for number in range(first, len(self.specs)):
            offset = self.starts[number]
            if offset >= stop:
                break
            parts.append(self.read(number)[max(0, start - offset) : stop - offset])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the values that were picked out of a tensor stand in it."""

    at: NDArray[np.intp]

    def __call__(self, number: int) -> int:
        return int(self.at[number])


class _Comparing:
    """A tensor that both sides have; the one that is read block by block leads the other."""

    def __init__(self, pair: Pair, then: Entry, old: Side, common: Overlap) -> None:
        self.then, self.now = _Version(old, then), _Version(pair.new, pair.now)
        self.common = common
        self.cast = then.tensor.dtype if then.tensor.dtype != pair.now.tensor.dtype else None
        self.forward = (self.now.count, pair.now.tensor.nbytes) >= (
            self.then.count,
            then.tensor.nbytes,
        )
        self.lead, self.other = (self.now, self.then) if self.forward else (self.then, self.now)

    def measure(self, number: int) -> Measure:
        """How far the values of one block of the leading version moved."""
        start, stop = self.lead.starts[number : number + 2]
        parts = self._along(number, start, stop) if self.common.repeats == 1 else self._across(
            self.lead.read(number), start, stop
        )  # fmt: skip
        return sum(parts, Measure())

    def _along(self, number: int, start: int, stop: int) -> Iterator[Measure]:
        """Values with equal places, up to where the shorter version ends."""
        end = max(start, min(stop, self.common.run))
        if start == end:
            lead = self.lead.read(number)
        else:
            lead, other = self._both(number, start, end)
            yield self._compare(lead[: end - start], other[: end - start], start)
        if self.forward and end < stop:
            yield measure_arrival(self.now.specs[number], lead[end - start :], end)

    def _both(self, number: int, start: int, stop: int) -> tuple[Values, Values]:
        """A block of the leading version, and what stands for it in the other."""
        found = self.other.at(start)
        if found is None or self.other.starts[found + 1] < stop:
            return self.lead.read(number), self.other.range(start, stop)
        places = [
            (version.specs[at], (version.entry.tensor.name, at), version.entry.blocks[at])
            for version, at in ((self.other, found), (self.lead, number))
        ]
        other, lead = read_both(self.other.side, self.lead.side, places[0], places[1])
        return lead, other

    def _across(self, lead: Values, start: int, stop: int) -> Iterator[Measure]:
        """Values of a tensor whose rows became longer or shorter."""
        run = self.common.run
        mine, its = (
            (self.common.now, self.common.then)
            if self.forward
            else (self.common.then, self.common.now)
        )
        low = start // mine * its + min(start % mine, run)
        high = (stop - 1) // mine * its + min((stop - 1) % mine + 1, run)
        other = self.other.range(low, high) if low < high else lead[:0]
        for first in range(start, stop, _PIECE):
            places = np.arange(first, min(first + _PIECE, stop))
            row, column = np.divmod(places, mine)
            both = column < run
            pair = lead[places[both] - start], other[(row * its + column)[both] - low]
            at = (places if self.forward else row * its + column)[both]
            if len(at):
                yield self._compare(*pair, 0, len(lead)).moved_to(_Places(at))
            if self.forward and not both.all():
                grown, at = lead[places[~both] - start], places[~both]
                found = measure_arrival(self.now.specs[0], grown)
                yield found.moved_to(_Places(at))

    def _compare(self, lead: Values, other: Values, first: int, whole: int = 0) -> Measure:
        old, new = (other, lead) if self.forward else (lead, other)
        return measure_block(
            self.now.specs[0], old, new, first, cast=self.cast,
            stride=sample_stride(whole or len(new)),
        )  # fmt: skip


Task = Callable[[], Measure]


def _tasks(pair: Pair) -> Iterator[tuple[int, Task]]:
    """What there is to do for a tensor, block by block: the bytes that it takes, and the work."""
    if pair.then is None or pair.old is None:
        if pair.now.opaque or pair.now.tensor.dtype.kind not in ("float", "complex"):
            return
        version = _Version(pair.new, pair.now)
        for number, spec in enumerate(version.specs):
            yield spec.nbytes, _arrival(version, number)
        return
    common = overlap(pair.then, pair.now)
    if common is not None:
        comparing = _Comparing(pair, pair.then, pair.old, common)
        for number, spec in enumerate(comparing.lead.specs):
            yield spec.nbytes, _comparison(comparing, number)


def _arrival(version: _Version, number: int) -> Task:
    spec, first = version.specs[number], version.starts[number]
    return lambda: measure_arrival(spec, version.read(number), first)


def _comparison(comparing: _Comparing, number: int) -> Task:
    return lambda: comparing.measure(number)


def measure_pairs(pairs: Sequence[Pair]) -> list[Measure | None]:
    """How far tensors moved: one pass over both versions, block by block, on several cores.

    None where the versions cannot be compared entry by entry, and for an added tensor that is not
    of floats.
    """
    found: list[Measure | None] = [None] * len(pairs)
    work = [(at, size, task) for at, pair in enumerate(pairs) for size, task in _tasks(pair)]
    results = ordered_map(
        lambda item: item[2](), work, lambda item: _COPIES * item[1], _BUDGET_BYTES
    )
    for (at, _, _), part in zip(work, results, strict=True):
        known = found[at]
        found[at] = part if known is None else known + part
    return [_told(pair, one) for pair, one in zip(pairs, found, strict=True)]


def _told(pair: Pair, measure: Measure | None) -> Measure | None:
    """A measure as it is told: places as those of elements, and nothing that would mislead."""
    if measure is None or pair.then is None:
        return measure
    a, b = pair.then.tensor, pair.now.tensor
    if a.count == b.count and not same_but_for_ones(a, b) and measure.changed:
        return None
    return measure.moved_to(lambda at: at // 2) if b.dtype.kind == "complex" else measure
