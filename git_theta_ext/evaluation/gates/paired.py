"""Whether an update answers more or fewer examples rightly: the exact test of paired outcomes.

Of n examples that two versions answered, b are answered rightly by the base alone and c by the
update alone. Whether the update is worse is McNemar's exact test, that is the sign test on these
b + c (McNemar, Psychometrika 12, 1947). How much worse it may be is the melded confidence
distribution that agrees with it: Fay and Lumbard, "Confidence intervals for difference in
proportions for matched pairs compatible with exact McNemar's or sign tests", Statistics in
Medicine 40 (2021), pages 1147 to 1159. The difference is ψ(2θ - 1), with ψ the share of examples
on which the two differ and θ the share of these that the update answers rightly; the limits of
each are those of Clopper and Pearson, which are beta distributions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SPREAD = 12.0
"""Standard deviations of a beta distribution that are tabulated on each side of its mean."""
_TABLE = 2001
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_HALVINGS = 34
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Counts:
    """Of `examples` answered by two versions: how many one of them alone answered rightly."""

    examples: int
    only_base: int
    only_update: int

    @property
    def difference(self) -> float:
        """The accuracy of the update less that of the base."""
        return (self.only_update - self.only_base) / self.examples

    @property
    def swapped(self) -> Counts:
        """The same, with the update in the place of the base."""
        return Counts(self.examples, self.only_update, self.only_base)


def count(base: NDArray[np.bool_], update: NDArray[np.bool_]) -> Counts:
    """The counts of two versions' outcomes, bool [n] each, of the same examples in one order."""
    return Counts(base.size, int(np.sum(base & ~update)), int(np.sum(update & ~base)))


class Melded:
    """The confidence in each difference of accuracy, from paired outcomes."""

    def __init__(self, counts: Counts) -> None:
        """`counts` has at least one example."""
        self.counts = counts
        self._above = _Upper(counts)
        self._below = _Upper(counts.swapped)

    def at_least(self, difference: float) -> float:
        """The p-value of "the true difference is this or more"; small: it is less."""
        return self._above.at_least(difference)

    def at_most(self, difference: float) -> float:
        """The p-value of "the true difference is this or less"; small: it is more."""
        return self._below.at_least(-difference)

    def limits(self, confidence: float) -> tuple[float, float]:
        """The lower and the upper limit of the difference; each holds with this confidence."""
        level = 1 - confidence
        return -self._below.limit(level), self._above.limit(level)


class _Upper:
    """The upper confidence distribution of ψ(2θ - 1)."""

    def __init__(self, counts: Counts) -> None:
        self._n, self._b, self._c = counts.examples, counts.only_base, counts.only_update
        self._m = self._b + self._c

    @cached_property
    def _theta(self) -> _Beta:
        return _Beta(self._c + 1, self._b)

    @cached_property
    def _few(self) -> _Beta:
        """The lower confidence distribution of the share that differs."""
        return _Beta(self._m, self._n - self._m + 1)

    @cached_property
    def _many(self) -> _Beta:
        """The upper one."""
        return _Beta(self._m + 1, self._n - self._m)

    @cached_property
    def _not_worse(self) -> float:
        """The one-sided p-value of McNemar's exact test."""
        return binomial_half(self._c, self._m)

    def at_least(self, difference: float) -> float:
        """The probability of this difference or more."""
        x = difference
        if x <= -1 or x > 1:
            return float(x <= -1)
        if x == 0 or self._b == 0:
            # (Without an example that was lost, the share that was won is not bounded.)
            return self._not_worse if x <= 0 else 1 - float(self._many.cdf(np.array([x]))[0])
        # Where ψ reaches the difference is a steep step of θ: it is integrated by itself.
        if x < 0:
            steps = [0.0, *((1 + x / share) / 2 for share in self._few.ends), 0.5]
            part = self._theta.mean_of(lambda t: self._few.cdf(-x / (1 - 2 * t)), steps)
            return min(1.0, self._not_worse + part)
        steps = [0.5, *((1 + x / share) / 2 for share in reversed(self._many.ends)), 1.0]
        return self._theta.mean_of(lambda t: 1 - self._many.cdf(x / (2 * t - 1)), steps)

    def limit(self, level: float) -> float:
        """The difference that is reached or passed with this probability."""
        low, high = -1.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self.at_least(middle) > level:
                low = middle
            else:
                high = middle
        return (low + high) / 2


