"""`--to sparse` and `--to diff`: the entries that changed, or what was added to each.

Both are what `git theta add --update` reads (`sparse` and `difference` of `checkpoints/adapters`),
and on the old version they give the new one, bit for bit. One tensor is held at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters import difference
from git_theta_ext.checkpoints.adapters.corrections import logical
from git_theta_ext.core.arrays import numpy_dtype
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, DType
from git_theta_ext.core.text import plural, printable
from git_theta_ext.packages.adapter import files
from git_theta_ext.packages.adapter.ends import Ends, Piece
from git_theta_ext.packages.adapter.files import Tensor
from git_theta_ext.updates.arithmetic import widen
from git_theta_ext.updates.low_rank.prediction import add

_LISTED = 8


@dataclass(frozen=True, slots=True)
class Listed:
    """What was written: by tensor how many entries it has, and how many are listed; its length."""

    tensors: dict[str, tuple[int, int]]
    nbytes: int


def export(
    ends: Ends,
    path: Path,
    kind: str,
    work_tree: Path | None,
    advance: Callable[[int], object],
) -> Listed:
    """Write a commit as a file of entries (`sparse`) or of differences (`diff`).

    Args:
        ends: the versions.
        path: the file, as the user named it.
        kind: `sparse` or `diff`.
        work_tree: the top of the repository's.
        advance: called with bytes that are done.

    Raises:
        UsageError: a tensor is in one version only, or has elements that cannot be listed.
        StoreError: the file cannot be written.
    """
    _require_comparable(ends, kind)
    ends.prepare(ends.changed)
    wanted: dict[str, Tensor] = {}
    tensors: dict[str, tuple[int, int]] = {}
    for name in ends.changed:
        tensor = ends.after[name].tensor
        adds = kind == "diff" and tensor.dtype.kind == "float"
        miss = _misses_of_sums if adds else _changes
        count = sum(len(miss(piece)) for piece in ends.pieces(name))
        tensors[name] = (tensor.count, count)
        if adds:
            wide = DTYPES["F64" if tensor.dtype.name == "F64" else "F32"]
            wanted[name] = Tensor(wide, tensor.shape, _Sums(ends, name))
        if count:
            held = _Entries(ends, name, miss)
            places = "I32" if tensor.count < 1 << 31 else "I64"
            wanted[f"{name}.indices"] = Tensor(DTYPES[places], (count,), held.indices)
            wanted[f"{name}.values"] = Tensor(tensor.dtype, (count,), held.values)
        advance(tensor.nbytes)
    if not wanted:
        raise UsageError(f"no tensor of {printable(ends.path)} differs")
    marks = {"format": difference.FORMAT} if kind == "diff" else {"mode": "replace"}
    return Listed(tensors, files.write(path, wanted, marks, work_tree))


def _require_comparable(ends: Ends, kind: str) -> None:
    odd = [n for n in ends.changed if ends.after[n].tensor.dtype.kind in ("complex", "bits")]
    names = [*ends.remade, *odd]
    clash = [n for n in ends.after if n.endswith((".indices", ".values"))]
    stems = {n.rpartition(".")[0] for n in clash} & set(ends.changed)
    if names or stems:
        shown = ", ".join(printable(name) for name in (names or sorted(stems))[:_LISTED])
        raise UsageError(
            f"{plural(len(names or stems), 'tensor')} cannot be in a {kind} update, being in one "
            f"version only, of another dtype or shape, or of elements without numbers: {shown}"
        )


def _changes(piece: Piece) -> NDArray[np.intp]:
    """The entries of a block that are others than before."""
    return np.flatnonzero(piece.old != piece.new)


def _difference(dtype: DType, piece: Piece) -> NDArray[Any]:
    """What is to be added, as far as its float says it; where that is no number, nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        step = widen(dtype, piece.new) - widen(dtype, piece.old)
    step[~np.isfinite(step)] = 0
    return step


def _misses_of_sums(piece: Piece) -> NDArray[np.intp]:
    """The entries of a block that its differences do not give."""
    dtype = piece.spec.dtype
    step = _difference(dtype, piece).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.flatnonzero(add(dtype, piece.old, step, "sum") != piece.new)


@dataclass(frozen=True, slots=True)
class _Sums:
    """The differences of a tensor, in its own shape."""

    ends: Ends
    name: str

    def __call__(self) -> NDArray[Any]:
        tensor = self.ends.after[self.name].tensor
        parts = [_difference(tensor.dtype, piece) for piece in self.ends.pieces(self.name)]
        flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
        array = flat.reshape(tensor.memory_shape)
        return array if tensor.order is None else array.transpose(np.argsort(tensor.order))


class _Entries:
    """The listed entries of a tensor: held from when the places are asked for to the values."""

    def __init__(self, ends: Ends, name: str, miss: Callable[[Piece], NDArray[np.intp]]) -> None:
        self._ends, self._name, self._miss = ends, name, miss
        self._found: list[NDArray[Any]] = []

    def indices(self) -> NDArray[Any]:
        places = []
        for piece in self._ends.pieces(self._name):
            here = self._miss(piece)
            places.append(here.astype(np.int64) + piece.start)
            self._found.append(piece.new[here])
        entry = self._ends.after[self._name]
        narrow = np.int32 if entry.tensor.count < 1 << 31 else np.int64
        return logical(np.concatenate(places), entry).astype(narrow)

    def values(self) -> NDArray[Any]:
        found, self._found = np.concatenate(self._found), []
        dtype = numpy_dtype(self._ends.after[self._name].tensor.dtype)
        return found if dtype is None else found.view(dtype)
