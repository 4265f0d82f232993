"""The `hadamard` update: the entry-wise product of two matrices is added, as merging LoHa does.

Hyeon-Woo and others, "FedPara: Low-Rank Hadamard Product", 2022. Each is a product of thin factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values
from git_theta_ext.updates.low_rank.factors import DTYPES
from git_theta_ext.updates.structured.law import WORTH, Parts, Settings, Supplied, add_rows
from git_theta_ext.updates.structured.numbers import Numbers
from git_theta_ext.updates.structured.sides import Side, read_side, words


@dataclass(frozen=True)
class HadamardLaw:
    """Two matrices of one shape are multiplied in float32, entry by entry, and then by a number."""

    first: Side
    second: Side
    scaling: float

    kind: ClassVar[str] = "hadamard"

    def rows(self, some: slice) -> Numbers:
        """Some rows of the change."""
        return self.first.rows(some) * self.second.rows(some) * np.float32(self.scaling)

    def of_rows(self, rows: slice) -> HadamardLaw:
        """The change of some rows alone."""
        first, second = (one.of_rows(rows) for one in (self.first, self.second))
        return HadamardLaw(first, second, self.scaling)

    def stored(self, spec: BlockSpec) -> HadamardLaw | None:
        """The factors, where they are thin."""
        if spec.dtype.name not in DTYPES:
            return None
        first, second = (one.as_stored() for one in (self.first, self.second))
        if first.products + second.products > WORTH:
            return None
        return HadamardLaw(first, second, self.scaling)

    def rounded(self, bits: int) -> HadamardLaw:
        """The same with numbers of so many bits of mantissa."""
        first, second = (one.rounded(bits) for one in (self.first, self.second))
        return HadamardLaw(first, second, self.scaling)

    @property
    def numbers(self) -> int:
        """How many are stored."""
        return self.first.numbers + self.second.numbers

    def predict(self, dtype: DType, values: Values) -> Values:
        """Add the change."""
        return add_rows(dtype, values, self.first.shape[1], self.rows)

    def packed(self) -> tuple[Settings, Parts]:
        """Both matrices, and the number."""
        (one, parts), (other, more) = self.first.packed("first"), self.second.packed("second")
        return {**one, **other, "scaling": self.scaling}, {**parts, **more}

    def remarks(self) -> tuple[tuple[str, str], ...]:
        """The ranks."""
        return words(self.first, self.second)


class Hadamard(Supplied):
    """The update that stores the factors of two matrices."""

    kind: ClassVar[str] = "hadamard"

    def read(
        self, settings: Mapping[str, Any], parts: Mapping[str, memoryview], count: int
    ) -> HadamardLaw:
        """The two matrices."""
        first, second = (read_side(settings, parts, one, count) for one in ("first", "second"))
        rows, columns = first.shape
        if second.shape != first.shape or rows * columns != count:
            raise CorruptObjectError(
                f"matrices of {first.shape} and {second.shape} for a block of {count} values"
            )
        return HadamardLaw(first, second, number_of(settings))


def number_of(settings: Mapping[str, Any]) -> float:
    """The number by which a change is multiplied.

    Raises:
        CorruptObjectError: it is none.
    """
    scaling = settings["scaling"]
    if not isinstance(scaling, float) or not math.isfinite(scaling):
        raise CorruptObjectError(f"a scaling of {scaling!r}")
    return scaling
