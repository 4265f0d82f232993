"""What each recipe computes of numbers, and what its settings mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.values import Floats
from git_theta_ext.updates.recipes import arithmetic
from git_theta_ext.updates.recipes.arithmetic import Updates

Words = Mapping[str, str]
Compute = Callable[[Floats | None, Updates, tuple[int, ...]], Floats]
"""Gives numbers of the base (None if there is none), of some sides, and which sides these are."""


@dataclass(frozen=True, slots=True)
class Formula:
    """One recipe.

    `prepare` makes the function of its settings, for so many sides; None where it takes entries as
    they are. `by_entry` says that it is asked only about entries that several sides changed, each
    with the sides that did; else about every entry that is not the same on all sides.
    """

    settings: frozenset[str]
    prepare: Callable[[Words, int], Compute] | None
    by_entry: bool
    needs_base: bool = True


def numbers_text(numbers: Sequence[float]) -> str:
    """Numbers as a setting: the shortest text that gives the same float64 again."""
    return ",".join(repr(float(number)) for number in numbers)


def _numbers(words: Words, name: str, count: int, default: float) -> list[float]:
    """A setting of so many numbers.

    Raises:
        CorruptObjectError: it is none.
    """
    text = words.get(name)
    if text is None:
        return [default] * count
    try:
        found = [float(word) for word in text.split(",", count)]
    except ValueError:
        found = []
    if len(found) != count or any(math.isnan(number) for number in found):
        raise CorruptObjectError(f"{name}={text!r} of a merge: expected {count} numbers")
    return found


def _average(words: Words, count: int) -> Compute:
    weights = _numbers(words, "weights", count, 1.0)

    def compute(base: Floats | None, sides: Updates, which: tuple[int, ...]) -> Floats:
        return arithmetic.weighted_mean([weights[number] for number in which], sides)

    return compute


def _reapply(words: Words, count: int) -> Compute:
    factor = _numbers(words, "lambda", 1, 1.0)[0]

    def compute(base: Floats | None, sides: Updates, which: tuple[int, ...]) -> Floats:
        return arithmetic.reapplied(_based(base), sides, factor)

    return compute


def _task_arithmetic(words: Words, count: int) -> Compute:
    factor = _numbers(words, "lambda", 1, 1.0)[0]
    weights = _numbers(words, "weights", count, 1.0)

    def compute(base: Floats | None, sides: Updates, which: tuple[int, ...]) -> Floats:
        old = _based(base)
        total = arithmetic.weighted_sum(weights, [side - old for side in sides])
        return arithmetic.added(old, factor, total)

    return compute


def _ties(words: Words, count: int) -> Compute:
    factor = _numbers(words, "lambda", 1, 1.0)[0]
    floors = [np.float32(number) for number in _numbers(words, "floors", count, 0.0)]

    def compute(base: Floats | None, sides: Updates, which: tuple[int, ...]) -> Floats:
        old = _based(base)
        kept = [
            arithmetic.trimmed(side - old, floor) for side, floor in zip(sides, floors, strict=True)
        ]
        return arithmetic.added(old, factor, arithmetic.elect(kept))

    return compute


def _breadcrumbs(words: Words, count: int) -> Compute:
    factor = _numbers(words, "lambda", 1, 1.0)[0]
    floors = [np.float32(number) for number in _numbers(words, "floors", count, 0.0)]
    ceilings = [np.float32(number) for number in _numbers(words, "ceilings", count, math.inf)]

    def compute(base: Floats | None, sides: Updates, which: tuple[int, ...]) -> Floats:
        old = _based(base)
        rows = zip(sides, floors, ceilings, strict=True)
        kept = [arithmetic.between(side - old, floor, ceiling) for side, floor, ceiling in rows]
        return arithmetic.added(old, factor, arithmetic.plain_sum(kept))

    return compute


def _based(base: Floats | None) -> Floats:
    if base is None:
        raise CorruptObjectError("a merge of this kind needs a base, and has none")
    return base


_NONE: frozenset[str] = frozenset()

FORMULAS: dict[tuple[str, int], Formula] = {
    ("entries", 1): Formula(_NONE, None, by_entry=True, needs_base=False),
    ("average", 1): Formula(frozenset({"weights"}), _average, by_entry=True, needs_base=False),
    ("reapply", 1): Formula(frozenset({"lambda"}), _reapply, by_entry=True),
    ("task-arithmetic", 1): Formula(
        frozenset({"lambda", "weights"}), _task_arithmetic, by_entry=False
    ),
    ("ties", 1): Formula(frozenset({"lambda", "floors"}), _ties, by_entry=False),
    ("breadcrumbs", 1): Formula(
        frozenset({"lambda", "floors", "ceilings"}), _breadcrumbs, by_entry=False
    ),
}
"""Every recipe by its strategy and number; none is ever changed or taken away."""
