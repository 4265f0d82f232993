"""The figures of two updates that meet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """How two updates of one base meet, summed over a tensor.

    `entries` counts all entries compared, `collided` those that both sides changed; `dot`, `ours`
    and `theirs` are the inner product of the two updates and their squared norms, over finite
    entries; all zero where there is no base.
    """

    entries: int = 0
    collided: int = 0
    nan_ours: int = 0
    nan_theirs: int = 0
    dot: float = 0.0
    ours: float = 0.0
    theirs: float = 0.0

    def __add__(self, other: Measure) -> Measure:
        return Measure(
            self.entries + other.entries,
            self.collided + other.collided,
            self.nan_ours + other.nan_ours,
            self.nan_theirs + other.nan_theirs,
            self.dot + other.dot,
            self.ours + other.ours,
            self.theirs + other.theirs,
        )

    @property
    def share(self) -> float:
        """The share of entries that collide."""
        return self.collided / self.entries if self.entries else 0.0

    @property
    def cosine(self) -> float | None:
        """The cosine of the two updates, or None where one of them is nothing."""
        scale = self.ours**0.5 * self.theirs**0.5
        return self.dot / scale if scale > 0 else None

    @property
    def ratio(self) -> float | None:
        """How many times longer the update of theirs is than that of ours."""
        if self.ours <= 0 or self.theirs <= 0:
            return None
        return float((self.theirs / self.ours) ** 0.5)
