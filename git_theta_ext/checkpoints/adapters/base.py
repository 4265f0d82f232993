"""The contract of a supplied update: what an adapter file does to the tensors of a checkpoint.

An adapter is read into *changes*, one for each tensor of the checkpoint that it touches. A change
computes the new values of a block from the old ones, and may know how to store them: as its own
factors, or its own multipliers. What it cannot store itself is found from the values, as for
any other new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import BlockSpec, TensorInfo
from git_theta_ext.core.values import Values
from git_theta_ext.updates.base import Encoded


class Change(Protocol):
    """What happens to one tensor."""

    @property
    def kind(self) -> str:
        """How messages call it: `lora`, `ia3`, `sparse`, `whole`."""
        ...

    @property
    def computes(self) -> bool:
        """Whether new values are computed from the old ones, and may overflow."""
        ...

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The new values of a block, in a fresh array.

        Args:
            spec: what the block is.
            start: which of the tensor's values, in memory order, is its first.
            old: the raw bits of its values.
        """
        ...

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """The update that is known already, or None where it is to be found from the values.

        Args:
            spec: the block: its dtype, and its shape in memory order.
            start: the index of its first element in the tensor.
            new, old: the block's values after and before the change: raw bits, 1-D.
        """
        ...


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter, bound to a checkpoint: a change for each tensor, by its name there.

    `summary` says what it is (`lora, rank 8`); `notes` what a user must know of how it was applied.
    """

    kind: str
    summary: str
    changes: Mapping[str, Change]
    notes: tuple[str, ...] = field(default=())


def memory_matrix(tensor: TensorInfo) -> tuple[int, int, bool]:
    """Rows and columns of a tensor as it lies in memory, and whether that is its transpose.

    Rows are the first axis in memory, columns all others.

    Raises:
        UsageError: the axes lie in another order than those of a matrix or its transpose.
    """
    if not tensor.shape:
        return 1, 1, False
    turned = tensor.order is not None
    if turned and len(tensor.shape) != 2:
        raise UsageError(
            f"tensor {tensor.name!r} lies in memory with its axes in the order {tensor.order}; an "
            "adapter cannot be applied to that",
            hint="merge it with the tool that made it, then: git add FILE",
        )
    rows = tensor.memory_shape[0]
    return rows, tensor.count // max(rows, 1), turned


def rows_of(spec: BlockSpec, start: int, columns: int, name: str) -> slice:
    """The rows of a tensor's memory matrix that a block holds.

    Args:
        spec: the block.
        start: the index of its first element in the tensor.
        columns: elements in a row of the matrix.
        name: of the tensor, for the message.

    Raises:
        UsageError: the block does not hold whole rows.
    """
    count = spec.count
    if columns == 0 or start % columns or count % columns:
        raise UsageError(
            f"tensor {name!r} has rows too large for one block; an adapter cannot be applied to it",
            hint="merge it with the tool that made it, then: git add FILE",
        )
    return slice(start // columns, (start + count) // columns)


def refuse(path: Any, reason: str, hint: str | None = None) -> UsageError:
    """The error of an adapter that is not what it should be."""
    return UsageError(f"{path}: {reason}", hint=hint)
