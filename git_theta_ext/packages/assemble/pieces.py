"""Tensors that are cast, stacked or split: their bytes, block by block, out of those of others."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.exporting.outgoing import rounded
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, BlockSpec, DType, cut
from git_theta_ext.core.text import plural
from git_theta_ext.core.values import Values, to_floats, values_dtype
from git_theta_ext.manifest.model import Block
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.packages.assemble.given import Given

_HELD = 3
"""Blocks that are held to be cut up: an expert is often a small part of a block of its stack."""
_CHUNK = 1 << 20
"""Values that are cast at a time."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Made:
    """One block of a tensor that is made, and which of the values that it is made of are its own.

    `start` is the first of them. `exact` is the block of the one piece that holds just these, and
    what that is: None where it is put together.
    """

    given: Given
    spec: BlockSpec
    start: int
    exact: tuple[BlockSpec, Block] | None


def blocks_of(given: Given) -> Iterator[Made]:
    """The blocks of a tensor that is made, in file order."""
    known = _ranges(given)
    start = 0
    for spec in cut(given.info):
        yield Made(given, spec, start, known.get((start, start + spec.count)))
        start += spec.count


def _ranges(given: Given) -> dict[tuple[int, int], tuple[BlockSpec, Block]]:
    """The blocks of the tensor that one is a cast of, by the values that they hold."""
    if len(given.pieces) != 1 or not given.pieces[0].is_whole:
        return {}
    parts = given.pieces[0].entry.parts()
    ends = [0]
    for spec, _ in parts:
        ends.append(ends[-1] + spec.count)
    return dict(zip(pairwise(ends), parts, strict=True))


class Reader:
    """Reads the values of pieces; a few blocks are held, for those that follow."""

    def __init__(self, blocks: Blocks) -> None:
        """`blocks`: where the pieces are rebuilt from, verified."""
        self._blocks = blocks
        self._held: OrderedDict[str, Bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, made: Made) -> Values:
        """The raw bits of a block's elements, a fresh array.

        Raises:
            UsageError: numbers would become infinite or NaN.
            MissingObjectError, CorruptObjectError, TransferError: a block cannot be rebuilt.
        """
        source = DTYPES[made.given.dtype]
        size = source.itemsize
        data = self._bytes(made.given, made.start * size, (made.start + made.spec.count) * size)
        if source == made.spec.dtype:
            return data.view(values_dtype(made.spec.dtype))
        return _cast(made.given.name, source, made.spec.dtype, data.view(values_dtype(source)))

    def _bytes(self, given: Given, start: int, stop: int) -> Bytes:
        """Bytes of the pieces, one after the other, from one place to another."""
        found = np.empty(stop - start, np.uint8)
        at = 0
        for piece in given.pieces:
            length = piece.stop - piece.start
            first, last = max(start, at), min(stop, at + length)
            if first < last:
                position = first - start
                for part in self._parts(
                    piece.entry.parts(), piece.start + first - at, last - first
                ):
                    found[position : position + len(part)] = part
                    position += len(part)
            at += length
        return found

    def _parts(
        self, parts: list[tuple[BlockSpec, Block]], start: int, length: int
    ) -> Iterator[Bytes]:
        """The bytes of a tensor from a place on, as they lie in its blocks."""
        at = 0
        for spec, block in parts:
            first, last = max(start, at), min(start + length, at + spec.nbytes)
            if first < last:
                yield self._block(spec, block)[first - at : last - at]
            at += spec.nbytes

    def _block(self, spec: BlockSpec, block: Block) -> Bytes:
        with self._lock:
            held = self._held.get(block.sha256)
            if held is not None:
                self._held.move_to_end(block.sha256)
                return held
        data = self._blocks.read(spec, block).view(np.uint8)
        with self._lock:
            self._held[block.sha256] = data
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        return data


def _cast(name: str, source: DType, target: DType, values: Values) -> Values:
    """Floats in another element type, rounded once, half to even.

    Raises:
        UsageError: finite ones are beyond its range.
    """
    found = np.empty(len(values), values_dtype(target))
    lost = 0
    for first in range(0, len(values), _CHUNK):
        piece = slice(first, first + _CHUNK)
        found[piece] = rounded(values[piece], source, target)
        finite = np.isfinite(to_floats(target, found[piece]))
        if not finite.all():
            lost += int((np.isfinite(to_floats(source, values[piece])) & ~finite).sum())
    if lost:
        raise UsageError(
            f"{name!r} as {target.name}: {plural(lost, 'value')} would be infinite or NaN",
            hint="choose a dtype of a wider range, such as bf16, for this part",
        )
    return found
