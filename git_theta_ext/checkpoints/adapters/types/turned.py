"""A change that makes new rows of a weight from its old ones: orthogonal factors on its inputs.

PEFT multiplies the weight by a matrix in float32, and rounds to the weights' dtype. Here the
factors of that matrix are applied one after the other, in float64, and the result is rounded to
float32 and then to the dtype. In exact arithmetic it is the same; PEFT's last bits depend on its
BLAS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import memory_matrix, refuse, rows_of
from git_theta_ext.checkpoints.adapters.peft_config import MERGE
from git_theta_ext.checkpoints.adapters.types.change import Place, by_pieces
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.arithmetic import narrow, widen
from git_theta_ext.updates.base import Encoded

_CHUNK = 1 << 16
"""Elements computed at once."""

Wide = NDArray[np.float64]
Turn = Callable[[slice, Wide], NDArray[Any]]
"""New rows of old ones, which may be overwritten; the slice says which of the weight's they are."""


@dataclass(frozen=True, slots=True)
class TurnedChange:
    """Rows are computed from the old ones, and rounded to float32 and to the weights' dtype."""

    name: str
    kind: str
    columns: int
    turn: Turn

    @property
    def computes(self) -> bool:
        """New values are computed."""
        return True

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The new rows."""
        rows = rows_of(spec, start, self.columns, self.name)

        def turned_rows(some: slice, values: Values) -> Values:
            wide = widen(spec.dtype, values).astype(np.float64)
            found = self.turn(some, wide.reshape(-1, self.columns))
            return narrow(spec.dtype, found.astype(np.float32).ravel(), values)

        return by_pieces(rows, self.columns, old, turned_rows)

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """Found from the values."""
        return None


def turned(place: Place, kind: str, inputs: int, turn: Turn) -> TurnedChange:
    """The change of a weight of outputs × inputs; of a convolution its kernel is in the inputs.

    Args:
        place: the weight.
        kind: of the adapter.
        inputs: how many the rotation is of.
        turn: makes new rows of old ones.

    Raises:
        UsageError: it has another number of inputs, or lies in memory in another order, or is
            float64, which PEFT rounds to float32.
    """
    tensor = place.tensor
    rows, columns, other = memory_matrix(tensor)
    if not tensor.shape or other or columns != inputs or not columns * rows:
        raise place.refuse(
            f"a rotation of {inputs} inputs does not fit tensor {tensor.name!r} of shape "
            f"{list(tensor.shape)}"
        )
    if tensor.dtype.name == "F64":
        raise refuse(place.file.path, f"tensor {tensor.name!r} is float64; PEFT rounds it", MERGE)
    return TurnedChange(tensor.name, kind, columns, turn)


def require_finite(place: Place, blocks: NDArray[np.float32]) -> None:
    """Refuse blocks with numbers that are infinite or NaN.

    Raises:
        UsageError: there is one.
    """
    if not np.isfinite(blocks).all():
        raise place.refuse("its blocks are not finite")


def by_blocks(blocks: NDArray[np.float32], rows: Wide) -> Wide:
    """A block-diagonal matrix times each row, as columns: `R · w`, summed in one fixed order.

    Args:
        blocks: blocks × size × size.
        rows: rows × (blocks · size).
    """
    count, size, _ = blocks.shape
    parts = rows.reshape(len(rows), count, size)
    found = np.zeros_like(parts)
    for inner in range(size):
        found += parts[:, :, inner, None] * blocks[None, :, :, inner]
    return found.reshape(rows.shape)


def product(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Products of two stacks of square matrices, summed in float64 and rounded once."""
    found = np.zeros(left.shape)
    wide = right.astype(np.float64)
    for inner in range(left.shape[-1]):
        found += left[:, :, inner, None] * wide[:, inner, None, :]
    return found.astype(np.float32)


def cayley(skew: NDArray[np.float32]) -> NDArray[np.float32]:
    """(I − Q)(I + Q)⁻¹ of skew-symmetric matrices: orthogonal ones; solved in float64.

    Args:
        skew: blocks × size × size.
    """
    unit = np.eye(skew.shape[-1])
    wide = skew.astype(np.float64)
    # PEFT's solve(I + Q, I - Q, left=False) is X with X (I + Q) = I - Q.
    found = np.linalg.solve((unit + wide).swapaxes(1, 2), (unit - wide).swapaxes(1, 2))
    return np.ascontiguousarray(found.swapaxes(1, 2).astype(np.float32))
