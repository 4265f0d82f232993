"""Settle the entries of a tensor that collide: from a version as they are, or by a computation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.tensors import DType
from git_theta_ext.core.values import (
    Floats,
    Mask,
    Values,
    beyond_range,
    from_floats,
    larger,
    not_finite,
    to_floats,
)
from git_theta_ext.merge.combine.collisions import Compared, Split
from git_theta_ext.merge.combine.result import Left
from git_theta_ext.merge.combine.tensor import Read
from git_theta_ext.merge.strategies import table
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice, Setting
from git_theta_ext.merge.strategies.table import Combine, NotPossibleError, Piece, Sides
from git_theta_ext.updates.recipes.arithmetic import sum_in_order


def piece_of(dtype: DType, start: int, read: Read) -> tuple[Piece, Mask | None]:
    """A slice as numbers, and which entries of it are none (they are zeros in the piece).

    Args:
        dtype: of kind float or complex.
        start: where in the tensor the slice begins.
        read: its values in all versions.
    """
    versions = read.sides if read.base is None else (read.base, *read.sides)
    floats = [to_floats(dtype, one) for one in versions]
    wrong = not_finite(floats)
    if wrong is not None:
        floats = [np.where(wrong, 0.0, one) for one in floats]
    return _piece(start, read.base is not None, floats), wrong


def _piece(start: int, based: bool, floats: Sequence[Floats]) -> Piece:
    return Piece(start, floats[0] if based else None, tuple(floats[1 if based else 0 :]))


class Settler:
    """What becomes of the entries of one tensor that collide, by one choice."""

    def __init__(self, choice: Choice, dtype: DType, sides: Sides) -> None:
        """`sides` is the whole tensor, for strategies.

        Raises:
            UsageError: the settings are not the strategy's.
            NotPossibleError: the strategy cannot be used on this tensor.
        """
        self._choice, self._dtype, self._sides = choice, dtype, sides
        self._made: dict[tuple[int, ...], Combine] = {}
        self._all = tuple(range(len(sides.seeds)))
        self._computes = choice.strategy not in ("conflict", "larger", "zero")
        self.combine = self._combine(self._all) if self._computes else None

    def _combine(self, numbers: tuple[int, ...]) -> Combine:
        """The strategy for entries that only some sides changed."""
        if numbers not in self._made:
            strategy = table.get(self._choice.strategy)
            if numbers == self._all:
                self._made[numbers] = strategy.prepare(self._sides, self._choice.settings)
            else:
                given = narrowed(self._choice, numbers).settings
                self._made[numbers] = strategy.prepare(_Some(self._sides, numbers), given)
        return self._made[numbers]

    def settle(self, start: int, read: Read, found: Compared, result: Values) -> Left:
        """Settle a slice; what stays open.

        Args:
            start: where in the tensor the slice begins.
            read: its values in all versions.
            found: what collides in it.
            result: the slice of the result, with `found.split.exact` in it; written to.
        """
        split = found.split
        if self._choice == CONFLICT:
            return Left(split.count)
        if self._picked(read, split, result):
            return Left()
        if not self._computes:
            return Left(split.count)
        if split.moved is not None:
            return self._blend_some(start, read, found, result)
        if found.floats is None:
            piece, wrong = piece_of(self._dtype, start, read)
        else:
            piece, wrong = _piece(start, read.base is not None, found.floats), None
        blended = from_floats(self._dtype, self._combine(self._all)(piece))
        return self._put(blended, wrong, split.collide, result)

    def _put(self, blended: Values, wrong: Mask | None, collide: Mask, result: Values) -> Left:
        """Take what was computed for entries that collide, where it means something."""
        total = int(np.count_nonzero(collide))
        high = beyond_range(self._dtype, blended)
        if wrong is None and high is None and total == len(result):
            result[:] = blended
            return Left()
        numbers = collide if wrong is None else collide & ~wrong
        settled = numbers if high is None else numbers & ~high
        np.copyto(result, blended, where=settled)
        bad = total - int(np.count_nonzero(numbers))
        count = total - int(np.count_nonzero(settled))
        return Left(count, bad, count - bad)

    def _blend_some(self, start: int, read: Read, found: Compared, result: Values) -> Left:
        """As `settle` where some entries were changed by some sides, others by others."""
        places = np.flatnonzero(found.split.collide)
        codes = np.zeros(len(places), np.uint32)
        for number, moved in enumerate(found.split.moved or ()):
            codes |= moved[places].astype(np.uint32) << np.uint32(number)
        left = Left()
        for code in np.unique(codes).tolist():
            numbers = tuple(number for number in self._all if code >> number & 1)
            where = places[codes == code]
            base = None if read.base is None else read.base[where]
            some = Read(base, tuple(read.sides[number][where] for number in numbers))
            piece, wrong = piece_of(self._dtype, start, some)
            blended = from_floats(self._dtype, self._combine(numbers)(piece))
            kept = result[where]
            left += self._put(blended, wrong, np.ones(len(where), np.bool_), kept)
            result[where] = kept
        return left

    def _picked(self, read: Read, split: Split, result: Values) -> bool:
        """Take what collides from a version, bit by bit; False where the choice is to compute."""
        strategy = self._choice.strategy
        if strategy == "ours":
            return True  # it stands already
        if strategy == "theirs":
            _take_last(read, split, result)
        elif strategy == "base" and read.base is not None:
            np.copyto(result, read.base, where=split.collide)
        elif strategy == "larger":
            most = reduce(lambda a, b: larger(self._dtype, a, b), read.sides)
            np.copyto(result, most, where=split.collide)
        else:
            return False
        return True


def _take_last(read: Read, split: Split, result: Values) -> None:
    """Take each entry that collides from the last side that changed it."""
    if split.moved is None:
        np.copyto(result, read.sides[-1], where=split.collide)
        return
    for one, moved in zip(read.sides, split.moved, strict=True):
        np.copyto(result, one, where=split.collide & moved)


def narrowed(choice: Choice, numbers: Sequence[int]) -> Choice:
    """A choice for some of the sides: with their weights.

    Raises:
        NotPossibleError: they have none.
    """
    found: list[tuple[str, Setting]] = []
    for key, value in choice.settings:
        if key == "weights" and isinstance(value, tuple):
            value = tuple(value[number] for number in numbers)
            if not sum_in_order(value) > 0:
                raise NotPossibleError("the sides that changed it have a weight of zero")
        found.append((key, value))
    return Choice(choice.strategy, tuple(found))


class _Some:
    """Some of the sides of a tensor, for strategies that look at each entry by itself."""

    def __init__(self, whole: Sides, numbers: tuple[int, ...]) -> None:
        self._whole, self._numbers = whole, numbers
        self.name, self.shape, self.count = whole.name, whole.shape, whole.count
        self.seeds = tuple(whole.seeds[number] for number in numbers)

    def __iter__(self) -> Iterator[Piece]:
        for piece in self._whole:
            yield Piece(piece.start, piece.base, tuple(piece.sides[n] for n in self._numbers))

    def statistic(self, kind: str) -> tuple[NDArray[Any], ...]:
        found = self._whole.statistic(kind)
        return tuple(found[number] for number in self._numbers) if found else ()
