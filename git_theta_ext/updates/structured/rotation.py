"""What rotates rows: blocks on a diagonal, made from skew-symmetric matrices, or reflections.

All sums are in float64, in one fixed order; no linear algebra of a library takes part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.updates.structured.numbers import Numbers

Wide = NDArray[np.float64]

_ENTRIES = 1 << 18
"""Entries of matrices that are solved together."""


def skew_of(above: Numbers, size: int) -> Numbers:
    """Skew-symmetric matrices by what stands above their diagonals, row after row.

    Args:
        above: blocks × (size · (size − 1) / 2).
        size: rows of each.
    """
    found = np.zeros((len(above), size, size), np.float32)
    places = np.triu_indices(size, 1)
    found[:, places[0], places[1]] = above
    return found - found.swapaxes(1, 2)


def above_of(skew: Numbers) -> Numbers:
    """What stands above the diagonals of matrices."""
    places = np.triu_indices(skew.shape[-1], 1)
    return np.ascontiguousarray(skew[..., places[0], places[1]])


def cayley(skew: Numbers) -> Numbers:
    """(I + Q)⁻¹(I − Q) of skew-symmetric matrices, orthogonal ones, rounded to float32.

    By elimination without a choice of pivots: they are at least 1, for I + Q is the unit matrix
    but for what is skew.
    """
    count, size, _ = skew.shape
    step = max(1, _ENTRIES // (size * size))
    found = np.empty_like(skew)
    with np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
        for first in range(0, count, step):
            found[first : first + step] = _solved(skew[first : first + step].astype(np.float64))
    return found


def _solved(skew: Wide) -> Wide:
    size = skew.shape[1]
    left, right = np.eye(size) + skew, np.eye(size) - skew
    for row in range(size):
        pivot = left[:, row, row, None].copy()
        left[:, row] /= pivot
        right[:, row] /= pivot
        below = left[:, row + 1 :, row, None].copy()
        left[:, row + 1 :] -= below * left[:, row, None]
        right[:, row + 1 :] -= below * right[:, row, None]
    for row in range(size - 1, 0, -1):
        right[:, :row] -= left[:, :row, row, None] * right[:, row, None]
    return right


def series(skew: Numbers, terms: int) -> Numbers:
    """I + 2Q + 2Q² + … and the last power once, in float32; products are rounded to that."""
    found: Numbers = np.broadcast_to(np.eye(skew.shape[1], dtype=np.float32), skew.shape)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if terms > 1:
            found = found + np.float32(2) * skew
        if terms > 2:
            power = square_product(skew, skew)
            found = found + np.float32(2) * power
            for _ in range(3, terms - 1):
                power = square_product(power, skew)
                found = found + np.float32(2) * power
            found = found + square_product(power, skew)
    return found


def square_product(left: Numbers, right: Numbers) -> Numbers:
    """Products of two stacks of square matrices, summed in float64 and rounded once."""
    found = np.empty(left.shape, np.float32)
    step = max(1, _ENTRIES // left[0].size)
    for first in range(0, len(left), step):
        some = slice(first, first + step)
        sums = np.zeros(left[some].shape)
        wide = right[some].astype(np.float64)
        for inner in range(left.shape[-1]):
            sums += left[some, :, inner, None] * wide[:, inner, None, :]
        found[some] = sums
    return found


def butterfly(columns: int, blocks: int, half: int) -> NDArray[np.intp]:
    """In each of so many blocks, half-blocks of even places first, then those of odd ones."""
    if not half or not blocks:
        return np.arange(columns)
    parts = np.arange(columns).reshape(blocks, -1, half)
    return np.concatenate([parts[:, ::2], parts[:, 1::2]], axis=1).ravel()


def by_blocks(blocks: Numbers, rows: Wide) -> Wide:
    """A block-diagonal matrix times each row, as columns: `R · w`, summed in one fixed order.

    Args:
        blocks: blocks × size × size; one block is taken for all.
        rows: rows × (blocks · size).
    """
    size = blocks.shape[1]
    parts = rows.reshape(len(rows), -1, size)
    found = np.zeros(parts.shape)
    room = np.empty_like(found)
    wide = np.ascontiguousarray(np.moveaxis(blocks, 2, 0), np.float64)
    for inner in range(size):
        np.multiply(parts[:, :, inner, None], wide[inner], out=room)
        found += room
    return found.reshape(rows.shape)


def reflected(vectors: Wide, rows: Wide, together: bool) -> Wide:
    """Rows reflected by vectors of length 1, one after the other.

    Args:
        vectors: vectors × columns.
        rows: rows × columns; they are changed.
        together: all go by the rows as they were: the vectors are orthogonal to each other.
    """
    found = rows.copy() if together else rows
    for one in vectors:
        along = summed(rows * one)
        found -= (2 * along)[:, None] * one
    return found


def summed(products: Wide) -> NDArray[Any]:
    """The sum of each row, which is overwritten: its last half is added to its first, and again.

    Where a half is no whole number, the place in the middle waits.
    """
    length = products.shape[1]
    while length > 1:
        half = length // 2
        products[:, :half] += products[:, length - half : length]
        length -= half
    return products[:, 0]
