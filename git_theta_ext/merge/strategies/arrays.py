"""Strategies on plain arrays, of two or more sides, without Git."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.merge.strategies.table import NotPossibleError, Piece, get
from git_theta_ext.updates.residual import SLICE


class Arrays:
    """Sides that are plain arrays of equal shape, for tests and for use from Python."""

    def __init__(
        self,
        base: NDArray[Any] | None,
        sides: Sequence[NDArray[Any]],
        name: str = "",
        statistics: Mapping[str, Sequence[NDArray[Any]]] | None = None,
        length: int = SLICE,
    ) -> None:
        """`statistics` gives one array for each side; `length` is that of the slices."""
        self.name, self.shape, self.count = name, sides[0].shape, sides[0].size
        self.base = None if base is None else base.astype(np.float64).ravel()
        self.sides = [side.astype(np.float64).ravel() for side in sides]
        self._statistics = statistics or {}
        self._length = length
        head = name.encode() + (b"" if self.base is None else self.base.tobytes())
        self.seeds = tuple(hashlib.sha256(head + side.tobytes()).digest() for side in self.sides)

    def __iter__(self) -> Iterator[Piece]:
        for start in range(0, self.count, self._length):
            where = slice(start, start + self._length)
            base = None if self.base is None else self.base[where]
            yield Piece(start, base, tuple(side[where] for side in self.sides))

    def statistic(self, kind: str) -> tuple[NDArray[Any], ...]:
        """See `Sides.statistic`."""
        if kind not in self._statistics:
            raise NotPossibleError(f"no {kind} statistics")
        return tuple(self._statistics[kind])


def merge_arrays(
    choice: Choice,
    base: NDArray[Any] | None,
    sides: Sequence[NDArray[Any]],
    *,
    name: str = "",
    statistics: Mapping[str, Sequence[NDArray[Any]]] | None = None,
) -> NDArray[Any]:
    """Merge arrays of two or more sides by a strategy, whole, in the dtype of the first.

    Args:
        choice: the strategy and its settings.
        base: what the sides come from, or None.
        sides: ours first.
        name: what random strategies are seeded by, with the contents.
        statistics: `fisher` or `gram`, one for each side.

    Raises:
        UsageError: no such strategy or setting.
        NotPossibleError: it cannot be used on these arrays, or would make infinite or NaN values of
            finite ones.
    """
    arrays = Arrays(base, sides, name, statistics)
    strategy = get(choice.strategy)
    if strategy.needs_base and base is None:
        raise NotPossibleError(f"{strategy.name} needs a common base")
    combine = strategy.prepare(arrays, choice.settings)
    found = [combine(piece) for piece in arrays]
    merged = np.concatenate(found) if found else np.zeros(0)
    equal = np.logical_and.reduce([side == arrays.sides[0] for side in arrays.sides])
    merged = np.where(equal, arrays.sides[0], merged)
    with np.errstate(over="ignore", invalid="ignore"):
        result: NDArray[Any] = merged.astype(sides[0].dtype)
        known = arrays.sides if arrays.base is None else [arrays.base, *arrays.sides]
        finite = np.logical_and.reduce([np.isfinite(one) for one in known])
        beyond = int(np.count_nonzero(finite & ~_fits(merged, result)))
    if beyond:
        raise NotPossibleError(
            f"{name or 'the result'}: {beyond:,} entries would be infinite or NaN, beyond the "
            f"range of {sides[0].dtype}"
        )
    return result.reshape(arrays.shape)


def _fits(merged: NDArray[Any], result: NDArray[Any]) -> NDArray[np.bool_]:
    """Where what was computed has a place in the dtype of the result."""
    if result.dtype.kind in "iu":
        limits = np.iinfo(result.dtype)
        inside: NDArray[np.bool_] = (merged >= limits.min) & (merged <= limits.max)
        return inside
    finite: NDArray[np.bool_] = np.isfinite(result.astype(np.float64))
    return finite
