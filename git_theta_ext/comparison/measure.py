"""How far the values of a tensor moved: one pass over both versions, block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from git_theta_ext.tensors import BlockSpec
from git_theta_ext.updates.base import Values
from git_theta_ext.updates.residual import SLICE
from git_theta_ext.updates.statistics import as_floats

BINS = 9
_SAMPLE = 4096
"""Differences of a block that are kept to draw their distribution; everything else is exact."""


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
    flat index `largest_at`; `not_finite` counts entries that are NaN or infinite now and were
    finite before, the first of them at `not_finite_at`; `sample` are some differences, in order.
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
    sample: tuple[float, ...] = ()

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


def histogram(sample: tuple[float, ...], largest: float) -> list[int]:
    """Counts of differences in equal bins from -largest to +largest."""
    if not largest > 0:
        return [0] * BINS
    counts, _ = np.histogram(np.array(sample), BINS, (-largest, largest))
    return [int(count) for count in counts]


def measure_block(spec: BlockSpec, old: Values, new: Values, first: int = 0) -> Measure:
    """How far one block moved; sums in float64, slice by slice, in a fixed order.

    Args:
        spec: what the block is.
        old, new: the raw bits of its elements.
        first: index of its first element in the tensor.
    """
    then, now = as_floats(spec.dtype, old), as_floats(spec.dtype, new)
    total = Measure()
    stride = max(1, len(new) // _SAMPLE)
    for start in range(0, len(new), SLICE):
        piece = slice(start, start + SLICE)
        changed = int(np.count_nonzero(old[piece] != new[piece]))
        if then is None or now is None:
            total += Measure(changed)
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            before, after = then[piece].astype(np.float64), now[piece].astype(np.float64)
            part = _measure_slice(before, after, first + start, changed, stride)
        total += part
    return total


def _measure_slice(
    before: np.ndarray, after: np.ndarray, first: int, changed: int, stride: int
) -> Measure:
    lost, lost_at = 0, None
    step = after - before
    if not np.isfinite(step.sum()):
        finite = np.isfinite(before)
        gone = finite & ~np.isfinite(after)
        lost = int(np.count_nonzero(gone))
        lost_at = first + int(np.argmax(gone)) if lost else None
        both = finite & ~gone
        before, after = np.where(both, before, 0.0), np.where(both, after, 0.0)
        step = after - before
        count = int(np.count_nonzero(both))
    else:
        count = len(before)
    distance = np.abs(step)
    at = int(np.argmax(distance)) if len(distance) else 0
    largest = float(distance[at]) if len(distance) else 0.0
    return Measure(
        changed,
        _product(step, step),
        _product(before, after),
        Moments(count, float(before.sum()), _product(before, before)),
        Moments(count, float(after.sum()), _product(after, after)),
        largest,
        first + at if largest > 0 else None,
        lost,
        lost_at,
        tuple(step[::stride].tolist()),
    )


def _product(one: np.ndarray, other: np.ndarray) -> float:
    """The inner product, summed in an order that does not depend on a linear-algebra library.

    (BLAS would also start threads of its own under each of ours.)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sum(one * other))
