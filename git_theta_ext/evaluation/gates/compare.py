"""How much better or worse one score is than another, and how sure that is.

Two versions that answered the same examples are compared example by example, for most examples are
equally hard for both, and what they have in common cancels out: exactly where an answer is right or
wrong (`paired`), by a bootstrap where it has a score (`bootstrap`). Else their standard errors are
all there is. Which was used is part of the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, Protocol

from git_theta_ext.evaluation.gates import bootstrap, paired
from git_theta_ext.evaluation.results import SHARES, Score

How = Literal["exact", "bootstrap", "errors", "numbers"]
"""By which test; `numbers`: by none, for nothing says how sure the scores are."""

WORDS: dict[How, str] = {
    "exact": "paired, exact",
    "bootstrap": "paired, bootstrap",
    "errors": "unpaired, by standard errors",
    "numbers": "numbers alone: neither examples nor standard errors are known",
}
_ROUNDED = 1e-4
"""How far a score may be from the mean of its examples and still be that mean, rounded."""


class Test(Protocol):
    """What is known of the difference of two scores, update less base."""

    def at_least(self, difference: float) -> float:
        """The p-value of "the true difference is this or more"; small: it is less."""

    def at_most(self, difference: float) -> float:
        """The p-value of "the true difference is this or less"; small: it is more."""

    def limits(self, confidence: float) -> tuple[float, float]:
        """The lower and the upper limit of the difference; each holds with this confidence."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two scores in the metric's own unit, and the test that judges it.

    Attributes:
        value: the update's score less the base's.
        how: by which test.
        test: that test, oriented as `value`.
        examples: how many were compared one by one; None where they were not.
        note: why examples that are there were not compared one by one; "" where they were.
    """

    value: float
    how: How
    test: Test
    examples: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Normal:
    """A difference whose error is that of a normal distribution, by two standard errors."""

    difference: float
    error: float

    def at_least(self, difference: float) -> float:
        """See `Test`."""
        if self.error == 0:
            return float(self.difference >= difference)
        return NormalDist().cdf((self.difference - difference) / self.error)

    def at_most(self, difference: float) -> float:
        """See `Test`."""
        if self.error == 0:
            return float(self.difference <= difference)
        return NormalDist().cdf((difference - self.difference) / self.error)

    def limits(self, confidence: float) -> tuple[float, float]:
        """See `Test`."""
        far = NormalDist().inv_cdf(confidence) * self.error
        return self.difference - far, self.difference + far


def compare(base: Score, update: Score) -> Difference:
    """The difference of two scores of one task by one metric, by the best test that they allow."""
    value = update.value - base.value
    note = _why_unpaired(base, update)
    if not note and base.examples is not None and update.examples is not None:
        before, after = base.examples.values(), update.examples.values()
        if base.examples.kind == update.examples.kind == "right":
            counts = paired.count(before == 1, after == 1)
            return Difference(value, "exact", paired.Melded(counts), counts.examples)
        return Difference(value, "bootstrap", bootstrap.Resampled(after - before), before.size)
    if _is_share(base) and _is_share(update):
        return Difference(value, "errors", _shares(base, update), note=note)
    errors = (base.error, update.error)
    if errors[0] is None or errors[1] is None or not any(errors):
        return Difference(value, "numbers", Normal(value, 0.0))
    return Difference(value, "errors", Normal(value, math.hypot(errors[0], errors[1])), note=note)


def _why_unpaired(base: Score, update: Score) -> str:
    """Why the outcomes of examples are not compared one by one; "" where they can be."""
    if base.examples is None or update.examples is None:
        return "the outcomes of examples are not known on both sides"
    if base.examples.ids_hash != update.examples.ids_hash:
        return "the examples are not the same"
    for one in (base, update):
        found = one.examples.values().mean() if one.examples is not None else one.value
        if abs(found - one.value) > _ROUNDED * max(1.0, abs(one.value)):
            return f"{one.metric} is not the mean of its examples"
    return ""


def _is_share(one: Score) -> bool:
    """Whether a score is the share of a known number of examples that are right."""
    named = one.metric.partition(",")[0] in SHARES
    return named and one.count is not None and one.count > 0 and 0 <= one.value <= 1


def _shares(base: Score, update: Score) -> Normal:
    """The difference of two shares, with one example added to each side of each.

    So that shares of 0 and 1 are not taken for certain: Agresti and Caffo, "Simple and effective
    confidence intervals for proportions …", The American Statistician 54 (2000), pages 280 to 288.
    """
    (p, n), (q, m) = (
        ((one.value * (one.count or 0) + 1) / ((one.count or 0) + 2), (one.count or 0) + 2)
        for one in (base, update)
    )
    return Normal(q - p, math.sqrt(p * (1 - p) / n + q * (1 - q) / m))


def holm(values: Sequence[float]) -> list[float]:
    """The p-values of several tests, such that the chance of any false alarm stays what it was.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979), pages 65 to 70.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted = [0.0] * len(values)
    least = 0.0
    for rank, at in enumerate(order):
        least = max(least, min(1.0, values[at] * (len(values) - rank)))
        adjusted[at] = least
    return adjusted
