"""Whole-tensor differences from a file: for a tensor NAME, what is added to each of its entries.

Task vectors are kept like this (Ilharco and others, "Editing Models with Task Arithmetic", 2023).
Sums are computed in float32, or in float64 for float64 weights, and rounded once. An entry that no
sum gives exactly may be listed with its value, as in a sparse update: `NAME.indices` and
`NAME.values`. A tensor of integers is only listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from git_theta_ext.checkpoints.adapters import sparse
from git_theta_ext.checkpoints.adapters.base import Adapter, Change, refuse
from git_theta_ext.checkpoints.adapters.changes import CorrectedChange
from git_theta_ext.checkpoints.adapters.files import TensorFile
from git_theta_ext.checkpoints.adapters.names import match_names
from git_theta_ext.core.tensors import BlockSpec, TensorInfo
from git_theta_ext.core.values import Values
from git_theta_ext.updates.arithmetic import widen
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.low_rank.prediction import add

FORMAT = "git-theta difference"
"""What the file's metadata says under `format`."""


@dataclass(frozen=True, slots=True)
class DifferenceChange:
    """A tensor of an open file is added; it is read piece by piece."""

    file: TensorFile
    stored: str
    tensor: TensorInfo

    kind: ClassVar[str] = "diff"

    @property
    def computes(self) -> bool:
        """New values are computed."""
        return True

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The sums, rounded once to the weights' dtype."""
        if self.tensor.order is None:
            added = self.file.run(self.stored, start, start + len(old))
        else:
            whole = self.file.read(self.stored).transpose(self.tensor.order)
            added = whole.reshape(-1)[start : start + len(old)]
        with np.errstate(over="ignore", invalid="ignore"):
            return add(spec.dtype, old, added.astype(np.float64), "sum")

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """Found from the values."""
        return None


def looks_like(file: TensorFile) -> bool:
    """Whether the file says that it holds differences."""
    return file.metadata.get("format") == FORMAT


def bind(file: TensorFile, tensors: Mapping[str, TensorInfo]) -> Adapter:
    """The changes that the file makes to a checkpoint's tensors.

    Raises:
        UsageError: a difference does not fit the tensor that it is of, or there is none.
    """
    pairs = {
        name.removesuffix(".indices")
        for name in file
        if name.endswith(".indices") and name.removesuffix(".indices") + ".values" in file
    }
    listed = {f"{stem}{end}" for stem in pairs for end in (".indices", ".values")}
    added = [name for name in file if name not in listed]
    names = match_names(file.path, [*added, *sorted(pairs - set(added))], tensors)
    changes: dict[str, Change] = {}
    for stored in added:
        tensor = tensors[names[stored]]
        info = file.info(stored)
        if tensor.dtype.kind != "float" or info.dtype.kind != "float":
            raise refuse(
                file.path,
                f"{stored!r} is {info.dtype.name} and {tensor.name!r} {tensor.dtype.name}: a "
                "difference is of floats",
            )
        if info.shape != tensor.shape:
            raise refuse(
                file.path,
                f"{stored!r} is {list(info.shape)}; {tensor.name!r} is {list(tensor.shape)}",
            )
        changes[tensor.name] = DifferenceChange(file, stored, tensor)
    entries = 0
    for stem in sorted(pairs):
        tensor = tensors[names[stem]]
        change = sparse.entries(file, stem, tensor)
        entries += len(change.positions)
        first = changes.get(tensor.name)
        if first is None:
            changes[tensor.name] = change
            continue
        finite = bool(np.isfinite(widen(tensor.dtype, change.values)).all())
        changes[tensor.name] = CorrectedChange(first, change, computes=finite)
    said = f"differences of {len(changes)} tensors"
    return Adapter("diff", said + (f", {entries:,} entries listed" if entries else ""), changes)
