"""Tensors whose rows lie in several shards, put together for whoever only reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.formats.torch.distributed import rows_of
from git_theta_ext.manifest.model import Entry, Manifest


def whole(joined: Manifest) -> Manifest:
    """The same, each tensor whose rows lie in several shards put together."""
    made = tuple(entry for entry, _ in put_together(joined.entries))
    if len(made) == len(joined.entries):
        return joined
    ordered = sorted(made, key=lambda entry: natural_key(entry.tensor.name))
    return replace(joined, entries=tuple(ordered))


def put_together(entries: Sequence[Entry]) -> Iterator[tuple[Entry, tuple[Entry, ...]]]:
    """Every tensor, and the entries that hold it: one, or the runs of its rows in order.

    Rows are put together only where all of them are there, and nothing has the tensor's name.
    """
    runs: dict[str, list[tuple[int, int | None, Entry]]] = {}
    taken = {entry.tensor.name for entry in entries}
    for entry in entries:
        found = None if entry.opaque else rows_of(entry.tensor.name)
        if found is not None and found[0] not in taken:
            runs.setdefault(found[0], []).append((found[1], found[2], entry))
    made: dict[str, tuple[Entry, tuple[Entry, ...]]] = {}
    for name, group in runs.items():
        group.sort(key=lambda run: (run[0], run[1] is None, run[1] or 0))
        if (built := _one_of(name, group)) is not None:
            made |= dict.fromkeys((run[2].tensor.name for run in group), built)
    for entry in entries:
        built = made.get(entry.tensor.name)
        if built is None:
            yield entry, (entry,)
        elif built[1][0] is entry:
            yield built


def _one_of(
    name: str, runs: Sequence[tuple[int, int | None, Entry]]
) -> tuple[Entry, tuple[Entry, ...]] | None:
    """The tensor of these rows; None where some are lacking or unlike the others."""
    first, position = runs[0][2].tensor, 0
    for number, (start, stop, entry) in enumerate(runs):
        tensor = entry.tensor
        if not tensor.shape or start != position or tensor.order is not None:
            return None
        position += tensor.shape[0]
        end = None if number == len(runs) - 1 else position
        if stop != end or (tensor.dtype, tensor.shape[1:]) != (first.dtype, first.shape[1:]):
            return None
    if first.dtype.bits % 8:
        return None
    held = tuple(entry for _, _, entry in runs)
    info = TensorInfo(name, first.dtype, (position, *first.shape[1:]))
    blocks = tuple(block for entry in held for block in entry.blocks)
    return Entry(info, blocks, runs=tuple(entry.tensor for entry in held)), held
