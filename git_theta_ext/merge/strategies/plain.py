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
from git_theta_ext.updates.recipes import arithmetic, formulas
from git_theta_ext.updates.recipes.formulas import FORMULAS, numbers_text


def weights_of(settings: Settings, count: int) -> list[float]:
    """The weight of each side; 1 for all where none are set.

    Raises:
        UsageError: not as many as there are sides, or all zero.
    """
    given = settings["weights"]
    weights = [float(item) for item in (given if isinstance(given, tuple) else (given,))]
    if not weights:
        return [1.0] * count
    if len(weights) != count or not arithmetic.sum_in_order(weights) > 0:
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
    return by_recipe("average", stated(weights=weights), sides)


def task_arithmetic(sides: Sides, settings: Settings) -> Combine:
    """base + λ · Σ w · (x − base)."""
    weights = weights_of(settings, len(sides.seeds))
    return by_recipe("task-arithmetic", stated(settings, weights=weights), sides)


def reapply(sides: Sides, settings: Settings) -> Combine:
    """ours + λ · Σ (theirs − base), for all sides after the first."""
    return by_recipe("reapply", stated(settings), sides)


def by_recipe(name: str, words: Words, sides: Sides) -> Formula:
    """A strategy that is its recipe: what is merged now is what will be read (`updates/recipes`).

    Args:
        name: the recipe's strategy.
        words: its settings.
        sides: what it is for.
    """
    count = len(sides.seeds)
    recipe = FORMULAS[name, 1]
    compute = recipe.prepare(dict(words), count) if recipe.prepare is not None else None
    if compute is None:
        raise ValueError(f"{name} takes entries as they are")
    which = tuple(range(count))

    def combine(piece: Piece) -> Floats:
        base = based(piece) if recipe.needs_base else piece.base
        return compute(formulas.Piece(base, piece.sides, which, piece.start))

    return Formula(name, combine, words)


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
