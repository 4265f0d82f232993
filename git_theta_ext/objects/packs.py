"""Packs: small parameter files of one version of a checkpoint share objects of some megabytes.

A checkpoint may have thousands of tensors of a few kilobytes. Each as an object of its own would
be a file, two syncs, a line in every batch request and an upload. A pack is a safetensors file
whose tensors are parameter files, whole and unchanged, and the manifest says which bytes of it are
meant. What goes into a pack depends on the version alone, so that whoever adds the same version
after the same one writes the same packs.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.work import Work
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.parameter_file import build, parse

PACK_BYTES = 4 << 20
"""A pack is full when its parts have this length together: what a fetch of one tensor may bring."""
PACK_PARTS = 4096
"""Or when it has so many."""


@dataclass(frozen=True, slots=True)
class Carried(UpdateRef):
    """A small parameter file that another process made, with its bytes: it is in no store yet."""

    data: bytes = b""


class Packing(Blocks):
    """Other blocks, of which small ones wait until it is known what they go with."""

    def __init__(self, blocks: Blocks, *, carries: bool = False) -> None:
        """Reads what `blocks` reads, and writes where that writes.

        `carries`: what is small goes back to another process, which puts it into its packs.
        """
        super().__init__(blocks.store, executor=blocks.executor)
        self.chosen, self.kept = blocks.chosen, blocks.kept
        self._carries = carries
        self._blocks = blocks
        self._bounded = blocks.is_bounded
        self._lock = threading.Lock()
        self._waiting: dict[str, bytes] = {}
        """Parameter files that are in no object yet, by their SHA-256."""
        self._open: dict[str, None] = {}
        """Those that go into the next pack, in order."""
        self._length = 0
        self._written: dict[str, UpdateRef] = {}
        """Where those are that were written."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gives back what is small."""
        return _elsewhere, (self._blocks,)

    def take(self, block: Block) -> Block:
        """The next block of the version: small files come into packs in the order of these calls.

        Returns:
            The same block, without bytes that another process gave with it.

        Raises:
            StoreError: a pack is full, and cannot be written.
        """
        block = self.received(block)
        for ref in block.objects():
            if ref.oid in self._waiting and ref.oid not in self._open:
                self._open[ref.oid] = None
                self._length += ref.size
                if self._length >= PACK_BYTES or len(self._open) >= PACK_PARTS:
                    self._close()
        return block

    def received(self, block: Block) -> Block:
        """A block whose small files wait here, wherever they were made."""
        if not any(isinstance(link, Carried) for link in block.chain):
            return block
        chain = []
        for link in block.chain:
            if isinstance(link, Carried):
                with self._lock:
                    if link.oid not in self._written:
                        self._waiting[link.oid] = link.data
                link = UpdateRef(link.kind, link.oid, link.size, link.info)
            chain.append(link)
        return replace(block, chain=tuple(chain))

    def take_entry(self, entry: Entry) -> Entry:
        """As `take`, of all blocks of a tensor."""
        return replace(entry, blocks=tuple(map(self.take, entry.blocks)))

    def packed(self, manifest: Manifest) -> Manifest:
        """A version of which every object is in the store, and named as it is there.

        Raises:
            StoreError: a pack cannot be written.
        """
        for block in (block for entry in manifest.entries for block in entry.blocks):
            self.take(block)
        self.take(manifest.skeleton)
        self._close()
        if not self._written:
            return manifest
        return replace(
            manifest,
            skeleton=self.final(manifest.skeleton),
            entries=tuple(map(self.settled, manifest.entries)),
        )

    def settled(self, entry: Entry) -> Entry:
        """An entry with the places of what was written of it, after `packed`."""
        blocks = tuple(map(self.final, entry.blocks))
        return entry if blocks == entry.blocks else replace(entry, blocks=blocks)

    def waits(self, block: Block) -> bool:
        """Whether a block has a file that is in no object yet."""
        return any(
            isinstance(link, Carried) or (isinstance(link, UpdateRef) and link.oid in self._waiting)
            for link in block.chain
        )

    def final(self, block: Block) -> Block:
        """A block with the places of what was written of it, after `packed`."""
        if not any(ref.oid in self._written for ref in block.objects()):
            return block
        chain = tuple(
            link.moved(found)
            if isinstance(link, UpdateRef) and (found := self._written.get(link.oid)) is not None
            else link
            for link in block.chain
        )
        return replace(block, chain=chain)

    def _close(self) -> None:
        """Write the pack that is open, if there is one; of a single file it is that file."""
        names = list(self._open)
        self._open.clear()
        self._length = 0
        with self._lock:
            parts = [self._waiting[name] for name in names]
        if not parts:
            return
        places = put_together(self.store, parts)
        with self._lock:
            for name, place in zip(names, places, strict=True):
                self._written[name] = place
                del self._waiting[name]

    def _put(self, encoded: Encoded) -> UpdateRef:
        if encoded.nbytes >= self.chosen.storing.pack_below:
            return super()._put(encoded)
        data = b"".join(encoded.pieces)
        oid = hashlib.sha256(data).hexdigest()
        if self._carries:
            return Carried(encoded.kind, oid, len(data), encoded.info, data=data)
        with self._lock:
            if oid not in self._written:
                self._waiting[oid] = data
        return UpdateRef(encoded.kind, oid, len(data), encoded.info)

    def _is_here(self, ref: UpdateRef) -> bool:
        return ref.oid in self._waiting or ref.oid in self._written

    def ensure(self, objects: Iterable[UpdateRef]) -> None:
        self._blocks.ensure(ref for ref in objects if not self._is_here(ref))

    def sound(self, chain: Iterable[UpdateRef]) -> bool:
        return self._blocks.sound(ref for ref in chain if not self._is_here(ref))

    def parameters(self, ref: UpdateRef) -> Parameters:
        with self._lock:
            data = self._waiting.get(ref.oid)
            written = self._written.get(ref.oid)
        if data is not None:
            return parse(data)
        return self._blocks.parameters(ref if written is None else written)

    def account(self, work: Work, chain: Iterable[UpdateRef], *, bounded: bool) -> None:
        self._blocks.account(work, chain, bounded=bounded)

    def _blame(self, block: Block) -> CorruptObjectError:
        return self._blocks._blame(block)


def _elsewhere(blocks: Blocks) -> Packing:
    return Packing(blocks, carries=True)


def pack(parts: list[bytes]) -> list[bytes | memoryview]:
    """The pieces of a pack: a safetensors header, then each part as it is."""
    width = len(str(len(parts) - 1))
    return build("pack", {}, {f"{number:0{width}}": part for number, part in enumerate(parts)})


def put_together(store: Store, parts: list[bytes]) -> list[UpdateRef]:
    """Store parameter files in one object, of a single one as it is; where each of them is then.

    Raises:
        StoreError: it cannot be written.
    """
    if len(parts) == 1:
        return [UpdateRef("", *store.put(parts))]
    pieces = pack(parts)
    oid, size = store.put(pieces)
    stops = list(accumulate(map(len, pieces)))
    return [UpdateRef("", oid, size, (), place) for place in pairwise(stops)]
