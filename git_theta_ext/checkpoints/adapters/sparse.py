"""Sparse updates from a file: for a tensor NAME, `NAME.indices` and `NAME.values`.

Indices are places in the flattened tensor (one axis), or one row of coordinates for each entry
(entries × axes). Values are what stands there from now on; with `"mode": "add"` in the file's
metadata, what is added to what stood there. An entry may be named once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import Adapter, Change, refuse
from git_theta_ext.checkpoints.adapters.changes import EntriesChange
from git_theta_ext.checkpoints.adapters.files import TensorFile, to_values
from git_theta_ext.checkpoints.adapters.names import match_names
from git_theta_ext.core.tensors import TensorInfo

_MODES = ("replace", "add")


def looks_like(names: Mapping[str, Any] | TensorFile) -> bool:
    """Whether some tensor has indices and values."""
    return any(
        name.endswith(".indices") and name.removesuffix(".indices") + ".values" in names
        for name in names
    )


def bind(file: TensorFile, tensors: Mapping[str, TensorInfo]) -> Adapter:
    """The changes that the file makes to a checkpoint's tensors.

    Raises:
        UsageError: indices and values do not fit together, or the checkpoint's tensors.
    """
    mode = file.metadata.get("mode", "replace")
    if mode not in _MODES:
        raise refuse(file.path, f"its mode is {mode!r}; known: {', '.join(_MODES)}")
    stems = [name.removesuffix(".indices") for name in file if name.endswith(".indices")]
    for name in file:
        stem = name.removesuffix(".values").removesuffix(".indices")
        if f"{stem}.values" not in file or f"{stem}.indices" not in file:
            raise refuse(file.path, f"tensor {name!r} is not one of NAME.indices and NAME.values")
    names = match_names(file.path, stems, tensors)
    changes: dict[str, Change] = {}
    entries = 0
    for stem in stems:
        tensor = tensors[names[stem]]
        change = _change(file, stem, tensor, mode == "add")
        changes[tensor.name] = change
        entries += len(change.positions)
    return Adapter("sparse", f"sparse, {entries:,} entries of {len(changes)} tensors", changes)


def entries(file: TensorFile, stem: str, tensor: TensorInfo) -> EntriesChange:
    """The entries of one tensor that `STEM.indices` and `STEM.values` give new values.

    Raises:
        UsageError: they do not fit together, or the tensor.
    """
    return _change(file, stem, tensor, adds=False)


def _change(file: TensorFile, stem: str, tensor: TensorInfo, adds: bool) -> EntriesChange:
    """The listed entries of one tensor, sorted by position, each named once and with one value."""
    if tensor.dtype.kind in ("complex", "bits") or (adds and tensor.dtype.kind != "float"):
        raise refuse(
            file.path, f"entries of tensor {tensor.name!r} ({tensor.dtype.name}) cannot be updated"
        )
    positions = _positions(file, stem, tensor)
    stored = f"{stem}.values"
    count = file.info(stored).count
    if count != len(positions):
        raise refuse(file.path, f"{stem!r} has {len(positions)} indices and {count} values")
    values: NDArray[Any]
    if adds:
        values = file.floats(stored).ravel()
    else:
        listed = TensorInfo(tensor.name, tensor.dtype, file.info(stored).shape)
        values = to_values(file, stored, listed)
    order = np.argsort(positions, kind="stable")
    positions = positions[order]
    if len(positions) > 1 and not (positions[1:] > positions[:-1]).all():
        raise refuse(file.path, f"{stem!r} names an entry twice")
    return EntriesChange(positions, values[order], adds)


def _positions(file: TensorFile, stem: str, tensor: TensorInfo) -> NDArray[np.int64]:
    """Places in memory order."""
    stored = f"{stem}.indices"
    info = file.info(stored)
    if info.dtype.kind not in ("int", "uint"):
        raise refuse(file.path, f"tensor {stored!r} is {info.dtype.name}, not integers")
    array = file.read(stored)
    axes = len(tensor.shape)
    limits: tuple[int, ...] = (tensor.count,)
    if axes and array.ndim == 2 and array.shape[1] == axes:
        limits = tensor.shape
    elif array.ndim != 1:
        raise refuse(
            file.path,
            f"{stored!r} is of shape {list(array.shape)}: expected one place, or {axes} "
            "coordinates, for each entry",
        )
    columns = array if array.ndim == 2 else array[:, None]
    if len(array) and ((columns < 0).any() or (columns >= np.array(limits)).any()):
        raise refuse(file.path, f"{stored!r} names entries outside shape {list(tensor.shape)}")
    columns = columns.astype(np.int64)
    if len(limits) > 1:
        coordinates = tuple(columns.T)
    else:
        coordinates = np.unravel_index(columns[:, 0], tensor.shape) if axes else (columns[:, 0],)
    if tensor.order is None:
        if axes == 0:
            return columns[:, 0]
        return np.asarray(np.ravel_multi_index(coordinates, tensor.shape), np.int64)
    turned = tuple(coordinates[axis] for axis in tensor.order)
    return np.asarray(np.ravel_multi_index(turned, tensor.memory_shape), np.int64)
