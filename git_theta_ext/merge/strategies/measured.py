"""Strategies that need what was measured on data: Fisher diagonals, or Gram matrices of inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.values import Floats
from git_theta_ext.merge.strategies.plain import weights_of
from git_theta_ext.merge.strategies.table import (
    Combine,
    NotPossibleError,
    Piece,
    Settings,
    Sides,
)
from git_theta_ext.updates.recipes.arithmetic import sum_in_order, weighted_sum

MAX_WIDTH = 4096
"""Wider layers would take more than a minute and half a gigabyte for each matrix."""


def fisher(sides: Sides, settings: Settings) -> Combine:
    """Σ w·F·x / Σ w·F; the mean where no side felt anything, or nothing was measured."""
    weights = weights_of(settings, len(sides.seeds))
    diagonals = [one.ravel() for one in sides.statistic("fisher")]
    if not diagonals:
        return lambda piece: weighted_sum(weights, piece.sides) / sum_in_order(weights)
    for one in diagonals:
        if one.size != sides.count:
            raise NotPossibleError(
                f"its Fisher statistics have {one.size} entries, the tensor {sides.count}"
            )
        if not np.all(np.isfinite(one)) or np.any(one < 0):
            raise NotPossibleError("its Fisher statistics are negative, NaN or infinite")

    def combine(piece: Piece) -> Floats:
        where = slice(piece.start, piece.start + len(piece.sides[0]))
        masses = [
            weight * one[where].astype(np.float64)
            for weight, one in zip(weights, diagonals, strict=True)
        ]
        total = weighted_sum([1.0] * len(masses), masses)
        products = [mass * side for mass, side in zip(masses, piece.sides, strict=True)]
        moved = weighted_sum([1.0] * len(products), products)
        mean = weighted_sum(weights, piece.sides) / sum_in_order(weights)
        result: Floats = np.where(total > 0, moved / np.where(total > 0, total, 1.0), mean)
        return result

    return combine


def regmean(sides: Sides, settings: Settings) -> Combine:
    """W = (Σ G)⁻¹ Σ G·W for weights of [out, in]; vectors and embeddings are averaged.

    A kernel of one pixel, [out, in, 1, 1], is such a weight too. G is the Gram matrix of a layer's
    inputs, what is off its diagonal scaled by α.
    """
    linear = len(sides.shape) >= 2 and all(size == 1 for size in sides.shape[2:])
    grams = sides.statistic("gram") if linear else ()
    if not grams:
        count = len(sides.seeds)
        return lambda piece: weighted_sum([1.0] * count, piece.sides) / count
    rows, width = sides.shape[:2]
    if width > MAX_WIDTH:
        raise NotPossibleError(f"regmean takes layers of up to {MAX_WIDTH} inputs, not {width}")
    scaled = [_scaled(one, width, float(settings["alpha"])) for one in grams]
    # Transposed, W = Σ W·G (Σ G)⁻¹ where all G are symmetric: each row for itself. The products
    # come first: most wide layers have fewer rows than inputs, so little is left to solve.
    total = eliminated(np.add.reduce(scaled))
    merged = np.empty(rows * width)
    for start, parts in _whole_rows(sides, width):
        found = [_product(part, one) for part, one in zip(parts, scaled, strict=True)]
        solved = substituted(total, np.add.reduce(found).T)
        merged[start : start + parts[0].size] = solved.T.ravel()
    return lambda piece: merged[piece.start : piece.start + len(piece.sides[0])]


def _whole_rows(sides: Sides, width: int) -> Iterator[tuple[int, list[Floats]]]:
    """The sides as matrices of some whole rows, and where in the tensor these begin."""
    if not width:
        return
    start, held = 0, [np.zeros(0) for _ in sides.seeds]
    for piece in sides:
        held = [np.concatenate(pair) for pair in zip(held, piece.sides, strict=True)]
        whole = len(held[0]) // width * width
        if whole:
            yield start, [one[:whole].reshape(-1, width) for one in held]
            start, held = start + whole, [one[whole:] for one in held]


def _scaled(matrix: NDArray[Any], width: int, alpha: float) -> Floats:
    if matrix.shape != (width, width):
        raise NotPossibleError(f"its Gram matrix is {list(matrix.shape)}, not [{width}, {width}]")
    full = matrix.astype(np.float64)
    if not np.all(np.isfinite(full)) or np.any(np.diagonal(full) < 0):
        raise NotPossibleError("its Gram matrix has negative squares, NaN or infinity")
    full = (full + full.T) / 2
    diagonal = np.diagonal(full).copy()
    full *= alpha
    np.fill_diagonal(full, diagonal)
    return full


def _product(left: Floats, right: Floats) -> Floats:
    """A matrix product, summed from the first term to the last: the same on every machine."""
    total = np.zeros((left.shape[0], right.shape[1]))
    for number in range(left.shape[1]):
        total += left[:, number, None] * right[number]
    return total


def eliminated(matrix: Floats) -> Floats:
    """A symmetric positive definite matrix, eliminated: an upper triangle, the factors below it.

    Inputs that never occur make it singular: a millionth of the mean square is added to the
    diagonal.

    Raises:
        NotPossibleError: it is not positive definite.
    """
    size = len(matrix)
    left = matrix.copy()
    mean = float(np.sum(np.diagonal(left))) / size if size else 0.0
    left[np.diag_indices(size)] += 1e-6 * mean if mean > 0 else 1.0
    for number in range(size):
        pivot = left[number, number]
        if not pivot > 0:
            raise NotPossibleError("its Gram matrix is not positive definite")
        below = left[number + 1 :]
        below[:, number] /= pivot
        below[:, number + 1 :] -= below[:, number, None] * left[number, number + 1 :]
    return left


def substituted(left: Floats, right: Floats) -> Floats:
    """X of `matrix` · X = `right`, where `left` is `eliminated(matrix)`."""
    answer = np.ascontiguousarray(right).copy()
    for number in range(len(left)):
        answer[number + 1 :] -= left[number + 1 :, number, None] * answer[number]
    for number in range(len(left) - 1, -1, -1):
        answer[number] /= left[number, number]
        answer[:number] -= left[:number, number, None] * answer[number]
    return answer
