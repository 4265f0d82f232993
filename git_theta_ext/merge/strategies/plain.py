"""Strategies that take a side, or add and average: nothing is measured first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from git_theta_ext.core.errors import UsageError
from git_theta_ext.merge.strategies.table import (
    Combine,
    Floats,
    NotPossibleError,
    Piece,
    Settings,
    Sides,
)


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


def weighted_sum(weights: Sequence[float], arrays: Sequence[Floats]) -> Floats:
    """Σ w·x, from the first to the last."""
    if all(weight == 1.0 for weight in weights) and len(arrays) > 1:
        total = np.add(arrays[0], arrays[1])
        for array in arrays[2:]:
            total += array
        return total
    total = np.multiply(weights[0], arrays[0])
    for weight, array in zip(weights[1:], arrays[1:], strict=True):
        total += weight * array
    return total


def ours(sides: Sides, settings: Settings) -> Combine:
    """The first side."""
    return lambda piece: piece.sides[0]


def theirs(sides: Sides, settings: Settings) -> Combine:
    """The last side."""
    return lambda piece: piece.sides[-1]


def base(sides: Sides, settings: Settings) -> Combine:
    """What was there before."""

    def combine(piece: Piece) -> Floats:
        if piece.base is None:
            raise NotPossibleError("it needs a common base, and there is none")
        return piece.base

    return combine


def average(sides: Sides, settings: Settings) -> Combine:
    """Σ w·x / Σ w."""
    weights = weights_of(settings, len(sides.seeds))
    total = sum(weights)

    def combine(piece: Piece) -> Floats:
        found = weighted_sum(weights, piece.sides)
        found /= total
        return found

    return combine


def task_arithmetic(sides: Sides, settings: Settings) -> Combine:
    """base + λ · Σ w · (x − base)."""
    weights = weights_of(settings, len(sides.seeds))

    def combine(piece: Piece) -> Floats:
        return added(piece, settings, weighted_sum(weights, piece.updates))

    return combine


def reapply(sides: Sides, settings: Settings) -> Combine:
    """ours + λ · Σ (theirs − base), for all sides after the first."""

    def combine(piece: Piece) -> Floats:
        others = piece.updates[1:]
        total = weighted_sum([1.0] * len(others), others)
        return piece.sides[0] + float(settings["lambda"]) * total

    return combine


def added(piece: Piece, settings: Settings, update: Floats) -> Floats:
    """base + λ · update."""
    if piece.base is None:
        raise NotPossibleError("it needs a common base, and there is none")
    result: Floats = np.add(piece.base, float(settings["lambda"]) * update)
    return result
