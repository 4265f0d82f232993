"""All versions of one tensor, read block by block in the type that the result has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from git_theta_ext.core.tensors import BlockSpec, DType, TensorInfo, cut
from git_theta_ext.core.values import Values, beyond_range, from_floats, to_floats, values_dtype
from git_theta_ext.manifest.model import Block, Entry
from git_theta_ext.merge.combine.encoding import encode_merged
from git_theta_ext.merge.combine.recipe import Merging, Template, by_recipe
from git_theta_ext.objects.blocks import Blocks, Shared, sha256
from git_theta_ext.updates.residual import SLICE

SIDES = ("ours", "theirs")
"""What two sides are called."""


def names_of(sides: int) -> tuple[str, ...]:
    """What so many sides are called."""
    return SIDES if sides == len(SIDES) else tuple(f"side-{n + 1}" for n in range(sides))


def copies_of(sides: int) -> int:
    """Blocks of memory that merging one block of so many sides takes.

    Base and sides, the result, and two for what encodes it.
    """
    return sides + 4


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

    `known` is the block as it stands in a side, where it is known to be that one's without being
    read; `same` are the blocks of all sides in the same place and of the same type, or nothing, and
    `base` is that of the base.
    """

    spec: BlockSpec
    start: int
    stop: int
    known: Block | None
    same: tuple[Block, ...]
    base: Block | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """The values of a block in all versions; not to be written to.

    `shared` is what they were all made of, if the result can be encoded against that.
    """

    base: Values | None
    sides: tuple[Values, ...]
    shared: Shared | None = None

    def at(self, where: slice) -> Read:
        """A slice of all versions."""
        base = None if self.base is None else self.base[where]
        return Read(base, tuple(side[where] for side in self.sides))


class Versions:
    """The base and the sides of a tensor, in the type of the result."""

    def __init__(
        self,
        tensor: TensorInfo,
        base: Entry | None,
        sides: Sequence[Entry],
        blocks: Blocks,
        names: Sequence[str] = (),
    ) -> None:
        """Nothing is read yet.

        Args:
            tensor: the result's type: the sides' own, a cast of them, or one with more rows.
            base: what they come from, if there is such a version.
            sides: the versions to be merged.
            blocks: where they are, and where the result goes.
            names: what the sides are called; by default ours and theirs, or numbers of more.
        """
        self.tensor = tensor
        self.names = names or names_of(len(sides))
        self.specs = list(cut(tensor))
        dtype = self.specs[0].dtype
        self.dtype = dtype
        self.base = None if base is None else Reader(base, dtype, blocks)
        self.sides = tuple(Reader(side, dtype, blocks) for side in sides)
        self.count = sum(_values_in(spec) for spec in self.specs)
        counts = [reader.count for reader in (*self.sides, *([self.base] if self.base else []))]
        self.common = min(self.count, *counts)
        """Values that all versions have; those after them are rows that were added."""
        self._blocks = blocks
        self._held: dict[int, Read] = {}
        shapes = [_shape(reader.entry.tensor) == _shape(tensor) for reader in self.sides]
        self._alike = all(shapes)
        self._base_alike = base is not None and _shape(base.tensor) == _shape(tensor)

    @property
    def largest(self) -> int:
        """Bytes of the result's largest block."""
        return max(spec.nbytes for spec in self.specs)

    @property
    def grown(self) -> tuple[Reader, ...]:
        """The sides that added rows."""
        return tuple(side for side in self.sides if side.count > self.common)

    @property
    def stacked(self) -> bool:
        """Whether the result holds the rows that the first side added, then those of the next."""
        return self.count > max(side.count for side in self.sides)

    @property
    def overflowed(self) -> bool:
        """Whether a finite number of a side that was read is none in the result's dtype."""
        return any(side.overflowed for side in self.sides)

    def added(self, start: int, stop: int) -> Values:
        """Values of a stacked result behind the common ones: those of each side after the other."""
        edge = self.common
        pieces = []
        for side in self.sides:
            shift = edge - self.common
            first, last = max(start, edge), min(stop, edge + side.count - self.common)
            if first < last:
                pieces.append(side.read(first - shift, last - shift))
            edge += side.count - self.common
        return np.concatenate(pieces)

    def parts(self) -> Iterator[Part]:
        """The blocks of the result in order."""
        start = 0
        for number, spec in enumerate(self.specs):
            stop = start + _values_in(spec)
            base = self._base_block(number)
            same = self._side_blocks(number)
            yield Part(spec, start, stop, _known(base, same), same, base if same else None)
            start = stop

    def _base_block(self, number: int) -> Block | None:
        """The base's block in a place of the result, if it is of the result's type."""
        if self.base is None or not self._base_alike:
            return None
        return self.base.entry.blocks[number]

    def _side_blocks(self, number: int) -> tuple[Block, ...]:
        """The sides' blocks in a place of the result, if all are of the result's type."""
        return tuple(side.entry.blocks[number] for side in self.sides) if self._alike else ()

    def read(self, part: Part) -> Read:
        """Base and sides of a block of the result, up to where each version has values.

        Those of a tensor of one block are kept, for strategies that look at it more than once.
        """
        if part.start in self._held:
            return self._held[part.start]
        found = self._read(part)
        if len(self.specs) == 1:
            self._held[part.start] = found
        return found

    def _read(self, part: Part) -> Read:
        if part.same and (part.base is not None or self.base is None):
            versions = part.same if part.base is None else (part.base, *part.same)
            values, shared = self._blocks.read_together([(part.spec, one) for one in versions])
            if shared is not None and shared.spec != part.spec:
                shared = None
            if part.base is None:
                return Read(None, tuple(values), shared)
            return Read(values[0], tuple(values[1:]), shared)
        base, *sides = (
            None if one is None else one.read(part.start, min(part.stop, one.count))
            for one in (self.base, *self.sides)
        )
        return Read(base, tuple(one for one in sides if one is not None))

    def write(
        self, part: Part, values: Values, read: Read, template: Template | None = None
    ) -> Block:
        """Store a block of the result; one that a side has already is that one's, verbatim.

        Args:
            part: the block.
            values: its values.
            read: what it was made of.
            template: how, if a recipe may say it.
        """
        digest = sha256(values)
        for block in part.same:
            if block.sha256 == digest:
                return block
        if template is not None and part.same and self._blocks.chosen.storing.merges == "recipe":
            merging = Merging(
                part.spec, self.names, part.base, part.same, read.base, read.sides, part.start
            )
            found = by_recipe(template, merging, values)
            if found is not None:
                if self._blocks.kept is not None:
                    self._blocks.kept.keep(digest, values)
                return self._blocks.append_to_merge(part.spec, digest, *found)
        if read.shared is not None and part.same:
            encoded = encode_merged(values, read.shared, part.same)
            if encoded is not None:
                chain = () if encoded.kind == "dense" else read.shared.chain
                return self._blocks.append(part.spec, digest, chain, encoded)
        predecessor = part.same[0] if part.same else None
        return self._blocks.write(part.spec, values, digest=digest, predecessor=predecessor)


def _known(base: Block | None, sides: tuple[Block, ...]) -> Block | None:
    """The block of the result where all sides that changed it agree; None where they may not."""
    if not sides:
        return None
    moved = [side for side in sides if base is None or side.sha256 != base.sha256]
    if len({side.sha256 for side in moved}) > 1:
        return None
    return moved[0] if moved else sides[0]


def _shape(tensor: TensorInfo) -> tuple[object, ...]:
    return tensor.dtype.name, tensor.shape, tensor.order
