"""What adapters do to tensors, computed element by element, the same on every machine.

The arithmetic is that of PEFT (https://github.com/huggingface/peft, `tuners/lora/layer.py` and
`tuners/ia3/layer.py`, `merge` and `get_delta_weight`), which loads adapters as float32 and adds or
multiplies in the wider dtype, rounded once to the weights':

    LoRA   w + (B·A) × scaling      IA3   w × l

For embeddings it rounds the change to the weights' dtype before it is added. The product B·A is
summed here in float64 and rounded once to float32. PEFT's is summed in float32 in an order that
depends on its BLAS, so its last bit may differ; nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import Change, rows_of
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.find import unless_larger
from git_theta_ext.updates.low_rank.factors import (
    Factors,
    Trained,
    exact_factors,
    is_low_rank,
    nearest_factors,
)
from git_theta_ext.updates.low_rank.precision import quantised
from git_theta_ext.updates.low_rank.prediction import add
from git_theta_ext.updates.low_rank.update import LowRank
from git_theta_ext.updates.scale import Scale
from git_theta_ext.updates.scale import predict as multiply

_CHUNK = 1 << 16
"""Elements computed at once."""


@dataclass(frozen=True, slots=True)
class LoraChange:
    """A product of thin factors, times a number, is added.

    `left` is rows × rank and `right` rank × columns of the tensor as it lies in memory; `order`
    is that of `updates.low_rank`: `sum`, or `rounded` where the change is rounded first.
    `flipped` says that `left` is A and `right` B, both transposed.
    """

    name: str
    left: NDArray[np.float32]
    right: NDArray[np.float32]
    scaling: float
    order: str = "sum"
    flipped: bool = False

    kind: ClassVar[str] = "lora"

    @property
    def computes(self) -> bool:
        """New values are computed."""
        return True

    def _order(self, spec: BlockSpec) -> str:
        """On float64 weights too the change is a float32."""
        return "rounded" if spec.dtype.name == "F64" else self.order

    def _product(self, rows: slice) -> NDArray[np.float64]:
        """B·A of some rows; sums in one fixed order."""
        left = self.left[rows].astype(np.float64)
        product = np.zeros((len(left), self.right.shape[1]))
        for column, row in zip(left.T, self.right.astype(np.float64), strict=True):
            product += column[:, None] * row
        return product

    def delta(self, rows: slice) -> NDArray[np.float32]:
        """Some rows of the change, scaled, in float32."""
        product = self._product(rows).astype(np.float32)
        return product if self.scaling == 1.0 else product * np.float32(self.scaling)

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The sum, rounded once to the weights' dtype."""
        columns = self.right.shape[1]
        rows = rows_of(spec, start, columns, self.name)
        new = np.empty_like(old)
        step = max(1, _CHUNK // columns)
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(rows.start, rows.stop, step):
                last = min(first + step, rows.stop)
                piece = slice((first - rows.start) * columns, (last - rows.start) * columns)
                product = self._product(slice(first, last)).ravel()
                new[piece] = add(spec.dtype, old[piece], product, self._order(spec), self.scaling)
        return new

    def _rows(self, spec: BlockSpec, start: int) -> slice:
        return rows_of(spec, start, self.right.shape[1], self.name)

    def in_fixed_point(
        self, spec: BlockSpec, start: int, new: Values, old: Values
    ) -> Iterator[Factors]:
        """The factors of some rows as whole numbers: exactly, where they are that, and nearly.

        Args:
            spec, start: the block, as for `encode`.
            new, old: its values after this change alone, and before.
        """
        left = self.left[self._rows(spec, start)]
        with np.errstate(over="ignore", invalid="ignore"):
            found = [exact_factors(left, self.right, "sum", self.scaling)]
            if spec.dtype.bits >= 32:
                near = nearest_factors(Trained(left, self.right, self.scaling), "sum")
                found.append(None if near is None else near[0])
            else:
                scaled = left.astype(np.float64) * self.scaling
                found.append(quantised(spec, new, old, scaled, self.right.astype(float)))
        for factors in found:
            if factors is not None and is_low_rank(spec, factors):
                yield replace(factors, order="sum")

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """The factors themselves, in fixed point, and what they miss.

        16-bit factors are kept as they are. So are those of a change of float32 weights; of weights
        that are shorter they are kept in the precision that pays.
        """
        left, order = self.left[self._rows(spec, start)], self._order(spec)
        kept: list[Encoded] = []
        with np.errstate(over="ignore", invalid="ignore"):
            exact = exact_factors(left, self.right, order, self.scaling)
            if spec.dtype.bits >= 32:
                trained = Trained(left, self.right, self.scaling)
                found = LowRank().encode_trained(spec, new, old, trained, order)
                kept += [] if found is None else [found]
            scaled = left.astype(np.float64) * self.scaling
            near = None if kept else quantised(spec, new, old, scaled, self.right.astype(float))
        for factors in (exact, near):
            if factors is not None and is_low_rank(spec, factors):
                kept.append(LowRank().encode_factors(spec, new, old, factors))
        best = min(kept, key=lambda one: one.nbytes, default=None)
        return None if best is None else unless_larger(spec, new, best)


@dataclass(frozen=True, slots=True)
class ScaleChange:
    """Every row (axis 0) or column (1) of the tensor as it lies in memory is multiplied."""

    name: str
    factors: NDArray[np.float32]
    axis: int
    columns: int

    kind: ClassVar[str] = "ia3"

    @property
    def computes(self) -> bool:
        """New values are computed."""
        return True

    def _place(self, spec: BlockSpec, start: int) -> tuple[NDArray[Any], tuple[int, int]]:
        rows = rows_of(spec, start, self.columns, self.name)
        factors = self.factors[rows] if self.axis == 0 else self.factors
        wide = np.float64 if spec.dtype.name == "F64" else np.float32
        return factors.astype(wide), (rows.stop - rows.start, self.columns)

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The products, rounded once to the weights' dtype."""
        factors, shape = self._place(spec, start)
        return multiply(spec.dtype, old.copy(), factors, shape, self.axis)

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """The multipliers themselves; those of a vector are as many as its entries."""
        if len(spec.shape) < 2:
            return None
        factors, _ = self._place(spec, start)
        found = Scale().encode_factors(spec, new, old, factors, self.axis)
        return unless_larger(spec, new, found)


@dataclass(frozen=True, slots=True)
class EntriesChange:
    """Some entries get new values, or something is added to them.

    `positions` are increasing, in memory order; `values` are raw bits of the tensor's dtype, or
    float32 that is added and rounded once.
    """

    positions: NDArray[np.int64]
    values: NDArray[Any]
    adds: bool

    kind: ClassVar[str] = "sparse"

    @property
    def computes(self) -> bool:
        """New values are computed where they are added."""
        return self.adds

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The old values with those entries changed."""
        first, last = np.searchsorted(self.positions, (start, start + len(old)))
        places, values = self.positions[first:last] - start, self.values[first:last]
        new = old.copy()
        if self.adds:
            new[places] = add(spec.dtype, old[places], values.astype(np.float64), "sum")
        else:
            new[places] = values
        return new

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """Found from the values: a list of entries is what that finds."""
        return None


@dataclass(frozen=True, slots=True)
class WholeChange:
    """The tensor is replaced, as a classifier trained in full; raw bits in memory order."""

    values: Values

    kind: ClassVar[str] = "whole"

    @property
    def computes(self) -> bool:
        """New values are the adapter's own."""
        return False

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The adapter's values."""
        return self.values[start : start + len(old)].copy()

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """Found from the values."""
        return None


@dataclass(frozen=True, slots=True)
class BiasChange:
    """A vector of float32 is added to the tensor, rounded once (`lora_bias`)."""

    added: NDArray[np.float32]

    kind: ClassVar[str] = "lora"

    @property
    def computes(self) -> bool:
        """New values are computed."""
        return True

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The sum."""
        part = self.added[start : start + len(old)].astype(np.float64)
        return add(spec.dtype, old, part, "sum")

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """Found from the values."""
        return None


@dataclass(frozen=True, slots=True)
class ComposedChange:
    """The tensor is replaced, and the new one changed: a base layer saved beside its factors."""

    base: WholeChange
    then: Change

    @property
    def kind(self) -> str:
        """That of the change of the new tensor."""
        return self.then.kind

    @property
    def computes(self) -> bool:
        """As the change of the new tensor does."""
        return self.then.computes

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """First the one, then the other."""
        return self.then.apply(spec, start, self.base.apply(spec, start, old))

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """The factors, where the base is what it was; else found from the values."""
        if not np.array_equal(self.base.apply(spec, start, old), old):
            return None
        return self.then.encode(spec, start, new, old)


@dataclass(frozen=True, slots=True)
class CorrectedChange:
    """A change, and then the values of the entries that it misses.

    `computes` says whether values that become infinite or NaN are a mistake.
    """

    first: Change
    then: EntriesChange
    computes: bool

    @property
    def kind(self) -> str:
        """That of the change."""
        return self.first.kind

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """First the one, then the other."""
        return self.then.apply(spec, start, self.first.apply(spec, start, old))

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """The change's own parameters, and what they miss."""
        return self.first.encode(spec, start, new, old)
