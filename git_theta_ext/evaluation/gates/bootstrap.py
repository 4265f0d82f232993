"""How far scores of the same examples differ: the studentized bootstrap of paired differences.

Examples are drawn again with replacement, and of each draw the mean is divided by its own standard
error (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 12). It is seeded by
nothing but the number of examples: the same scores give the same answer on every machine.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 4_000
GROUPS = 512
"""Examples beyond this number are put into as many groups of equal size, drawn by chance once.

Sums of independent examples are independent too. What is lost is 3 % of the certainty about the
standard error, of which a group of hundreds leaves enough.
"""
FEW = 20
"""Examples below which a bootstrap knows too little of how scores vary to prove anything."""


class Resampled:
    """The confidence in each mean difference, from paired scores."""

    def __init__(self, differences: Floats) -> None:
        """`differences`, float64 [n], are finite, one for each of at least one example."""
        self._few = differences.size < FEW
        self.difference = float(np.mean(differences))
        # (Centred first: groups are of unequal sizes, and squares of large scores would leave
        # nothing of small differences.)
        values = _grouped(differences - self.difference)
        self._values = values - np.mean(values)
        self.error = float(np.std(values, ddof=1) / np.sqrt(values.size)) if values.size > 1 else 0

    @cached_property
    def _ratios(self) -> Floats:
        """Sorted ratios of how far a draw is off to its own error, float64 [DRAWS]."""
        n = self._values.size
        draws = np.random.default_rng(n).integers(0, n, (DRAWS, n), dtype=np.uint16)
        drawn = self._values[draws]
        off = drawn.mean(axis=1)
        errors = np.sqrt(np.maximum((drawn * drawn).mean(axis=1) - off * off, 0) / (n - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(off == 0, 0.0, off / errors)
        return np.sort(ratios)

    def at_least(self, difference: float) -> float:
        """The p-value of "the true difference is this or more"; small: it is less."""
        if self._few or self.error == 0:
            return 1.0 if self._few else float(self.difference >= difference)
        ratio = (self.difference - difference) / self.error
        return (1 + int(np.searchsorted(self._ratios, ratio, "right"))) / (1 + DRAWS)

    def at_most(self, difference: float) -> float:
        """The p-value of "the true difference is this or less"; small: it is more."""
        if self._few or self.error == 0:
            return 1.0 if self._few else float(self.difference <= difference)
        ratio = (self.difference - difference) / self.error
        above = DRAWS - int(np.searchsorted(self._ratios, ratio, "left"))
        return (1 + above) / (1 + DRAWS)

    def limits(self, confidence: float) -> tuple[float, float]:
        """The lower and the upper limit of the difference; each holds with this confidence."""
        if self._few:
            return -np.inf, np.inf
        if self.error == 0:
            return self.difference, self.difference
        # The smallest ratio that is not refused by the p-values above, and the largest.
        past = int((1 - confidence) * (1 + DRAWS) + 1e-9)
        low, high = (self._ratios[at] for at in (DRAWS - past, past - 1)) if past else (
            np.inf, -np.inf)  # fmt: skip
        return (
            float(self.difference - low * self.error), float(self.difference - high * self.error)
        )  # fmt: skip


def _grouped(values: Floats) -> Floats:
    """The means of at most `GROUPS` groups, of sizes that differ by one at most."""
    if values.size <= GROUPS:
        return values
    order = np.random.default_rng(values.size).permutation(values.size)
    starts = np.arange(GROUPS) * values.size // GROUPS
    return np.asarray(np.add.reduceat(values[order], starts) * (GROUPS / values.size), np.float64)
