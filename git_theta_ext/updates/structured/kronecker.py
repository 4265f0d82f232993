"""The `kronecker` update: the Kronecker product of two matrices is added, as merging LoKr does.

Yeh and others, "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model
Evaluation", 2024. Each matrix is whole, or a product of thin factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values
from git_theta_ext.updates.low_rank.factors import DTYPES
from git_theta_ext.updates.structured.hadamard import number_of
from git_theta_ext.updates.structured.law import Parts, Settings, Supplied, add_rows
from git_theta_ext.updates.structured.numbers import Numbers, whole
from git_theta_ext.updates.structured.sides import Side, read_side, words


@dataclass(frozen=True)
class KroneckerLaw:
    """Rows of `first ⊗ second`, multiplied in float32 and then by a number.

    `start` is the row of the product that comes first, and `count` how many there are.
    """

    first: Side
    second: Side
    scaling: float
    start: int
    count: int

    kind: ClassVar[str] = "kronecker"

    @property
    def columns(self) -> int:
        """Of the product."""
        return self.first.shape[1] * self.second.shape[1]

    def rows(self, some: slice) -> Numbers:
        """Some rows of the change."""
        numbers = np.arange(some.start, some.stop) + self.start
        height = self.second.shape[0]
        outer, inner = self.first.matrix[numbers // height], self.second.matrix[numbers % height]
        found: Numbers = outer[:, :, None] * inner[:, None, :]
        return found.reshape(len(numbers), -1) * np.float32(self.scaling)

    def of_rows(self, rows: slice) -> KroneckerLaw:
        """The change of some rows alone, with what that needs of the first matrix."""
        height = self.second.shape[0]
        begin, end = self.start + rows.start, self.start + rows.stop
        top = begin // height
        first = self.first.of_rows(slice(top, -(-end // height)))
        count = rows.stop - rows.start
        return KroneckerLaw(first, self.second, self.scaling, begin - top * height, count)

    def stored(self, spec: BlockSpec) -> KroneckerLaw | None:
        """Each matrix, or its factors, where neither is larger than the block."""
        if spec.dtype.name not in DTYPES:
            return None
        first, second = (one.as_stored() for one in (self.first, self.second))
        if max(first.largest, second.largest) > self.count * self.columns:
            return None
        return KroneckerLaw(first, second, self.scaling, self.start, self.count)

    def rounded(self, bits: int) -> KroneckerLaw:
        """The same with numbers of so many bits of mantissa."""
        first, second = (one.rounded(bits) for one in (self.first, self.second))
        return KroneckerLaw(first, second, self.scaling, self.start, self.count)

    @property
    def numbers(self) -> int:
        """How many are stored."""
        return self.first.numbers + self.second.numbers

    def predict(self, dtype: DType, values: Values) -> Values:
        """Add the change."""
        return add_rows(dtype, values, self.columns, self.rows)

    def packed(self) -> tuple[Settings, Parts]:
        """Both matrices, the number, and where the rows begin."""
        (one, parts), (other, more) = self.first.packed("first"), self.second.packed("second")
        said = {**one, **other, "scaling": self.scaling, "start": self.start}
        return said, {**parts, **more}

    def remarks(self) -> tuple[tuple[str, str], ...]:
        """The shapes, and the ranks."""
        shapes = ",".join("x".join(map(str, one.shape)) for one in (self.first, self.second))
        return (("sides", shapes), *words(self.first, self.second))


class Kronecker(Supplied):
    """The update that stores two matrices, or their factors."""

    kind: ClassVar[str] = "kronecker"

    def read(
        self, settings: Mapping[str, Any], parts: Mapping[str, memoryview], count: int
    ) -> KroneckerLaw:
        """The two matrices."""
        first, second = (read_side(settings, parts, one, count) for one in ("first", "second"))
        height, columns = second.shape[0], first.shape[1] * second.shape[1]
        start = whole(settings, "start", 0, height - 1)
        rows = count // columns
        if not rows or rows * columns != count or first.shape[0] != -(-(start + rows) // height):
            raise CorruptObjectError(
                f"matrices of {first.shape} and {second.shape} for a block of {count} values"
            )
        return KroneckerLaw(first, second, number_of(settings), start, rows)
