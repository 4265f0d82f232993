"""Strategies that take a side, or add and average: nothing is measured first."""

from __future__ import annotations

from collections.abc import Sequence

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.values import Floats
from git_theta_ext.merge.strategies.table import (
    Combine,
    Formula,
    NotPossibleError,
    Piece,
    Settings,
    Sides,
    Words,
)
from git_theta_ext.updates.recipes import arithmetic
from git_theta_ext.updates.recipes.formulas import numbers_text


def weights_of(settings: Settings, count: int) -> list[float]:
    """The weight of each side; 1 for all where none are set.

    Raises:
        UsageError: not as many as there are sides, or all zero.
    """
    given = settings["weights"]
    weights = [float(item) for item in (given if isinstance(given, tuple) else (given,))]
    if not weights:
        return [1.0] * count
    if len(weights) != count or not sum(weights) > 0:
        raise UsageError(f"weights are needed for {count} sides, not all zero; got {weights}")
    return weights


def ours(sides: Sides, settings: Settings) -> Combine:
    """The first side."""
    return lambda piece: piece.sides[0]


def theirs(sides: Sides, settings: Settings) -> Combine:
    """The last side."""
    return lambda piece: piece.sides[-1]


def base(sides: Sides, settings: Settings) -> Combine:
    """What was there before."""

    return based


def average(sides: Sides, settings: Settings) -> Combine:
    """Σ w·x / Σ w."""
    weights = weights_of(settings, len(sides.seeds))
    return Formula(
        "average",
        lambda piece: arithmetic.weighted_mean(weights, piece.sides),
        stated(weights=weights),
    )


def task_arithmetic(sides: Sides, settings: Settings) -> Combine:
    """base + λ · Σ w · (x − base)."""
    weights = weights_of(settings, len(sides.seeds))

    def combine(piece: Piece) -> Floats:
        return added(piece, settings, arithmetic.weighted_sum(weights, piece.updates))

    return Formula("task-arithmetic", combine, stated(settings, weights=weights))


def reapply(sides: Sides, settings: Settings) -> Combine:
    """ours + λ · Σ (theirs − base), for all sides after the first."""
    factor = float(settings["lambda"])

    def combine(piece: Piece) -> Floats:
        return arithmetic.reapplied(based(piece), piece.sides, factor)

    return Formula("reapply", combine, stated(settings))


def based(piece: Piece) -> Floats:
    """The base of a piece.

    Raises:
        NotPossibleError: there is none.
    """
    if piece.base is None:
        raise NotPossibleError("it needs a common base, and there is none")
    return piece.base


def added(piece: Piece, settings: Settings, update: Floats) -> Floats:
    """base + λ · update."""
    return arithmetic.added(based(piece), float(settings["lambda"]), update)


def stated(settings: Settings | None = None, **numbers: Sequence[float]) -> Words:
    """Settings as a recipe states them; what is as usual is left out.

    Args:
        settings: of the strategy; its λ is stated.
        numbers: further settings by their names; weights of one for each side are as usual.
    """
    found = []
    if settings is not None and float(settings["lambda"]) != 1.0:
        found.append(("lambda", numbers_text([float(settings["lambda"])])))
    for name, values in numbers.items():
        if name != "weights" or any(value != 1.0 for value in values):
            found.append((name, numbers_text(values)))
    return tuple(found)
