"""DoRA (Liu and others, "Weight-Decomposed Low-Rank Adaptation", 2024): LoRA, with norms trained.

PEFT, `tuners/lora/dora.py` and `variants.py`: `m / norm(w + delta) * (w + delta)` in float32, where
the norm is that of an output's weights (of an embedding: of a column), and m was trained. The norm
is summed in float64 here and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import refuse, rows_of
from git_theta_ext.checkpoints.adapters.changes import LoraChange
from git_theta_ext.checkpoints.adapters.peft_config import MERGE
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.arithmetic import narrow, widen
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.find import unless_larger
from git_theta_ext.updates.low_rank.scaled import Multipliers, ScaledLowRank

_CHUNK = 1 << 16
"""Elements computed at once."""


@dataclass(frozen=True, slots=True)
class DoraChange:
    """The factors are added, and rows (axis 0) or columns (1) get the norms that were trained.

    `axis` is that of the tensor as it lies in memory, and `count` how many values that has.
    """

    lora: LoraChange
    norms: NDArray[np.float32]
    axis: int
    count: int

    kind: ClassVar[str] = "lora"

    @property
    def computes(self) -> bool:
        """New values are computed."""
        return True

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The products, rounded once to the weights' dtype.

        Raises:
            UsageError: columns have norms, and the tensor is of several blocks; or it is float64.
        """
        columns = self.lora.right.shape[1]
        rows = rows_of(spec, start, columns, self.lora.name)
        if spec.dtype.name == "F64" or (self.axis == 1 and spec.count != self.count):
            raise refuse(
                f"tensor {self.lora.name!r}",
                "DoRA is not known here for float64, nor for norms of columns of a tensor of more "
                "than one block",
                MERGE,
            )
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            factors = self._factors(spec, rows, old)
            new = np.empty_like(old)
            for some, piece in self._pieces(rows):
                wide = self._sum(spec, some, old[piece])
                if self.axis == 0:
                    wide *= factors[some.start - rows.start : some.stop - rows.start, None]
                else:
                    wide *= factors
                new[piece] = narrow(spec.dtype, wide.ravel(), old[piece])
        return new

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """The factors and the multipliers, in the form that takes the least."""
        rows = rows_of(spec, start, self.lora.right.shape[1], self.lora.name)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            multipliers = self._factors(spec, rows, old).astype(np.float32)
        if not np.isfinite(multipliers).all():
            return None
        changed = self.lora.apply(spec, start, old)
        kept = [
            found
            for factors in self.lora.in_fixed_point(spec, start, changed, old)
            for found in [
                ScaledLowRank().encode_factors(
                    spec, new, old, factors, Multipliers(multipliers, self.axis)
                )
            ]
            if found is not None
        ]
        best = min(kept, key=lambda one: one.nbytes, default=None)
        return None if best is None else unless_larger(spec, new, best)

    def _factors(self, spec: BlockSpec, rows: slice, old: Values) -> NDArray[Any]:
        """What each row of the block, or each column, is multiplied by."""
        squares = np.zeros(rows.stop - rows.start if self.axis == 0 else self.lora.right.shape[1])
        for some, piece in self._pieces(rows):
            square = np.square(self._sum(spec, some, old[piece]).astype(np.float64))
            if self.axis == 0:
                squares[some.start - rows.start : some.stop - rows.start] = square.sum(axis=1)
            else:
                squares += square.sum(axis=0)
        norms = self.norms[rows] if self.axis == 0 else self.norms
        found: NDArray[Any] = norms / np.sqrt(squares).astype(np.float32)
        return found

    def _pieces(self, rows: slice) -> list[tuple[slice, slice]]:
        """Some rows at once, and where they are in the block."""
        columns = self.lora.right.shape[1]
        step = max(1, _CHUNK // columns)
        found = []
        for first in range(rows.start, rows.stop, step):
            last = min(first + step, rows.stop)
            piece = slice((first - rows.start) * columns, (last - rows.start) * columns)
            found.append((slice(first, last), piece))
        return found

    def _sum(self, spec: BlockSpec, rows: slice, old: Values) -> NDArray[Any]:
        """Old values and change, as float32; rows × columns."""
        delta = self.lora.delta(rows)
        return widen(spec.dtype, old).reshape(delta.shape) + delta
