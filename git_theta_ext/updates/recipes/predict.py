"""The values that a recipe predicts, of the versions of a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.advice import UPGRADE
from git_theta_ext.core.errors import CorruptObjectError, UnknownUpdateError
from git_theta_ext.core.tensors import DType
from git_theta_ext.core.values import Mask, Values, beyond_range, from_floats, not_finite, to_floats
from git_theta_ext.manifest.model import Recipe
from git_theta_ext.updates.recipes.arithmetic import DRAWN
from git_theta_ext.updates.recipes.formulas import FORMULAS, Compute, Formula, Piece

KNOWN = frozenset(FORMULAS)
"""Strategies and numbers of the recipes that can be computed."""

_SLICE = 16_384
"""Entries computed at once: in float64 a dozen such arrays stay in the cache of a processor."""


def predict(recipe: Recipe, dtype: DType, base: Values | None, sides: Sequence[Values]) -> Values:
    """What a recipe gives, in a fresh writable array.

    Args:
        recipe: which strategy, and its settings; its parents' chains are not looked at.
        dtype: of all versions and of the result.
        base: the raw bits that the sides come from, flat; None if there is no base.
        sides: those of each side, equally long.

    Raises:
        UnknownUpdateError: this version of the program knows no such recipe.
        CorruptObjectError: it does not fit these versions.
    """
    formula = FORMULAS.get((recipe.strategy, recipe.number))
    if formula is None:
        raise UnknownUpdateError(
            f"a merge by {recipe.strategy!r}, recipe {recipe.number}, is not known here",
            hint=f"a newer version may know it: {UPGRADE}",
        )
    compute = _prepared(formula, recipe, dtype, base, sides)
    make = _by_entry if formula.by_entry else _whole
    result = np.empty_like(sides[0])
    for where in _slices(len(result), DRAWN if formula.random else _SLICE):
        old = None if base is None else base[where]
        here = _Slice(dtype, old, tuple(side[where] for side in sides), where.start)
        with np.errstate(all="ignore"):  # what overflows or is no number is left as it was
            result[where] = make(here, compute)
    return result


@dataclass(frozen=True, slots=True)
class _Slice:
    """Some values of all versions."""

    dtype: DType
    base: Values | None
    sides: tuple[Values, ...]
    start: int = 0

    @property
    def all(self) -> tuple[int, ...]:
        """The numbers of all sides."""
        return tuple(range(len(self.sides)))


def _prepared(
    formula: Formula, recipe: Recipe, dtype: DType, base: Values | None, sides: Sequence[Values]
) -> Compute | None:
    """The function of the numbers, if the recipe has one and is possible."""
    lengths = {len(one) for one in (*sides, *([] if base is None else [base]))}
    words = dict(recipe.settings)
    if len(lengths) != 1 or len(sides) < 2:
        raise CorruptObjectError(f"a merge of versions of {sorted(lengths)} values")
    if formula.needs_base and base is None:
        raise CorruptObjectError(f"a merge by {recipe.strategy} without a base")
    if set(words) - formula.settings:
        names = ", ".join(sorted(formula.settings)) or "none"
        raise CorruptObjectError(f"a merge by {recipe.strategy}: known settings are {names} alone")
    if formula.prepare is None:
        return None
    if dtype.kind not in ("float", "complex"):
        raise CorruptObjectError(f"{recipe.strategy} computes with floats, not with {dtype.name}")
    with np.errstate(over="ignore"):  # a float64 may be infinite as float32
        return formula.prepare(words, len(sides))


def _slices(count: int, length: int) -> Iterator[slice]:
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


def _whole(here: _Slice, compute: Compute | None) -> Values:
    """Every entry computed, but for those that are equal on all sides, or that have no number."""
    first, *others = here.sides
    differ = first != others[0]
    for other in others[1:]:
        differ |= first != other
    if compute is None or not differ.any():
        return first
    return _computed(here, here.all, first, differ, compute)


def _by_entry(here: _Slice, compute: Compute | None) -> Values:
    """Each entry from the first side that changed it; computed where others changed it otherwise.

    Without a base every side counts as having changed every entry.
    """
    base, sides = here.base, here.sides
    if base is not None and len(sides) == 2:
        return _of_two(here, base, compute)
    if base is None:
        moved = [np.ones(len(sides[0]), np.bool_)] * len(sides)
        exact = sides[0].copy()
    else:
        moved = [side != base for side in sides]
        exact = base.copy()
        for side, change in zip(reversed(sides), reversed(moved), strict=True):
            np.copyto(exact, side, where=change)
    if compute is None:
        return exact
    collide = np.zeros(len(exact), np.bool_)
    for side, change in zip(sides, moved, strict=True):
        collide |= change & (side != exact)
    if not collide.any():
        return exact
    if base is None:
        return _computed(here, here.all, exact, collide, compute)
    return _by_movers(here, moved, exact, collide, compute)


def _of_two(here: _Slice, base: Values, compute: Compute | None) -> Values:
    """As `_by_entry` of two sides and a base, which is what most merges are: in fewer steps."""
    ours, theirs = here.sides
    moved = ours != base
    if compute is None:
        return np.where(moved, ours, theirs)
    collide = ours != theirs
    collide &= moved
    collide &= theirs != base
    count = int(np.count_nonzero(collide))
    if count == len(ours):
        return _computed(here, here.all, ours, collide, compute)
    exact = np.where(moved, ours, theirs)
    return _computed(here, here.all, exact, collide, compute) if count else exact


def _by_movers(
    here: _Slice, moved: Sequence[Mask], exact: Values, collide: Mask, compute: Compute
) -> Values:
    """As `_by_entry`, where some entries were changed by some sides and others by others."""
    places = np.flatnonzero(collide)
    codes: NDArray[np.uint32] = np.zeros(len(places), np.uint32)
    for number, change in enumerate(moved):
        codes |= change[places].astype(np.uint32) << np.uint32(number)
    for code in np.unique(codes).tolist():
        which = tuple(number for number in here.all if code >> number & 1)
        at = places[codes == code]
        old = None if here.base is None else here.base[at]
        some = _Slice(here.dtype, old, tuple(here.sides[number][at] for number in which))
        exact[at] = _computed(some, which, exact[at], np.ones(len(at), np.bool_), compute)
    return exact


def _computed(
    here: _Slice, which: tuple[int, ...], kept: Values, wanted: Mask, compute: Compute
) -> Values:
    """`kept`, with what is computed where it is wanted, made of numbers, and a number itself."""
    versions = here.sides if here.base is None else (here.base, *here.sides)
    floats = [to_floats(here.dtype, one) for one in versions]
    wrong = not_finite(floats)
    if wrong is not None:
        floats = [np.where(wrong, 0.0, one) for one in floats]
        wanted = wanted & ~wrong
    old, rest = (None, floats) if here.base is None else (floats[0], floats[1:])
    made = from_floats(here.dtype, compute(Piece(old, rest, which, here.start)))
    high = beyond_range(here.dtype, made)
    if high is not None:
        wanted = wanted & ~high
    return made if wanted.all() else np.where(wanted, made, kept)
