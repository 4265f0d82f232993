"""The matrices that products are made of: whole, or thin factors with or without a core.

A product is summed in float64, one rank after the other, and rounded once to float32: the same
bits everywhere, and those that a supplied adapter is applied with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.updates.structured.law import CHUNK, Parts, Settings
from git_theta_ext.updates.structured.numbers import Numbers, pack, rounded, unpack, whole


def product(left: NDArray[Any], right: NDArray[Any], rows: slice) -> Numbers:
    """Some rows of a product of two matrices: summed in float64, one column after the other."""
    thin = left[rows].astype(np.float64)
    wide = right.astype(np.float64)
    found = np.zeros((len(thin), right.shape[1]))
    step = max(1, CHUNK // max(1, right.shape[1]))
    for first in range(0, len(thin), step):
        piece, sums = thin[first : first + step], found[first : first + step]
        room = np.empty_like(sums)
        for column, row in zip(piece.T, wide, strict=True):
            np.multiply(column[:, None], row, out=room)
            sums += room
    return found.astype(np.float32)


@dataclass(frozen=True)
class Side:
    """A matrix: `left` itself, or `left @ right`, or `left` times the core along `right`.

    All are float32. `left` is rows × rank and `right` rank × columns. With a core (rank × inner ×
    kernel) `right` is inner × width, and a column is a place of `right` and one of the kernel.
    """

    left: Numbers
    right: Numbers | None = None
    core: Numbers | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        if self.right is None:
            return self.left.shape[0], self.left.shape[1]
        kernel = 1 if self.core is None else self.core.shape[2]
        return self.left.shape[0], self.right.shape[1] * kernel

    @property
    def rank(self) -> int:
        """What is summed for each entry; 0 of a whole matrix."""
        return 0 if self.right is None else self.left.shape[1]

    @property
    def products(self) -> int:
        """What is summed for each entry of the matrix, or of a core's."""
        return self.rank + (0 if self.core is None else self.core.shape[1])

    @property
    def largest(self) -> int:
        """Entries of the matrix, or of the largest thing that it is made of."""
        parts = [one.size for one in (self.left, self.right, self.core) if one is not None]
        return max(*parts, self.shape[0] * self.shape[1])

    @property
    def numbers(self) -> int:
        """How many are stored."""
        return sum(one.size for one in (self.left, self.right, self.core) if one is not None)

    def rounded(self, bits: int) -> Side:
        """The same with numbers of so many bits of mantissa."""
        parts = (self.left, self.right, self.core)
        left, right, core = (None if one is None else rounded(one, bits) for one in parts)
        return self if left is None else Side(left, right, core)

    @cached_property
    def across(self) -> Numbers:
        """The right factor, with the core multiplied in: rank × columns."""
        if self.right is None:
            raise ValueError("a whole matrix has no right factor")
        if self.core is None:
            return self.right
        ranks, inner, kernel = self.core.shape
        found = np.zeros((ranks, self.right.shape[1], kernel))
        wide = self.right.astype(np.float64)
        for one in range(inner):
            found += self.core[:, one, None, :].astype(np.float64) * wide[one][None, :, None]
        return found.reshape(ranks, -1).astype(np.float32)

    def rows(self, rows: slice) -> Numbers:
        """Some rows of the matrix."""
        return self.left[rows] if self.right is None else product(self.left, self.across, rows)

    @cached_property
    def matrix(self) -> Numbers:
        """All of them."""
        return self.rows(slice(0, len(self.left)))

    def of_rows(self, rows: slice) -> Side:
        """The matrix of some rows alone."""
        return Side(self.left[rows], self.right, self.core)

    def transposed(self) -> Side:
        """Columns for rows; a core is multiplied in."""
        if self.right is None:
            return Side(np.ascontiguousarray(self.left.T))
        sides = (np.ascontiguousarray(one.T) for one in (self.across, self.left))
        return Side(*sides)

    def as_stored(self) -> Side:
        """The same matrix in a form that may be stored: whole where its factors are no smaller."""
        rows, columns = self.shape
        if self.right is None:
            return self
        parts = (self.left, self.right) + (() if self.core is None else (self.core,))
        inner = 1 if self.core is None else self.core.shape[1]
        fits = max(self.rank, inner) <= limits.RANK and self.rank <= min(rows, columns)
        if fits and sum(part.size for part in parts) < rows * columns:
            return self
        return Side(self.matrix)

    def packed(self, name: str) -> tuple[Settings, Parts]:
        """Its settings and parts, under a name."""
        said: Settings = {"shape": list(self.shape)}
        parts: Parts = {f"{name}.left": pack(self.left)}
        if self.right is not None:
            said["rank"] = self.rank
            parts[f"{name}.right"] = pack(self.right)
        if self.core is not None:
            said["core"] = list(self.core.shape[1:])
            parts[f"{name}.core"] = pack(self.core)
        return {name: said}, parts


def read_side(
    settings: Mapping[str, Any], parts: Mapping[str, memoryview], name: str, most: int
) -> Side:
    """A matrix of at most so many entries, none of whose parts has more.

    Args:
        settings, parts: of a parameter file.
        name: `first` or `second`.
        most: how many values the block has.

    Raises:
        CorruptObjectError, KeyError, TypeError, ValueError: it is damaged, or larger.
    """
    said = settings[name]
    (rows, columns), rank = said["shape"], said.get("rank")
    extents = {"rows": rows, "columns": columns}
    rows, columns = (whole(extents, one, 1, most) for one in extents)
    if rows * columns > most:
        raise CorruptObjectError(f"a matrix of {rows} × {columns} in a block of {most} values")
    if rank is None:
        return Side(unpack(parts[f"{name}.left"], (rows, columns)))
    # Without this, a small file could make a large block of one row cost rank times its size.
    rank = whole(said, "rank", 1, min(rows, columns, limits.RANK))
    left = unpack(parts[f"{name}.left"], (rows, rank))
    if "core" not in said:
        return Side(left, unpack(parts[f"{name}.right"], (rank, columns)))
    inner, kernel = said["core"]
    extents = {"inner": inner, "kernel": kernel}
    inner, kernel = whole(extents, "inner", 1, limits.RANK), whole(extents, "kernel", 1, columns)
    width = columns // kernel
    if width * kernel != columns or max(inner * width, rank * inner * kernel) > most:
        raise CorruptObjectError(f"a core of {inner} × {kernel} in a matrix of {columns} columns")
    core = unpack(parts[f"{name}.core"], (rank, inner, kernel))
    return Side(left, unpack(parts[f"{name}.right"], (inner, width)), core)


def words(first: Side, second: Side) -> tuple[tuple[str, str], ...]:
    """The ranks of two sides, as one where they are the same."""
    ranks = [str(one.rank) if one.rank else "full" for one in (first, second)]
    return (("rank", ranks[0] if len(set(ranks)) == 1 else ",".join(ranks)),)
