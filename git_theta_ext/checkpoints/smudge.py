"""Smudge as a use case: a manifest becomes the checkpoint that it stands for, verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from git_theta_ext.checkpoints.elsewhere.far import (
    WORTH_SENDING,
    BlockAt,
    PutInto,
    check_written,
    rebuilt,
)
from git_theta_ext.checkpoints.elsewhere.unstored import SLICE_BYTES
from git_theta_ext.core import advice
from git_theta_ext.core.errors import (
    FormatError,
    ManifestError,
)
from git_theta_ext.core.names import quote
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.formats import safetensors
from git_theta_ext.formats.base import Literal, Source
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.derived import Checksums
from git_theta_ext.formats.layout.places import skeleton_length
from git_theta_ext.formats.layout.skeleton import SpanRef
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.objects import straight
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import check_room, check_work
from git_theta_ext.objects.work import Work

_PIECE = 1 << 20

Write = Callable[[memoryview], object]
"""Takes the next bytes of the file."""

Feed = Callable[[bytes], object]
"""Takes the next bytes of a file that is read."""

Known = Callable[[int, Block], bool]
"""Whether a file is known to have a block's bytes at an offset, and the block to be these."""


def _nothing_known(start: int, block: Block) -> bool:
    return False


def differing(versions: Sequence[Entry | None]) -> Iterator[tuple[BlockSpec, Block]]:
    """The blocks of several versions of a tensor, without those that stand in all of them."""
    there = [entry for entry in versions if entry is not None]
    for entry in there:
        for at, pair in enumerate(entry.parts()):
            others = (one.blocks[at].sha256 if at < len(one.blocks) else "" for one in there)
            if len(there) < 2 or any(other != pair[1].sha256 for other in others):
                yield pair


@dataclass(frozen=True, slots=True)
class _Part:
    """A run of bytes to write: a literal, or a tensor's block to rebuild; of which segment."""

    segment: int
    data: bytes = b""
    name: str = ""
    spec: BlockSpec | None = None
    block: Block | None = None

    @property
    def nbytes(self) -> int:
        return len(self.data) if self.block is None else self.block.nbytes

    @property
    def held(self) -> int:
        return len(self.data) if self.block is None else self.block.held


