"""Three versions of one tensor, read block by block in the type that the result has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from git_theta_ext.core.tensors import BlockSpec, DType, TensorInfo, cut
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.manifest.model import Block, Entry
from git_theta_ext.merge.combine.encoding import encode_merged
from git_theta_ext.merge.combine.values import beyond_range, from_floats, to_floats
from git_theta_ext.objects.blocks import Blocks, Shared, sha256
from git_theta_ext.updates.residual import SLICE

COPIES = 6
"""Blocks of memory that merging one block takes: three versions, the result, its encoding."""


class Reader:
    """Runs of values of one version of a tensor, converted to the dtype of the result.

    Positions count values: elements, or bytes of packed ones, or halves of complex ones.
    `overflowed` says whether a finite number that was read is none in the result's dtype.
    """

    def __init__(self, entry: Entry, dtype: DType, blocks: Blocks) -> None:
        """`dtype` is that of the result; another float dtype is cast to it, rounded once."""
        self.entry = entry
        self._dtype = dtype
        self._blocks = blocks
        self._specs = entry.specs()
        self._lengths = [_values_in(spec) for spec in self._specs]
        self.count = sum(self._lengths)
        self.overflowed = False

    def read(self, start: int, stop: int) -> Values:
        """The raw bits of values `start` to `stop`; a fresh array."""
        pieces: list[Values] = []
        position = 0
        for spec, block, length in zip(self._specs, self.entry.blocks, self._lengths, strict=True):
            first, last = max(start, position), min(stop, position + length)
            if first < last or (start == stop == position and not pieces and not length):
                values = self._blocks.read(spec, block)
                pieces.append(values[first - position : last - position])
            position += length
        if not pieces:
            return np.zeros(0, values_dtype(self._dtype))
        found = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return self._cast(found)

    def _cast(self, values: Values) -> Values:
        dtype = self.entry.tensor.dtype
        if dtype == self._dtype:
            return values
        result = np.empty(len(values), values_dtype(self._dtype))
        for start in range(0, len(values), SLICE):
            piece = slice(start, start + SLICE)
            numbers = to_floats(dtype, values[piece])
            result[piece] = from_floats(self._dtype, numbers)
            beyond = beyond_range(self._dtype, result[piece])
            if beyond is not None and np.isfinite(numbers[beyond]).any():
                self.overflowed = True
        return result


def _values_in(spec: BlockSpec) -> int:
    return spec.nbytes // values_dtype(spec.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Part:
    """One block of the result: what it is and which values of the tensor it holds.

    `known` is the block as it stands in the sides, where it is known to be theirs or ours without
    being read; `same` are the blocks of the sides in the same place and of the same type, and `old`
    is that of the base.
    """

    spec: BlockSpec
    start: int
    stop: int
    known: Block | None
    same: tuple[Block, ...]
    old: Block | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """The values of a block in three versions; not to be written to.

    `shared` is what they were all made of, if the result can be encoded against that.
    """

    old: Values | None
    mine: Values
    yours: Values
    shared: Shared | None = None


class Versions:
    """The base and the two sides of a tensor, in the type of the result."""

    def __init__(
        self, tensor: TensorInfo, old: Entry | None, mine: Entry, yours: Entry, blocks: Blocks
    ) -> None:
        """`tensor` is the result's type: the sides' own, a cast of them, or one with more rows."""
        self.tensor = tensor
        self.specs = list(cut(tensor))
        dtype = self.specs[0].dtype
        self.dtype = dtype
        self.old = None if old is None else Reader(old, dtype, blocks)
        self.mine = Reader(mine, dtype, blocks)
        self.yours = Reader(yours, dtype, blocks)
        self._blocks = blocks
        self._held: dict[int, Read] = {}

    @property
    def count(self) -> int:
        """Values in the result."""
        return sum(_values_in(spec) for spec in self.specs)

    @property
    def common(self) -> int:
        """Values that all versions have; those after them are rows that were added."""
        readers = [self.mine, self.yours, *([self.old] if self.old else [])]
        return min(self.count, *(reader.count for reader in readers))

    @property
    def stacked(self) -> bool:
        """Whether the result holds the rows that ours added, and behind them those of theirs."""
        return self.count > max(self.mine.count, self.yours.count)

    def added(self, start: int, stop: int) -> Values:
        """Values of a stacked result behind the common ones: those of ours, then of theirs."""
        edge = self.mine.count
        shift = edge - self.common
        mine = self.mine.read(min(start, edge), min(stop, edge))
        yours = self.yours.read(max(start, edge) - shift, max(stop, edge) - shift)
        return np.concatenate([mine, yours])

    def parts(self) -> Iterator[Part]:
        """The blocks of the result in order."""
        start = 0
        for number, spec in enumerate(self.specs):
            stop = start + _values_in(spec)
            known, same = self._known(number)
            old = self.old.entry.blocks[number] if same and self._alike() and self.old else None
            yield Part(spec, start, stop, known, same, old)
            start = stop

    def _known(self, number: int) -> tuple[Block | None, tuple[Block, ...]]:
        """The result's block if two of the three are equal, and the sides' blocks at its place."""
        entries = [reader.entry for reader in (self.mine, self.yours)]
        if any(_shape(entry.tensor) != _shape(self.tensor) for entry in entries):
            return None, ()
        mine, yours = (entry.blocks[number] for entry in entries)
        same = mine, yours
        if mine.sha256 == yours.sha256:
            return mine, same
        if self.old is None or _shape(self.old.entry.tensor) != _shape(self.tensor):
            return None, same
        old = self.old.entry.blocks[number]
        if yours.sha256 == old.sha256:
            return mine, same
        return (yours if mine.sha256 == old.sha256 else None), same

    def _alike(self) -> bool:
        """Whether the base is of the result's type too."""
        return self.old is not None and _shape(self.old.entry.tensor) == _shape(self.tensor)

    def read(self, part: Part) -> Read:
        """Base, ours and theirs of a block of the result, up to where each version has values.

        Those of a tensor of one block are kept, for strategies that look at it more than once.
        """
        if part.start in self._held:
            return self._held[part.start]
        found = self._read(part)
        if len(self.specs) == 1:
            self._held[part.start] = found
        return found

    def _read(self, part: Part) -> Read:
        if part.same and (part.old is not None or self.old is None):
            versions = part.same if part.old is None else (part.old, *part.same)
            values, shared = self._blocks.read_together([(part.spec, one) for one in versions])
            if shared is not None and shared.spec != part.spec:
                shared = None
            old = values[0] if part.old is not None else None
            return Read(old, values[-2], values[-1], shared)
        old = self.old.read(part.start, min(part.stop, self.old.count)) if self.old else None
        mine = self.mine.read(part.start, min(part.stop, self.mine.count))
        return Read(old, mine, self.yours.read(part.start, min(part.stop, self.yours.count)))

    def write(self, part: Part, values: Values, read: Read) -> Block:
        """Store a block of the result; one that a side has already is that one's, verbatim."""
        digest = sha256(values)
        for block in part.same:
            if block.sha256 == digest:
                return block
        if read.shared is not None and part.same:
            encoded = encode_merged(values, read.shared, part.same)
            if encoded is not None:
                chain = () if encoded.kind == "dense" else read.shared.chain
                return self._blocks.append(part.spec, digest, chain, encoded)
        predecessor = part.same[0] if part.same else None
        return self._blocks.write(part.spec, values, digest=digest, predecessor=predecessor)


def _shape(tensor: TensorInfo) -> tuple[object, ...]:
    return tensor.dtype.name, tensor.shape, tensor.order
