"""Which entries of a tensor several sides changed differently, and how their updates meet.

Everything is said of a slice of all versions at once. Two sides of a common base whose numbers are
all finite, which nearly every slice of a merge is, go a quicker way (`of_two`) than the general one
(`of_any`); where both can be gone, they say the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from git_theta_ext.core.tensors import DType
from git_theta_ext.core.values import Floats, Mask, Values, not_numbers, to_floats
from git_theta_ext.merge.combine.values import Measure

MAX_SIDES = 32


@dataclass(frozen=True, slots=True)
class Split:
    """Several versions compared entry by entry.

    `exact` holds the entries that the sides agree on or only some changed, to the same; where they
    collide, those of the first side that changed them. `collide` marks entries that sides changed
    to different bits, or that are NaN on some sides only; for the latter all sides count as having
    changed them. `nan` counts these: NaN in the first side, and only in others. `moved` marks for
    each side the entries that it changed; None where every side changed whatever collides.
    """

    exact: Values
    collide: Mask
    count: int
    nan: tuple[int, int] = (0, 0)
    moved: tuple[Mask, ...] | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A slice of several versions: what collides, its figures, and its numbers.

    `floats` are the base and the sides in float64 where all of them are known to be finite.
    """

    split: Split
    measure: Measure
    floats: tuple[Floats, ...] | None = None


def compare(dtype: DType, base: Values | None, sides: Sequence[Values]) -> Compared:
    """Compare a slice of two or more sides by their bits; without a base, what differs collides.

    Args:
        dtype: of all versions.
        base: what the sides come from, or None.
        sides: at most `MAX_SIDES`, each as long as the base.
    """
    quick = None if base is None or len(sides) != 2 else of_two(dtype, base, sides[0], sides[1])
    return quick or of_any(dtype, base, sides)


def of_two(dtype: DType, base: Values, ours: Values, theirs: Values) -> Compared | None:
    """As `of_any` for two sides; None where some entry is NaN or infinite, or figures overflow.

    Args:
        dtype: of all versions.
        base, ours, theirs: the raw bits of a slice, equally long.
    """
    if dtype.kind not in ("float", "complex"):
        found = _bits_of_two(base, ours, theirs)
        return Compared(found, Measure(len(ours), found.count))
    old, a, b = (to_floats(dtype, one) for one in (base, ours, theirs))
    with np.errstate(invalid="ignore", over="ignore"):
        products = _products(a - old, b - old)
    # A sum of squares is finite only if every number in it is.
    if not np.isfinite(products).all():
        return None
    found = _bits_of_two(base, ours, theirs)
    return Compared(found, Measure(len(ours), found.count, 0, 0, *products), (old, a, b))


def _bits_of_two(base: Values, ours: Values, theirs: Values) -> Split:
    collide = ours != theirs
    moved = theirs != base
    collide &= moved
    collide &= ours != base
    count = int(np.count_nonzero(collide))
    if count == len(ours):
        return Split(ours, collide, count)
    moved &= ~collide
    return Split(np.where(moved, theirs, ours), collide, count)


def of_any(dtype: DType, base: Values | None, sides: Sequence[Values]) -> Compared:
    """Compare a slice of any sides, whatever numbers are in it; arguments as for `compare`."""
    split = _split(dtype, base, sides)
    counts = Measure(len(sides[0]), split.count, *split.nan)
    if base is None or len(sides) != 2 or dtype.kind not in ("float", "complex"):
        return Compared(split, counts)
    old, a, b = (to_floats(dtype, one) for one in (base, *sides))
    return Compared(split, counts + Measure(0, 0, 0, 0, *_finite_products(old, a, b)))


def _split(dtype: DType, base: Values | None, sides: Sequence[Values]) -> Split:
    """Split by the bits alone; what is NaN on some sides and not on others collides, too."""
    first = sides[0]
    if base is None:
        moved = [np.ones(len(first), np.bool_)] * len(sides)
        exact = first.copy()
    else:
        moved = [one != base for one in sides]
        exact = base.copy()
        for one, change in zip(reversed(sides), reversed(moved), strict=True):
            np.copyto(exact, one, where=change)
    collide = np.zeros(len(first), np.bool_)
    for one, change in zip(sides, moved, strict=True):
        collide |= change & (one != exact)
    apart, counts = _nan_on_some(dtype, sides)
    if apart is not None:
        collide |= apart
        np.copyto(exact, first, where=apart)
        moved = [change | apart for change in moved]
    some = None if base is None or len(sides) == 2 else tuple(moved)
    return Split(exact, collide, int(np.count_nonzero(collide)), counts, some)


def _nan_on_some(dtype: DType, sides: Sequence[Values]) -> tuple[Mask | None, tuple[int, int]]:
    """Entries that are NaN on some sides but not on all: which, and counts as in `Split.nan`."""
    if dtype.kind not in ("float", "complex"):
        return None, (0, 0)
    nan = [not_numbers(dtype, one) for one in sides]
    some: Mask = np.logical_or.reduce(nan)
    if not some.any():
        return None, (0, 0)
    apart: Mask = some & ~np.logical_and.reduce(nan)
    first = int(np.count_nonzero(apart & nan[0]))
    return apart, (first, int(np.count_nonzero(apart)) - first)


def _products(a: Floats, b: Floats) -> tuple[float, float, float]:
    """The inner product of two updates and their squared norms; summed in a fixed order."""
    room = np.multiply(a, b)
    dot = float(np.sum(room))
    np.multiply(a, a, out=room)
    ours = float(np.sum(room))
    np.multiply(b, b, out=room)
    return dot, ours, float(np.sum(room))


def _finite_products(base: Floats, ours: Floats, theirs: Floats) -> tuple[float, float, float]:
    """As `_products` of the updates, over the entries where they are finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        a, b = ours - base, theirs - base
        products = _products(a, b)
        if not np.isfinite(products).all():
            finite = np.isfinite(a * a) & np.isfinite(b * b)
            products = _products(a[finite], b[finite])
    return products
