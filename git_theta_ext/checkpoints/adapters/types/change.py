"""A change that an adapter's numbers give row by row, and the products that it is made of.

The order of operations is PEFT's, in float32. Products of matrices are summed in float64 in one
fixed order and rounded once, for PEFT's order depends on its BLAS: there, and nowhere else, the
last bit may differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import memory_matrix, refuse, rows_of
from git_theta_ext.checkpoints.adapters.changes import LoraChange
from git_theta_ext.checkpoints.adapters.files import TensorFile
from git_theta_ext.checkpoints.adapters.layers import square_is_conv1d
from git_theta_ext.core.tensors import BlockSpec, TensorInfo, cut
from git_theta_ext.core.values import Values
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.find import unless_larger
from git_theta_ext.updates.low_rank.prediction import add
from git_theta_ext.updates.sparse import Sparse
from git_theta_ext.updates.structured.law import Law, encoded
from git_theta_ext.updates.structured.precision import as_pays

_CHUNK = 1 << 16
"""Elements computed at once."""

Matrix = NDArray[np.float32]
Rows = Callable[[slice], NDArray[np.float32]]
"""Some rows of a change, of a matrix as it lies in memory."""


def by_pieces(
    rows: slice, columns: int, old: Values, compute: Callable[[slice, Values], Values]
) -> Values:
    """New values of old ones, computed some rows at a time; what overflows is no warning.

    Args:
        rows: which rows of the weight `old` holds.
        columns: how many entries a row has.
        old: raw bits, flat.
        compute: the new values of some rows: which they are, and their old ones.
    """
    new = np.empty_like(old)
    step = max(1, _CHUNK // columns)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(rows.start, rows.stop, step):
            last = min(first + step, rows.stop)
            piece = slice((first - rows.start) * columns, (last - rows.start) * columns)
            new[piece] = compute(slice(first, last), old[piece])
    return new


@dataclass(frozen=True, slots=True)
class DeltaChange:
    """Rows that are computed are added, and the sum is rounded once to the weights' dtype.

    `factors` are thin ones whose product is the change up to its rounding, where there are such:
    the store keeps these.
    """

    name: str
    kind: str
    columns: int
    rows: Rows
    factors: LoraChange | None = None

    @property
    def computes(self) -> bool:
        """New values are computed."""
        return True

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The sums."""
        rows = rows_of(spec, start, self.columns, self.name)

        def sums(some: slice, values: Values) -> Values:
            added = self.rows(some).ravel().astype(np.float64)
            return add(spec.dtype, values, added, "sum")

        return by_pieces(rows, self.columns, old, sums)

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """The factors; found from the values where there are none."""
        return None if self.factors is None else self.factors.encode(spec, start, new, old)


@dataclass(frozen=True, slots=True)
class LawChange:
    """What a law of `updates.structured` makes of the old values; the store keeps its numbers.

    `shares`: the tensor has several blocks, and all of them one object: what the law's own numbers
    give, without a rest.
    """

    name: str
    kind: str
    columns: int
    law: Law
    shares: bool

    @property
    def computes(self) -> bool:
        """New values are computed."""
        return True

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The prediction, which is what PEFT computes up to its sums' last bits."""
        law = self.law.of_rows(rows_of(spec, start, self.columns, self.name))
        return law.predict(spec.dtype, old.copy())

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """The numbers; found from the values where they cannot be stored."""
        law = self.law.of_rows(rows_of(spec, start, self.columns, self.name)).stored(spec)
        if law is None:
            return None
        if self.shares:
            found = encoded(spec, new, old, law)
        else:
            found = as_pays(spec, new, old, law, self.columns)
        listed = Sparse().encode(spec, new, old)
        if listed is not None and listed.nbytes < found.nbytes:
            found = listed
        return unless_larger(spec, new, found)


@dataclass(slots=True)
class Seen:
    """Which layouts the weights of an adapter have, True for inputs × outputs, and square ones.

    The setting `fan_in_fan_out` says how a square one lies; not if it is wrong for others.
    """

    layouts: set[bool] = field(default_factory=set)
    guessed: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """The weight that a module's update is for, in its file and its checkpoint."""

    file: TensorFile
    module: str
    tensor: TensorInfo
    tensors: Mapping[str, TensorInfo]
    config: Mapping[str, Any]
    seen: Seen

    def flipped(self, outputs: int, inputs: int) -> bool:
        """Whether the weight lies in memory as inputs × outputs.

        So it does where the tensor is Fortran-ordered, or a `Conv1D` of GPT-2, but not both.

        Raises:
            UsageError: an update of these sides does not fit it.
        """
        turned = memory_matrix(self.tensor)[2]
        first = self.tensor.shape[0] if self.tensor.shape else 1
        sides = (first, self.tensor.count // max(first, 1))
        turned_layer = sides == (inputs, outputs) != (outputs, inputs)
        if outputs == inputs and len(self.tensor.shape) == 2:
            named = square_is_conv1d(self.tensor.name.removesuffix(".weight"), self.tensors)
            turned_layer = bool(self.config.get("fan_in_fan_out") if named is None else named)
            if named is None:
                self.seen.guessed[self.module] = turned_layer
        elif len(self.tensor.shape) == 2:
            self.seen.layouts.add(turned_layer)
        if sides not in ((outputs, inputs), (inputs, outputs)) or (
            turned_layer and len(self.tensor.shape) != 2
        ):
            raise refuse(
                self.file.path,
                f"module {self.module!r}: an update of {outputs} × {inputs} does not fit tensor "
                f"{self.tensor.name!r} of shape {list(self.tensor.shape)}",
            )
        return turned_layer != turned

    def delta(
        self, kind: str, rows: Rows, factors: tuple[Matrix, Matrix, float] | None = None
    ) -> DeltaChange:
        """The change, of its rows in memory; and factors of it, and what they are multiplied by."""
        first, columns, _ = memory_matrix(self.tensor)
        name = self.tensor.name
        thin = None
        if factors is not None:
            left, right = (np.ascontiguousarray(side) for side in factors[:2])
            thin = LoraChange(name, left, right, factors[2])
        return DeltaChange(name, kind, columns if first else 1, rows, thin)

    def law(self, kind: str, law: Law) -> LawChange:
        """The change that a law makes to the matrix, as that lies in memory."""
        first, columns, _ = memory_matrix(self.tensor)
        shares = law.kind == "orthogonal" and self.tensor.nbytes > next(cut(self.tensor)).nbytes
        return LawChange(self.tensor.name, kind, columns if first else 1, law, shares)

    def refuse(self, reason: str) -> Exception:
        """The error of a module that is not what it should be."""
        return refuse(self.file.path, f"module {self.module!r}: {reason}")


def matrix(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """An array as its first axis against all others."""
    return array.reshape(len(array), math.prod(array.shape[1:]))
