"""What became of quantised weights: as one value each, compared by the numbers they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from git_theta_ext.checkpoints.coupled.read import (
    NotDecodedError,
    Reader,
    Settings,
    numbers,
    quantised,
)
from git_theta_ext.checkpoints.coupled.schemes import Numbers, Scheme, Weight
from git_theta_ext.checkpoints.versions import Side
from git_theta_ext.comparison.measure import Measure, measure_block
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import to_floats
from git_theta_ext.manifest.model import Block, Entry
from git_theta_ext.objects.bounds import check_work

Verb = Literal["quantised", "re-quantised", "dequantised", "added", "removed"]
Lacking = Callable[[Sequence[Block]], str | None]
_CHUNK = 1 << 18
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class Requantised:
    """A quantised weight that differs.

    `old` and `new` are its schemes, or the element type of the floats that it was or became; None
    where it came or went. `parts` are its tensors in either version. `measure` is how far the
    numbers moved that it means, over all of it, and `unmeasured` why that is not known.
    """

    name: str
    verb: Verb
    old: Scheme | str | None
    new: Scheme | str | None
    parts: frozenset[str] = frozenset()
    measure: Measure | None = None
    unmeasured: str | None = None


@dataclass(frozen=True, slots=True)
class _End:
    """A version: its entries and its quantised weights."""

    side: Side
    entries: Mapping[str, Entry]
    weights: Mapping[str, Weight]

    def hashes(self, weight: Weight) -> list[tuple[str, ...]]:
        """What is equal in two versions exactly if all tensors of a weight are."""
        return [tuple(block.sha256 for block in self.entries[n].blocks) for n in weight.parts]

    def parts(self, name: str) -> frozenset[str]:
        """The tensors of a weight, quantised or not."""
        found = self.weights.get(name)
        return frozenset(found.parts if found is not None else {name} & self.entries.keys())

    def whole(self, name: str) -> list[tuple[BlockSpec, Block]]:
        """Its blocks, each with what it is."""
        return [part for one in sorted(self.parts(name)) for part in self.entries[one].parts()]

    def floats(self, name: str, like: Weight) -> str | None:
        """The element type of a weight that is not quantised here, of the shape of one that is."""
        entry = self.entries.get(name)
        if entry is None or entry.opaque or entry.tensor.order is not None:
            return None
        tensor = entry.tensor
        return (
            tensor.dtype.name
            if tensor.dtype.name in _FLOATS and tensor.shape == like.shape
            else None
        )


def requantised(
    old: tuple[Side, Settings], new: tuple[Side, Settings], lacking: Lacking | None = None
) -> tuple[Requantised, ...]:
    """The quantised weights that differ between two versions, in natural order.

    Args:
        old, new: both versions, and what reads their configurations.
        lacking: why the values of some blocks cannot be had; by default all can.
    """

    def can(blocks: Sequence[Block]) -> bool:
        return lacking is None or not lacking(blocks)

    ends = [
        _End(side, side.manifest.by_name(), quantised(side, config, can))
        for side, config in (old, new)
    ]
    before, after = ends
    found = []
    for name in sorted(before.weights.keys() | after.weights.keys(), key=natural_key):
        one = _compared(name, before, after)
        if one is not None:
            one = replace(one, parts=before.parts(name) | after.parts(name))
            found.append(
                one if one.verb in ("added", "removed") else _measured(one, before, after, can)
            )
    return tuple(found)


def _compared(name: str, before: _End, after: _End) -> Requantised | None:
    """What became of a weight, from the manifests alone; None where it is as it was."""
    then, now = before.weights.get(name), after.weights.get(name)
    if then is not None and now is not None:
        same = then.scheme == now.scheme and before.hashes(then) == after.hashes(now)
        return None if same else Requantised(name, "re-quantised", then.scheme, now.scheme)
    if now is not None:
        was = before.floats(name, now)
        return Requantised(name, "quantised" if was else "added", was, now.scheme)
    if then is not None:
        became = after.floats(name, then)
        return Requantised(name, "dequantised" if became else "removed", then.scheme, became)
    return None


def _measured(
    one: Requantised, before: _End, after: _End, can: Callable[[Sequence[Block]], bool]
) -> Requantised:
    """The same with how far its numbers moved, or why that is not known."""
    if not _comparable(one.name, before, after):
        unknown = [
            scheme.kind
            for end, scheme in ((before, one.old), (after, one.new))
            if isinstance(scheme, Scheme) and end.weights[one.name].decode is None
        ]
        why = f"what codes of {unknown[0]} mean is not read" if unknown else "other shapes"
        return replace(one, unmeasured=why)
    if not can([block for end in (before, after) for _, block in end.whole(one.name)]):
        return replace(one, unmeasured="values not available")
    for end in (before, after):
        _prepare(end, one.name)
    total, first = Measure(), 0
    try:
        for then, now in _together(_numbers(before, one.name), _numbers(after, one.name)):
            spec = BlockSpec(DTYPES["F32"], then.shape)
            part = measure_block(spec, then.view(np.uint32), now.view(np.uint32), first)
            total, first = total + replace(part, sample=()), first + len(then)
    except NotDecodedError:
        return replace(one, unmeasured="its tensors do not fit each other, or are too large")
    return replace(one, measure=total)


def _comparable(name: str, before: _End, after: _End) -> bool:
    """Whether the numbers of both versions are known, and stand for each other in their order."""
    then, now = (_count(end, name) for end in (before, after))
    both = [end.weights[name] for end in (before, after) if name in end.weights]
    shapes = {weight.shape for weight in both}
    # Of one without a shape the order is known to be that of its own kind alone.
    alike = len({weight.scheme.kind for weight in both}) == 1 if None in shapes else True
    return then == now > 0 and len(shapes - {None}) < 2 and alike


def _prepare(end: _End, name: str) -> None:
    """Have the blocks of a weight at hand, unless they ask for more than honest ones do."""
    wanted = end.whole(name)
    end.side.prepare([block for _, block in wanted])
    store = end.side.store_of((min(end.parts(name)), 0))
    if store is not None:
        check_work(store, wanted, "what changed", reading=True)


def _count(end: _End, name: str) -> int:
    weight = end.weights.get(name)
    if weight is None:
        return end.entries[name].tensor.count
    return weight.count if weight.decode is not None else -1


def _numbers(end: _End, name: str) -> Iterator[Numbers]:
    weight = end.weights.get(name)
    if weight is not None:
        yield from numbers(end.side, weight)
        return
    tensor, reader = end.entries[name].tensor, Reader(end.side, end.entries)
    for start in range(0, tensor.count, _CHUNK):
        values = reader(name, start, min(start + _CHUNK, tensor.count))
        with np.errstate(over="ignore", invalid="ignore"):
            yield to_floats(tensor.dtype, np.ascontiguousarray(values)).astype(np.float32)


def _together(
    one: Iterator[Numbers], other: Iterator[Numbers]
) -> Iterator[tuple[Numbers, Numbers]]:
    """Two streams of numbers, cut at the same places."""
    mine, its = next(one, None), next(other, None)
    while mine is not None and its is not None:
        both = min(len(mine), len(its))
        yield mine[:both], its[:both]
        mine = mine[both:] if both < len(mine) else next(one, None)
        its = its[both:] if both < len(its) else next(other, None)
