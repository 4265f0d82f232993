"""The quantised weights of a version, and the numbers that they mean, read piece by piece."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.coupled.find import weights
from git_theta_ext.checkpoints.coupled.schemes import Numbers, Parts, Table, Weight
from git_theta_ext.checkpoints.versions import Side
from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.values import Values, raw_bytes, values_dtype
from git_theta_ext.formats import gguf, safetensors
from git_theta_ext.formats.base import Layout, Literal
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.manifest.model import Block, Entry

_CHUNK = 1 << 18
"""Numbers that are made at once."""


class NotDecodedError(ValueError):
    """The tensors of a weight do not mean what they should; says why."""


Settings = Callable[[], Mapping[str, Any]]
"""Reads what the `config.json` beside a version says; empty where there is none."""


def quantised(
    side: Side, config: Settings, at_hand: Callable[[Sequence[Block]], bool] = lambda blocks: True
) -> dict[str, Weight]:
    """The quantised weights of a version, by their names.

    Args:
        side: the version. Read are its structure, and tensors of a few bytes that say how.
        config: called at most once.
        at_hand: whether some blocks may be read; by default all.
    """
    entries = {entry.tensor.name: entry for entry in side.manifest.entries if not entry.opaque}
    # Shards that are joined have another word here, and no skeleton that was a file's.
    kind = side.manifest.format
    metadata: Mapping[str, str] = {}
    types: Mapping[str, str] = {}
    if kind in (gguf.NAME, safetensors.NAME) and at_hand(side.skeletons()):
        first = _first_literal(side)
        try:
            if first is not None and kind == gguf.NAME:
                types = gguf.types(Layout(kind, (first,)))
            elif first is not None:
                metadata = safetensors.metadata(Layout(kind, (first,)))
        except FormatError:
            pass  # what was written as a file of this kind and cannot be read has no such facts

    def small(name: str) -> bytes | None:
        entry = entries[name]
        if entry.tensor.nbytes > limits.QUANTISED_SMALL_BYTES or not at_hand(entry.blocks):
            return None
        return bytes(raw_bytes(np.ascontiguousarray(Reader(side, entries).all(name))))

    tensors = {name: entry.tensor for name, entry in entries.items()}
    return weights(Table(tensors, cache(config), metadata, types, small))


def _first_literal(side: Side) -> Literal | None:
    found = skeleton.decode(side.structure()).segments
    return found[0] if found and isinstance(found[0], Literal) else None


class Reader:
    """Reads tensors of a version by ranges of their values; of each the last block is held."""

    def __init__(self, side: Side, entries: Mapping[str, Entry]) -> None:
        """Nothing is read before it is asked for."""
        self._side, self._entries = side, entries
        self._last: dict[str, tuple[int, Values]] = {}

    def all(self, name: str) -> NDArray[Any]:
        """All values of a tensor, flat."""
        return self(name, 0, self._entries[name].tensor.count)

    def __call__(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Values from one number to before another, flat."""
        entry = self._entries[name]
        specs = entry.specs()
        sizes = (spec.nbytes // values_dtype(spec.dtype).itemsize for spec in specs)
        starts = list(accumulate(sizes, initial=0))
        if not 0 <= start <= stop <= starts[-1]:
            raise NotDecodedError(f"{name}: values {start} to {stop} of {starts[-1]}")
        found: list[Values] = []
        at = max(0, bisect_right(starts, start, hi=len(specs)) - 1)
        for number in range(at, len(specs)):
            if starts[number] >= stop and found:
                break
            block = self._block(name, entry, number)
            found.append(block[max(0, start - starts[number]) : stop - starts[number]])
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _block(self, name: str, entry: Entry, number: int) -> Values:
        held = self._last.get(name)
        if held is None or held[0] != number:
            spec = entry.specs()[number]
            held = number, self._side.read(spec, (name, number), entry.blocks[number])
            self._last[name] = held
        return held[1]


def numbers(side: Side, weight: Weight) -> Iterator[Numbers]:
    """The numbers of a quantised weight, flat, piece by piece, in the order of the weight.

    Raises:
        NotDecodedError: its tensors do not fit each other, or would take too much memory.
    """
    entries = side.manifest.by_name()
    parts = Parts({name: entries[name].tensor for name in weight.parts}, Reader(side, entries))
    # Eight rows at least: AWQ has them in one word.
    step = max(1, _CHUNK // max(1, weight.columns) // 8) * 8
    if weight.decode is None:
        raise NotDecodedError(f"what the codes of {weight.scheme.kind} mean is not known here")
    for start in range(0, weight.rows, step):
        stop = min(start + step, weight.rows)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                found = weight.decode(parts, start, stop)
        except (ValueError, IndexError, BoundError) as error:
            raise NotDecodedError(f"{weight.name}: {error}") from error
        if found.size != (stop - start) * weight.columns:
            raise NotDecodedError(f"{weight.name}: {found.size} numbers in rows {start} to {stop}")
        yield np.ascontiguousarray(found, np.float32).ravel()