class Smudger:
    """One checkpoint to be rebuilt; making it checks all that can be before a byte is out."""

    def __init__(self, manifest: Manifest, blocks: Blocks, name: str = "a checkpoint") -> None:
        """Fetch what is missing, look at what it asks for, and read the skeleton.

        `name` is what a sentence on stderr calls it, where it asks for unusually much.

        Raises:
            MissingObjectError, TransferError: an object is nowhere to be had.
            CorruptObjectError: the skeleton is damaged.
            ManifestError: it asks for more than any honest checkpoint; or skeleton and manifest do
                not name the same tensors; or the header of a safetensors file gives one another
                dtype or shape.
        """
        self._blocks = blocks.passing_on()
        blocks.ensure(manifest.objects())
        check_work(blocks, _all_blocks(manifest), name, reading=False)
        structure = blocks.skeleton(manifest)
        self._segments = structure.segments
        self._entries = _match(self._segments, manifest)
        tensors = {name: entry.tensor.nbytes for name, entry in self._entries.items()}
        self._lengths = [skeleton_length(segment, tensors) for segment in self._segments]
        self.size = sum(self._lengths)
        self._checksums = Checksums(self._segments, self._lengths)
        if manifest.format == safetensors.NAME:
            self._check_header()

    def _check_header(self) -> None:
        """Raise ManifestError if the header, which no tensor's hash covers, is of other tensors.

        Whoever stages single tensors (`git add -p`) can leave the structure out that belongs to
        them.
        """
        first = self._segments[0] if self._segments else None
        header = first.data if isinstance(first, Literal) else b""
        listed = [self._entries[s.name].tensor for s in self._segments if isinstance(s, SpanRef)]
        try:
            promised = safetensors.tensors(header, self.size)
        except FormatError as error:
            problem = error.message
        else:
            if promised == listed:
                return
            problem = next(
                (
                    f"{quote(there.name)} is {there.dtype.name} {list(there.shape)} there"
                    for there, here in zip(promised, listed, strict=False)
                    if there != here
                ),
                f"it has {len(promised)}, the manifest {len(listed)}",
            )
        raise ManifestError(
            f"the file's header does not belong to the manifest's tensors: {problem}",
            hint=f"{advice.OTHER_VERSION}, or add the whole file: git add FILE",
        )

    def check_room(
        self, name: str, folder: Path, *, certain: bool = True, in_memory: bool = False
    ) -> None:
        """Refuse a file for which there is no room in a folder; see `bounds.check_room`.

        Args:
            name: what messages call the file.
            folder: where it goes.
            certain: it does go there; else a lack of space is only a warning.
            in_memory: Git holds all of it in memory before it writes.

        Raises:
            StoreError: it fits neither the disk, nor (`in_memory`) memory and swap space.
        """
        check_room(name, self.size, folder, certain=certain, in_memory=in_memory)

    def write(self, write: Write) -> None:
        """Rebuild the file from its first byte to its last, every block verified before it is out.

        Raises:
            CorruptObjectError: an object is damaged; what was written so far is to be thrown away.
        """
        found = ordered_map(self._read_run, straight.runs(self._parts()), _held)
        for parts, data in found:
            if parts[0].block is None and not data:
                write(memoryview(self._derived(parts[0].segment)))
                continue
            at = 0
            for part in parts:
                if self._checksums.covered(part.segment):
                    self._checksums.feed(part.segment, data[at : at + part.nbytes])
                at += part.nbytes
            write(data)

    def same_as(
        self, source: Source, known: Known = _nothing_known, feed: Feed | None = None
    ) -> bool:
        """Whether the file would be, from its first byte to its last, what a source has.

        Args:
            source: what it is compared with; no byte is read twice.
            known: tells of blocks that need not be rebuilt, for they were before, and the source
                was seen to have their bytes there.
            feed: called with all of the source's bytes in order, as long as nothing differs.

        Raises:
            CorruptObjectError: an object is damaged.
        """
        starts = [0, *accumulate(self._lengths)]
        if self.size != source.size:
            return False

        def places() -> Iterator[tuple[int, _Part]]:
            segment = offset = 0
            for part in self._parts():
                if part.segment != segment:
                    segment, offset = part.segment, 0
                yield starts[segment] + offset, part
                offset += part.nbytes

        def rebuild(place: tuple[int, _Part]) -> tuple[int, _Part, memoryview | None]:
            start, part = place
            if part.block is not None and known(start, part.block):
                return start, part, None
            return start, part, self._read(part)[1]

        for start, part, data in ordered_map(rebuild, places(), lambda place: place[1].held):
            length = part.nbytes or self._lengths[part.segment]
            for at in range(0, length if data or feed else 0, SLICE_BYTES):
                found = source.read(start + at, min(SLICE_BYTES, length - at))
                if data and found != bytes(data[at : at + SLICE_BYTES]):
                    return False
                if feed is not None:
                    feed(found)
        return all(self._derived_as(number, source, starts) for number in range(len(self._lengths)))

    def _derived_as(self, number: int, source: Source, starts: Sequence[int]) -> bool:
        """Whether a derived field, if it is one, is what the source has; all else is as there."""
        segment, start, stop = self._segments[number], starts[number], starts[number + 1]
        if isinstance(segment, Literal | SpanRef):
            if self._checksums.covered(number):
                self._feed(number, source, starts)
            return True
        for ahead in self._checksums.needed(number):
            self._feed(ahead, source, starts)
        return self._checksums.value(number) == source.read(start, stop - start)

    def _feed(self, number: int, source: Source, starts: Sequence[int]) -> None:
        for at in range(starts[number], starts[number + 1], _PIECE):
            length = min(_PIECE, starts[number + 1] - at)
            self._checksums.feed(number, source.read(at, length))

    def write_into(self, tree: WorkTree, path: str) -> None:
        """Write the file into a work tree, whole or not at all; where the executor is, if far.

        Raises:
            StoreError: it cannot be written, or not there; see `WorkTree`.
            CorruptObjectError: an object is damaged; what was there is as it was.
        """
        if not self._blocks.executor.far or self.size < WORTH_SENDING:
            with tree.replacing(path) as file:
                self.write(file.write)
            return
        with tree.replacing_as(path) as (file, hidden):
            self._write_far(file, tree.top, hidden)

    def _write_far(self, file: BinaryIO, top: Path, hidden: str) -> None:
        """Write what is no block, and have the blocks written by others, each at its place.

        All blocks are read once more in the end: whether machines that write to one file at a time
        leave what each has written, is for the file system to say.
        """
        places, offset = [], 0
        for part in self._parts():
            places.append((offset, part))
            offset += part.nbytes or self._lengths[part.segment]
        file.truncate(self.size)
        for start, part in places:
            if part.block is None and part.data:
                file.seek(start)
                file.write(part.data)
        file.flush()
        blocks = [
            BlockAt(start, part.name, part.spec, part.block)
            for start, part in places
            if part.block is not None and part.spec is not None
        ]
        for _ in self._blocks.map(PutInto(str(top), hidden), blocks, lambda one: one.spec.nbytes):
            pass
        with FileSource(top / hidden) as source:
            for start, part in places:
                if (part.data or part.block) and self._checksums.covered(part.segment):
                    self._checksums.feed(part.segment, source.read(start, part.nbytes))
        for start, part in places:
            if part.block is None and not part.data:
                file.seek(start)
                file.write(self._derived(part.segment))
        file.flush()
        with FileSource(top / hidden) as source:
            check_written(self._blocks, source, blocks)

    def _parts(self) -> Iterator[_Part]:
        for number, segment in enumerate(self._segments):
            if isinstance(segment, Literal):
                if segment.data:
                    yield _Part(number, segment.data)
            elif isinstance(segment, SpanRef):
                entry = self._entries[segment.name]
                for spec, block in entry.parts():
                    if block.nbytes:
                        yield _Part(number, name=segment.name, spec=spec, block=block)
            else:
                yield _Part(number)

    def _read_run(self, parts: list[_Part]) -> tuple[list[_Part], memoryview]:
        """The bytes of some parts, one after the other."""
        if len(parts) == 1:
            return parts, self._read(parts[0])[1]
        pairs = [(part.spec, part.block) for part in parts if part.spec and part.block]
        found = straight.read_run(self._blocks.store, pairs, self._account)
        if found is None:
            found = memoryview(b"".join(self._read(part)[1] for part in parts))
        return parts, found

    def _account(self, work: Work, objects: Sequence[UpdateRef]) -> None:
        self._blocks.account(work, objects, bounded=self._blocks.is_bounded)

    def _read(self, part: _Part) -> tuple[_Part, memoryview]:
        if part.spec is None or part.block is None:
            return part, memoryview(part.data)
        return part, self._raw(part.name, part.spec, part.block)

    def _raw(self, name: str, spec: BlockSpec, block: Block) -> memoryview:
        """The bytes of a tensor's block; an error names the tensor."""
        return rebuilt(self._blocks, name, spec, block)

    def _derived(self, number: int) -> bytes:
        """The value of a derived field; tensors after it are read ahead for their checksums."""
        for ahead in self._checksums.needed(number):
            segment = self._segments[ahead]
            if isinstance(segment, Literal):
                self._checksums.feed(ahead, segment.data)
            elif isinstance(segment, SpanRef):
                entry = self._entries[segment.name]
                for spec, block in entry.parts():
                    self._checksums.feed(ahead, self._raw(segment.name, spec, block))
        return self._checksums.value(number)


