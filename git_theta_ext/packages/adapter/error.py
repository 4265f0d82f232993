"""How far a version plus an adapter is from the version that the adapter was made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import Change
from git_theta_ext.core.tensors import DType
from git_theta_ext.core.values import Values
from git_theta_ext.packages.adapter.ends import Ends
from git_theta_ext.updates.arithmetic import mantissa_bits, widen
from git_theta_ext.updates.residual import SLICE, difference, is_ordered

_FAR = 2
"""So many steps, of the larger of old and new value, are what two roundings in a row explain."""


@dataclass(slots=True)
class Misses:
    """Entries that an adapter does not give, by place in the tensor's memory, and their values."""

    places: list[NDArray[np.int64]] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many they are."""
        return sum(len(one) for one in self.places)


@dataclass(slots=True)
class Error:
    """What an adapter misses of a tensor or of several: entries, steps of the dtype, norms.

    `most` is the largest distance in floats of the dtype (units in the last place), `far` how many
    entries are further off than rounding explains. `step` and `miss` are squares of norms: of the
    change that the commit made, and of what the adapter leaves of it.
    """

    count: int = 0
    differ: int = 0
    far: int = 0
    most: int = 0
    step: float = 0.0
    miss: float = 0.0

    @property
    def relative(self) -> float:
        """The norm of what is missed over that of the change."""
        if self.miss == 0:
            return 0.0
        return math.sqrt(self.miss / self.step) if self.step else math.inf

    @property
    def exact(self) -> bool:
        """Whether the adapter gives the commit, bit for bit."""
        return self.differ == 0

    def add(self, other: Error) -> None:
        """Count another tensor in."""
        self.count += other.count
        self.differ += other.differ
        self.far += other.far
        self.most = max(self.most, other.most)
        self.step += other.step
        self.miss += other.miss

    def look(self, dtype: DType, old: Values, new: Values, found: Values) -> None:
        """Compare a block of the new version with what was found in its place.

        Args:
            dtype: of the tensor.
            old, new: raw bits of the block in both versions.
            found: those that the adapter makes of the old ones.
        """
        self.count += len(new)
        for first in range(0, len(new), SLICE):
            piece = slice(first, first + SLICE)
            self._look(dtype, old[piece], new[piece], found[piece])

    def _look(self, dtype: DType, old: Values, new: Values, found: Values) -> None:
        """Compare so many that temporaries stay in the processor's cache."""
        wrong = new != found
        off = int(np.count_nonzero(wrong))
        self.differ += off
        if off:
            coded = difference(found[wrong], new[wrong], is_ordered(dtype)).astype(np.uint64)
            steps = (coded >> np.uint64(1)) + (coded & np.uint64(1))
            self.most = max(self.most, int(steps.max()))
        mantissa = mantissa_bits(dtype)
        if dtype.kind != "float" or mantissa is None:
            self.far += off
            return
        with np.errstate(over="ignore", invalid="ignore"):
            before, after = (widen(dtype, side).astype(np.float64) for side in (old, new))
            self.step += _square(after - before)
            if off:
                miss = after[wrong] - widen(dtype, found[wrong])
                self.miss += _square(miss)
                larger = np.maximum(np.abs(before[wrong]), np.abs(after[wrong]))
                bound = np.ldexp(float(_FAR), np.frexp(larger)[1] - 1 - mantissa)
                self.far += int(np.count_nonzero(~(np.abs(miss) <= bound)))


def _square(numbers: NDArray[Any]) -> float:
    finite = numbers[np.isfinite(numbers)]
    return float(finite @ finite)


def measure(ends: Ends, name: str, change: Change | None, misses: Misses | None = None) -> Error:
    """What a change of a tensor of the old version misses of the new one.

    Args:
        ends: the versions.
        name: the tensor.
        change: as the adapter has it; None where it has none.
        misses: gets the entries that are missed, if it is given.
    """
    found = Error()
    for piece in ends.pieces(name):
        guess = piece.old if change is None else change.apply(piece.spec, piece.start, piece.old)
        found.look(piece.spec.dtype, piece.old, piece.new, guess)
        if misses is not None:
            places = np.flatnonzero(guess != piece.new)
            misses.places.append(places.astype(np.int64) + piece.start)
            misses.values.append(piece.new[places])
    return found
