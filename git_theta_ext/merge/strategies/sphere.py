"""Strategies that look at angles between whole tensors: one pass measures, one combines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from git_theta_ext.core.values import Floats
from git_theta_ext.merge.strategies.angles import arccos, sine
from git_theta_ext.merge.strategies.plain import weights_of
from git_theta_ext.merge.strategies.table import (
    Combine,
    NotPossibleError,
    Piece,
    Settings,
    Sides,
)
from git_theta_ext.updates.recipes.arithmetic import sum_in_order, weighted_sum

_PARALLEL = 1 - 1e-8
"""Beyond this cosine the arc is a line."""
_ROUNDS = 100
_STILL = 1e-12

Gram = list[list[float]]


def gram(sides: Sides, vectors: Callable[[Piece], Sequence[Floats]]) -> Gram:
    """All inner products of some vectors, summed slice by slice."""
    count = len(sides.seeds)
    found = [[0.0] * count for _ in range(count)]
    for piece in sides:
        parts = vectors(piece)
        for first in range(count):
            for second in range(first, count):
                found[first][second] += float(np.sum(parts[first] * parts[second]))
    for first in range(count):
        for second in range(first):
            found[first][second] = found[second][first]
    return found


def slerp(sides: Sides, settings: Settings) -> Combine:
    """sin((1−t)θ)/sin θ · ours + sin(tθ)/sin θ · theirs; a straight line where θ is tiny."""
    if len(sides.seeds) != 2:
        raise NotPossibleError("slerp merges two sides; karcher merges more")
    t = float(settings["t"])
    products = gram(sides, lambda piece: piece.sides)
    first, second = 1.0 - t, t
    cosine = _cosine(products, 0, 1)
    if cosine is not None and abs(cosine) < _PARALLEL:
        angle = arccos(cosine)
        first, second = (sine(part * angle) / sine(angle) for part in (1.0 - t, t))
    return lambda piece: weighted_sum([first, second], piece.sides)


def _cosine(products: Gram, first: int, second: int) -> float | None:
    lengths = math.sqrt(products[first][first]) * math.sqrt(products[second][second])
    if not 0 < lengths < math.inf:
        return None
    return max(-1.0, min(1.0, products[first][second] / lengths))


def karcher(sides: Sides, settings: Settings) -> Combine:
    """The point of least squared distance to all directions, at the mean length.

    Every step is a combination of the sides, so all of it happens among their inner products.
    """
    weights = weights_of(settings, len(sides.seeds))
    total = sum_in_order(weights)
    weights = [weight / total for weight in weights]
    products = gram(sides, lambda piece: piece.sides)
    lengths = [math.sqrt(products[number][number]) for number in range(len(weights))]
    if not all(0 < length < math.inf for length in lengths):
        return lambda piece: weighted_sum(weights, piece.sides)
    cosines = [
        [_cosine(products, i, j) or 0.0 for j in range(len(weights))] for i in range(len(weights))
    ]
    place = _karcher_mean(cosines, weights)
    length = sum_in_order(weight * one for weight, one in zip(weights, lengths, strict=True))
    factors = [length * one / own for one, own in zip(place, lengths, strict=True)]
    return lambda piece: weighted_sum(factors, piece.sides)


def _karcher_mean(cosines: Gram, weights: Sequence[float]) -> list[float]:
    """The mean's coordinates in the unit vectors whose cosines these are."""
    place = _unit(list(weights), cosines)
    for _ in range(_ROUNDS):
        step = [0.0] * len(place)
        for number, weight in enumerate(weights):
            cosine = sum_in_order(c * cosines[number][j] for j, c in enumerate(place))
            cosine = max(-1.0, min(1.0, cosine))
            if abs(cosine) >= _PARALLEL:
                continue
            angle = arccos(cosine)
            factor = weight * angle / sine(angle)
            step = [s - factor * cosine * c for s, c in zip(step, place, strict=True)]
            step[number] += factor
        size = math.sqrt(max(0.0, _squared(step, cosines)))
        if size < _STILL:
            break
        turn = sine(size) / size
        near = sine(math.pi / 2 - size)
        place = [near * c + turn * s for c, s in zip(place, step, strict=True)]
        place = _unit(place, cosines)
    return place


def _squared(place: Sequence[float], cosines: Gram) -> float:
    rows = (sum_in_order(c * cosines[i][j] for j, c in enumerate(place)) for i in range(len(place)))
    return sum_in_order(c * row for c, row in zip(place, rows, strict=True))


def _unit(place: list[float], cosines: Gram) -> list[float]:
    size = math.sqrt(max(0.0, _squared(place, cosines)))
    return [c / size for c in place] if size > 0 else place


def model_stock(sides: Sides, settings: Settings) -> Combine:
    """t · mean + (1 − t) · base with t = n·cos θ / (1 + (n − 1)·cos θ), θ between the updates.

    Of several pairs the mean cosine counts; one below zero gives the base.
    """
    products = gram(sides, lambda piece: piece.updates)
    count = len(sides.seeds)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    cosines = [_cosine(products, i, j) or 0.0 for i, j in pairs]
    cosine = max(0.0, sum_in_order(cosines) / len(cosines)) if cosines else 1.0
    t = count * cosine / (1 + (count - 1) * cosine)

    def combine(piece: Piece) -> Floats:
        if piece.base is None:
            raise NotPossibleError("it needs a common base, and there is none")
        mean = weighted_sum([1.0] * count, piece.sides) / count
        return t * mean + (1 - t) * piece.base

    return combine
