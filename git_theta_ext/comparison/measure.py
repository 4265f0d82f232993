"""How far the values of a tensor moved: one pass over both versions, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values, as_floats

BINS = 9
_SAMPLE = 4096
"""Differences of a block that are kept to draw their distribution; everything else is exact."""
_SLICE = 32_768
"""Elements handled at once: three buffers of float64 stay in the processor's cache. Slices of this
size took 12 ms for 4 M pairs, of twice the size 14 ms (benchmarks/views.py measures the whole)."""

Sample = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over finite values: how many, their sum, the sum of their squares."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    @property
    def mean(self) -> float | None:
        """The mean of the finite values."""
        return self.total / self.count if self.count else None

    @property
    def std(self) -> float | None:
        """Their standard deviation, over the whole tensor (not a sample's estimate)."""
        if not self.count:
            return None
        return math.sqrt(max(0.0, self.squares / self.count - (self.total / self.count) ** 2))


@dataclass(frozen=True, slots=True)
class Measure:
    """How far the values of a tensor moved, over the entries that are finite in both versions.

    `changed` counts entries with other bits; `step` is the squared 2-norm of the difference, `dot`
    the inner product of old and new; `largest` is the largest absolute difference, found at the
    flat index `largest_at`; `grown` are the entries that had no predecessor; `not_finite` counts
    entries that are NaN or infinite now and were not before, the first of them at `not_finite_at`;
    `sample` are some differences, in order. Where the element type changed, `changed` counts the
    entries that are not the old ones, rounded.
    """

    changed: int = 0
    step: float = 0.0
    dot: float = 0.0
    old: Moments = Moments()
    new: Moments = Moments()
    largest: float = 0.0
    largest_at: int | None = None
    not_finite: int = 0
    not_finite_at: int | None = None
    grown: Moments = Moments()
    sample: Sample = field(default=(), compare=False, repr=False)

    def __add__(self, other: Measure) -> Measure:
        """What holds of both parts; `self` is the earlier one."""
        first = self if self.largest >= other.largest else other
        return Measure(
            self.changed + other.changed,
            self.step + other.step,
            self.dot + other.dot,
            self.old + other.old,
            self.new + other.new,
            first.largest,
            first.largest_at,
            self.not_finite + other.not_finite,
            other.not_finite_at if self.not_finite_at is None else self.not_finite_at,
            self.grown + other.grown,
            self.sample + other.sample,
        )

    @property
    def relative(self) -> float | None:
        """‖new - old‖ / ‖old‖, or None where the old values are all zero."""
        return math.sqrt(self.step / self.old.squares) if self.old.squares > 0 else None

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between old and new; None where one of them is zero."""
        product = self.old.squares * self.new.squares
        if not product > 0 or math.isinf(product):
            return None
        return max(-1.0, min(1.0, self.dot / math.sqrt(product)))

    def histogram(self) -> list[int]:
        """How the differences are spread from -largest to +largest, in equal bins."""
        return histogram(self.sample, self.largest)

    def moved_to(self, place: Callable[[int], int]) -> Measure:
        """The same, with every index replaced by what `place` makes of it."""
        return replace(
            self,
            largest_at=None if self.largest_at is None else place(self.largest_at),
            not_finite_at=None if self.not_finite_at is None else place(self.not_finite_at),
        )


def histogram(sample: Sample, largest: float, bins: int = BINS) -> list[int]:
    """Counts of differences in equal bins from -largest to +largest."""
    if not 0 < largest < math.inf or not sample:
        return [0] * bins
    # The sample is of float32: its largest one may have been rounded up.
    reach = largest * (1 + 1e-6)
    counts, _ = np.histogram(np.concatenate(sample, dtype=np.float64), bins, (-reach, reach))
    return [int(count) for count in counts]


def measure_block(
    spec: BlockSpec,
    old: Values,
    new: Values,
    first: int = 0,
    *,
    cast: DType | None = None,
    stride: int | None = None,
) -> Measure:
    """How far one block moved; sums in float64, slice by slice, in a fixed order.

    Args:
        spec: what the block is now.
        old, new: the raw bits of its elements, as many of each.
        first: index of its first value in the tensor.
        cast: what its elements were of, where that is another type.
        stride: one difference in so many is kept; by default as many as draw a distribution.
    """
    then, now = as_floats(cast or spec.dtype, old), as_floats(spec.dtype, new)
    stride = stride or sample_stride(len(new))
    buffers = np.empty((3, min(_SLICE, len(new))))
    total = Measure()
    samples = []
    for start in range(0, len(new), _SLICE):
        piece = slice(start, start + _SLICE)
        changed = 0
        if cast is not None:
            changed = _not_rounded(cast, spec.dtype, old[piece], new[piece])
        elif old is not new:
            changed = _count(old[piece] != new[piece], spec.dtype)
        if then is None or now is None:
            total += Measure(changed)
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            pair = then[piece], now[piece]
            part, step = _measure_slice(
                *pair, first + start, buffers, total.largest, dtype=spec.dtype
            )
            samples.append(step[-start % stride :: stride].astype(np.float32))
        total += replace(part, changed=changed)
    return replace(total, sample=tuple(samples[:1] and [np.concatenate(samples)]))


def sample_stride(count: int) -> int:
    """One in how many of `count` differences is kept."""
    return max(1, count // _SAMPLE)


def measure_arrival(spec: BlockSpec, new: Values, first: int = 0) -> Measure:
    """The values of entries that had no predecessor.

    Args:
        spec: what they are.
        new: their raw bits.
        first: index of the first of them in the tensor.
    """
    now = as_floats(spec.dtype, new)
    if now is None:
        return Measure()
    total = Measure()
    for start in range(0, len(new), _SLICE):
        with np.errstate(over="ignore", invalid="ignore"):
            after = now[start : start + _SLICE].astype(np.float64)
            finite = np.isfinite(after)
            lost = _count(~finite, spec.dtype)
            at = first + start + int(np.argmin(finite)) if lost else None
            after[~finite] = 0.0
            moments = Moments(
                int(np.count_nonzero(finite)), float(after.sum()), _product(after, after)
            )
        total += Measure(grown=moments, not_finite=lost, not_finite_at=at)
    return total


def _not_rounded(then: DType, now: DType, old: Values, new: Values) -> int:
    """How many values are not what conversion to another float type makes of the old ones."""
    from git_theta_ext.updates.cast import convert

    ways = (False, True) if now.bits == 8 else (False,)
    return min(int(np.count_nonzero(convert(then, now, old, way) != new)) for way in ways)


def _measure_slice(
    then: NDArray[Any],
    now: NDArray[Any],
    first: int,
    buffers: NDArray[np.float64],
    known: float,
    *,
    dtype: DType,
) -> tuple[Measure, NDArray[np.float64]]:
    """What holds of a slice, except how many bits differ, and its differences (a buffer).

    The largest difference is looked for only where it is larger than the one `known`.
    """
    before, after, step = (buffer[: len(now)] for buffer in buffers)
    before[:], after[:] = then, now
    np.subtract(after, before, out=step)
    count, lost, lost_at = len(now), 0, None
    squares = [_product(one, one) for one in (before, after, step)]
    # A sum that is not finite: one of the values is not, or it is too large to be squared.
    if not math.isfinite(sum(squares)):
        finite = np.isfinite(before)
        gone = finite & ~np.isfinite(after)
        lost = _count(gone, dtype)
        lost_at = first + int(np.argmax(gone)) if lost else None
        both = finite & ~gone
        before[~both] = after[~both] = 0.0
        np.subtract(after, before, out=step)
        count = int(np.count_nonzero(both))
        squares = [_product(one, one) for one in (before, after, step)]
    # The inner product follows: |b - a|² = |a|² + |b|² - 2ab.
    dot = (squares[0] + squares[1] - squares[2]) / 2
    measure = Measure(
        step=squares[2],
        dot=dot if math.isfinite(dot) else _product(before, after),
        old=Moments(count, float(np.add.reduce(before)), squares[0]),
        new=Moments(count, float(np.add.reduce(after)), squares[1]),
        not_finite=lost,
        not_finite_at=lost_at,
    )
    largest = max(float(step.max()), -float(step.min()))
    if largest > known:
        at = first + int(np.argmax(np.abs(step)))
        measure = replace(measure, largest=largest, largest_at=at)
    return measure, step


def _count(marked: NDArray[np.bool_], dtype: DType) -> int:
    """How many elements are marked: a complex one where one of its two parts is."""
    if dtype.kind == "complex":
        marked = marked[::2] | marked[1::2]
    return int(np.count_nonzero(marked))


def _product(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The inner product, without a linear-algebra library.

    (That would sum in an order of its own, and start threads of its own under each of ours.)
    """
    return float(np.einsum("i,i->", one, other))
