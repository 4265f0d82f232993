"""What an adapter's factors miss of the version that it was exported from, in a file beside it.

`git theta export --to peft` writes `corrections.safetensors`: entries and their values, as in a
sparse update, which PEFT does not look at. They are right only for the very factors beside them,
on the very version that these begin from: the file says both, by hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters import sparse
from git_theta_ext.checkpoints.adapters.base import Adapter, refuse
from git_theta_ext.checkpoints.adapters.changes import CorrectedChange, EntriesChange
from git_theta_ext.checkpoints.adapters.files import TensorFile
from git_theta_ext.manifest.model import Entry

NAME = "corrections.safetensors"
FORMAT = "git-theta corrections"
_ADAPTER, _BASE = "adapter_sha256", "base_sha256"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Corrections:
    """The file's tensors, and the hash of the tensors of the version that they are for."""

    parts: Mapping[str, NDArray[Any]]
    base: str

    @property
    def nbytes(self) -> int:
        """Of all values and places."""
        return sum(part.nbytes for part in self.parts.values())

    def metadata(self, adapter: str) -> dict[str, str]:
        """What the file says of itself."""
        return {"format": FORMAT, _ADAPTER: adapter, _BASE: self.base}


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            found.update(data)
    return found.hexdigest()


def base_of(entries: Iterable[Entry]) -> str:
    """One hash of the content of some tensors."""
    found = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.tensor.name):
        found.update(entry.tensor.name.encode("utf-8", "surrogatepass") + b"\0")
        for block in entry.blocks:
            found.update(block.sha256.encode())
    return found.hexdigest()


def applied(adapter: Adapter, model: Path, entries: Iterable[Entry]) -> Adapter:
    """An adapter with the corrections beside it; as it is where there are none for it.

    Args:
        adapter: bound to a version.
        model: the file of its factors.
        entries: the version's tensors.

    Raises:
        UsageError: the file of corrections is damaged.
    """
    path = model.with_name(NAME)
    if not path.exists():
        return adapter
    with TensorFile(path) as file:
        if file.metadata.get("format") != FORMAT:
            return _left_out(adapter, "is no such file")
        if file.metadata.get(_ADAPTER) != digest_of(model):
            return _left_out(adapter, "is of another adapter, or this one was changed")
        known = {entry.tensor.name: entry for entry in entries}
        stems = {name.removesuffix(".indices").removesuffix(".values") for name in file}
        if not stems <= known.keys() or not stems <= adapter.changes.keys():
            return _left_out(adapter, "is for another version")
        if file.metadata.get(_BASE) != base_of(known[stem] for stem in stems):
            return _left_out(adapter, "is for another version than this one")
        found = sparse.bind(file, {stem: known[stem].tensor for stem in stems})
    changes = dict(adapter.changes)
    count = 0
    for name, change in found.changes.items():
        if not isinstance(change, EntriesChange) or change.adds:
            raise refuse(path, "its entries are no values")
        changes[name] = CorrectedChange(changes[name], change, computes=False)
        count += len(change.positions)
    note = (
        f"{count:,} entries are taken from {NAME}: the result is the version it was exported from"
    )
    return replace(adapter, changes=changes, notes=(*adapter.notes, note))


def _left_out(adapter: Adapter, why: str) -> Adapter:
    note = f"{NAME} {why}: it is left out, and the factors count alone"
    return replace(adapter, notes=(*adapter.notes, note))


def logical(places: NDArray[np.int64], entry: Entry) -> NDArray[np.int64]:
    """Places in a tensor's memory as places in the flattened tensor."""
    tensor = entry.tensor
    if tensor.order is None:
        return places
    coordinates = np.unravel_index(places, tensor.memory_shape)
    back = tuple(coordinates[tensor.order.index(axis)] for axis in range(len(tensor.shape)))
    return np.asarray(np.ravel_multi_index(back, tensor.shape), np.int64)