class _Beta:
    """A beta distribution, tabulated where it has any weight; a or b of 0 is a point at 0 or 1."""

    def __init__(self, a: float, b: float) -> None:
        """Tabulate where there is weight; the density need not be scaled beforehand."""
        self._point = None if a > 0 and b > 0 else float(b <= 0)
        if self._point is not None:
            return
        self._a, self._b = a, b
        mean = a / (a + b)
        # (A small a or b has longer tails than its deviation says.)
        deviation = np.sqrt(mean * (1 - mean) / (a + b + 1)) + 1 / (a + b)
        self._low = max(0.0, mean - _SPREAD * deviation)
        self._high = min(1.0, mean + _SPREAD * deviation)
        self._peak = 0.0
        self._scale = 1.0
        x = np.linspace(self._low, self._high, _TABLE)
        peak = min(max((a - 1) / (a + b - 2), self._low), self._high) if a + b > 2 else mean
        self._peak = float(self._log(np.array([peak]))[0])
        cells = _cumulated(self._density(x), x[1] - x[0])
        self._scale = float(cells[-1])
        self._x, self._cdf, self._slope = x, cells / self._scale, self._density(x)

    def _log(self, x: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            left = (self._a - 1) * np.log(x) if self._a != 1 else np.zeros_like(x)
            right = (self._b - 1) * np.log1p(-x) if self._b != 1 else np.zeros_like(x)
        return np.asarray(left + right, np.float64)

    def _density(self, x: Floats) -> Floats:
        return np.asarray(np.exp(self._log(x) - self._peak) / self._scale, np.float64)

    def cdf(self, x: Floats) -> Floats:
        """The probability of `x` or less, float64 like `x`; by cubics through values and slopes."""
        if self._point is not None:
            return (x >= self._point).astype(np.float64)
        step = self._x[1] - self._x[0]
        place = np.clip((x - self._low) / step, 0, _TABLE - 1)
        cell = np.minimum(place.astype(np.int64), _TABLE - 2)
        t = place - cell
        left, right = self._cdf[cell], self._cdf[cell + 1]
        from_left, from_right = self._slope[cell] * step, self._slope[cell + 1] * step
        return np.asarray(
            left + t * t * (3 - 2 * t) * (right - left)
            + t * (1 - t) * ((1 - t) * from_left - t * from_right),
            np.float64,
        )  # fmt: skip

    @property
    def ends(self) -> tuple[float, float]:
        """Between which points its weight is; neither is 0."""
        if self._point is not None:
            return (self._point or _TINY,) * 2
        return self._low or _TINY, self._high

    def mean_of(self, values: Callable[[Floats], Floats], steps: Sequence[float]) -> float:
        """The integral of `values` from the first of some ascending points to the last.

        It is weighted by the density; `values` may bend sharply at each point.
        """
        found = 0.0
        first, last = max(steps[0], self._low), min(steps[-1], self._high)
        inside = sorted(min(max(one, first), last) for one in steps)
        for low, high in pairwise(inside):
            half = (high - low) / 2
            if half > 0:
                x = low + half * (1 + _NODES)
                found += float(half * np.sum(_WEIGHTS * self._density(x) * values(x)))
        return found


def _cumulated(values: Floats, step: float) -> Floats:
    """The integral up to each point: of every three, a parabola."""
    first, middle, last = values[:-2:2], values[1:-1:2], values[2::2]
    halves = np.empty(values.size - 1)
    halves[0::2] = step * (5 * first + 8 * middle - last) / 12
    halves[1::2] = step * (5 * last + 8 * middle - first) / 12
    return np.concatenate([[0.0], np.cumsum(halves)])


def binomial_half(k: int, n: int) -> float:
    """The probability of k or fewer heads in n tosses of a fair coin."""
    if k >= n:
        return 1.0
    if 2 * k >= n:
        return 1 - binomial_half(n - k - 1, n)
    heads = np.arange(1, k + 1, dtype=np.float64)
    logs = np.concatenate([[0.0], np.cumsum(np.log((n + 1 - heads) / heads))]) - n * np.log(2.0)
    return float(np.exp(logs[-1] + np.log(np.sum(np.exp(logs - logs[-1])))))