def _held(parts: list[_Part]) -> int:
    """Bytes that are held for some parts."""
    return sum(part.held for part in parts)


def _all_blocks(manifest: Manifest) -> Iterator[tuple[BlockSpec, Block]]:
    yield BlockSpec(DTYPES["U8"], (manifest.skeleton.nbytes,)), manifest.skeleton
    for entry in manifest.entries:
        yield from entry.parts()


def _match(segments: Sequence[skeleton.SkeletonSegment], manifest: Manifest) -> Mapping[str, Entry]:
    """The entries by name; skeleton and manifest must name the same tensors, each once."""
    entries = manifest.by_name()
    spans = [segment.name for segment in segments if isinstance(segment, SpanRef)]
    for name in spans:
        if name not in entries:
            raise ManifestError(
                f"the file's structure has a tensor {name!r} that the manifest does not list",
                hint=advice.OTHER_VERSION,
            )
    if len(set(spans)) != len(spans):
        twice = next(name for name, count in Counter(spans).items() if count > 1)
        raise ManifestError(
            f"the file's structure has the tensor {twice!r} more than once",
            hint=advice.OTHER_VERSION,
        )
    if len(spans) != len(entries):
        extra = sorted(set(entries) - set(spans))[0]
        raise ManifestError(
            f"the manifest lists a tensor {extra!r} that the file's structure does not have",
            hint=advice.OTHER_VERSION,
        )
    return entries
