"""What each recipe computes of numbers, and what its settings mean."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.values import Floats
from git_theta_ext.updates.recipes import arithmetic
from git_theta_ext.updates.recipes.arithmetic import Updates

Words = Mapping[str, str]
_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Piece:
    """Some entries as numbers: of the base (None if there is none) and of some sides.

    `which` are the numbers of these sides, and `start` counts the entries of the block before.
    """

    base: Floats | None
    sides: Updates
    which: tuple[int, ...]
    start: int = 0

    @property
    def old(self) -> Floats:
        """The base.

        Raises:
            CorruptObjectError: there is none.
        """
        if self.base is None:
            raise CorruptObjectError("a merge of this kind needs a base, and has none")
        return self.base

    @property
    def updates(self) -> list[Floats]:
        """What each side added to the base."""
        return [side - self.old for side in self.sides]


Compute = Callable[[Piece], Floats]


@dataclass(frozen=True, slots=True)
class Formula:
    """One recipe.

    `prepare` makes the function of its settings, for so many sides; None where it takes entries as
    they are. `by_entry` says that it is asked only about entries that several sides changed, each
    with the sides that did; else about every entry that is not the same on all sides. `random` says
    that entries are asked for in runs of `arithmetic.DRAWN`, from the block's first on.
    """

    settings: frozenset[str]
    prepare: Callable[[Words, int], Compute] | None
    by_entry: bool
    needs_base: bool = True
    random: bool = False


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
        raise CorruptObjectError(f"{name}={_brief(text)} of a merge: expected {count} numbers")
    return found


def _average(words: Words, count: int) -> Compute:
    weights = _numbers(words, "weights", count, 1.0)

    def compute(piece: Piece) -> Floats:
        return arithmetic.weighted_mean([weights[number] for number in piece.which], piece.sides)

    return compute


def _reapply(words: Words, count: int) -> Compute:
    factor = _numbers(words, "lambda", 1, 1.0)[0]

    def compute(piece: Piece) -> Floats:
        return arithmetic.reapplied(piece.old, piece.sides, factor)

    return compute


def _task_arithmetic(words: Words, count: int) -> Compute:
    factor = _numbers(words, "lambda", 1, 1.0)[0]
    weights = _numbers(words, "weights", count, 1.0)

    def compute(piece: Piece) -> Floats:
        total = arithmetic.weighted_sum(weights, piece.updates)
        return arithmetic.added(piece.old, factor, total)

    return compute


def _ties(words: Words, count: int) -> Compute:
    factor = _numbers(words, "lambda", 1, 1.0)[0]
    floors = [np.float32(number) for number in _numbers(words, "floors", count, 0.0)]

    def compute(piece: Piece) -> Floats:
        rows = zip(piece.updates, floors, strict=True)
        kept = [arithmetic.trimmed(update, floor) for update, floor in rows]
        return arithmetic.added(piece.old, factor, arithmetic.elect(kept))

    return compute


def _breadcrumbs(words: Words, count: int) -> Compute:
    factor = _numbers(words, "lambda", 1, 1.0)[0]
    floors = [np.float32(number) for number in _numbers(words, "floors", count, 0.0)]
    ceilings = [np.float32(number) for number in _numbers(words, "ceilings", count, math.inf)]

    def compute(piece: Piece) -> Floats:
        rows = zip(piece.updates, floors, ceilings, strict=True)
        kept = [arithmetic.between(update, floor, ceiling) for update, floor, ceiling in rows]
        return arithmetic.added(piece.old, factor, arithmetic.plain_sum(kept))

    return compute


def _dare(words: Words, count: int, join: Callable[[Updates], Floats]) -> Compute:
    """Updates thinned at random and scaled up, then joined."""
    factor = _numbers(words, "lambda", 1, 1.0)[0]
    density = _numbers(words, "density", 1, 0.5)[0]
    if not 0 <= density <= 1:
        raise CorruptObjectError(f"density={density!r} of a merge: expected a number from 0 to 1")
    seeds = _seeds(words, count)
    begin = _start(words)

    def compute(piece: Piece) -> Floats:
        rows = zip(piece.updates, seeds, strict=True)
        kept = [
            arithmetic.thinned(update, density, seed, begin + piece.start) for update, seed in rows
        ]
        return arithmetic.added(piece.old, factor, join(kept))

    return compute


def _dare_linear(words: Words, count: int) -> Compute:
    return _dare(words, count, arithmetic.plain_sum)


def _dare_ties(words: Words, count: int) -> Compute:
    return _dare(words, count, arithmetic.elect)


def _seeds(words: Words, count: int) -> list[bytes]:
    """What the random choices of each side begin with: 32 bytes, in hexadecimal."""
    text = words.get("seeds", "")
    if not re.fullmatch("[0-9a-f]{64}(?:,[0-9a-f]{64})*", text) or text.count(",") != count - 1:
        raise CorruptObjectError(f"seeds={_brief(text)} of a merge: expected {count} of 32 bytes")
    return [bytes.fromhex(seed) for seed in text.split(",")]


def _start(words: Words) -> int:
    """Where in its tensor the block begins."""
    text = words.get("start", "0")
    if not re.fullmatch("0|[1-9][0-9]{0,18}", text):
        raise CorruptObjectError(f"start={_brief(text)} of a merge: expected a number")
    return int(text)


def _brief(text: str) -> str:
    """A setting as errors show it: whoever wrote it chose how long it is."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


_NONE: frozenset[str] = frozenset()
_RANDOM = frozenset({"lambda", "density", "seeds", "start"})

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
    ("dare-linear", 1): Formula(_RANDOM, _dare_linear, by_entry=False, random=True),
    ("dare-ties", 1): Formula(_RANDOM, _dare_ties, by_entry=False, random=True),
}
"""Every recipe by its strategy and number; none is ever changed or taken away."""
