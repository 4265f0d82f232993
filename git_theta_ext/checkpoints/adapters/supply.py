"""A supplied update as a use case: the committed checkpoint, an adapter, and the next version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from git_theta_ext.checkpoints.adapters.base import Adapter, Change
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.text import plural
from git_theta_ext.core.values import Values
from git_theta_ext.manifest.model import LATEST, Block, Entry, Manifest
from git_theta_ext.objects.blocks import Blocks, sha256
from git_theta_ext.objects.packs import Packing
from git_theta_ext.updates.arithmetic import widen

_COPIES = 3
"""Blocks of the old and the new version, and what is made of them, are held at once."""
_CHUNK = 1 << 18
"""Values that are looked at together."""


@dataclass(frozen=True, slots=True)
class Updated:
    """One tensor of the next version: its entry, and how many bytes are new in the store."""

    entry: Entry
    change: Change
    stored: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its blocks' last updates, each once; none if nothing changed."""
        if not self.stored:
            return ()
        blocks = self.entry.blocks
        return tuple(dict.fromkeys(b.chain[-1].kind if b.chain else "inline" for b in blocks))


def updated_tensors(
    adapter: Adapter, manifest: Manifest, blocks: Blocks, advance: Callable[[int], object]
) -> list[Updated]:
    """Compute and store every tensor that an adapter changes, in the manifest's order.

    Args:
        adapter: what changes.
        manifest: the version before.
        blocks: where its objects are, and the new ones go.
        advance: called with the bytes of each tensor that is done.

    Raises:
        MissingObjectError, TransferError: the old version is not to be had.
        CorruptObjectError: it is damaged.
        StoreError: the store cannot be written.
    """
    entries = [entry for entry in manifest.entries if entry.tensor.name in adapter.changes]
    blocks.ensure(ref for entry in entries for block in entry.blocks for ref in block.objects())
    pieces = list(_pieces(entries, adapter.changes))

    packing = Packing(blocks)

    def update(piece: _Piece) -> Block:
        return piece.update(packing)

    made = ordered_map(update, pieces, lambda piece: _COPIES * piece.spec.nbytes)
    done: list[Updated] = []
    with blocks.store.gathering():
        for entry in entries:
            change = adapter.changes[entry.tensor.name]
            new = tuple(packing.take(next(made)) for _ in entry.blocks)
            stored = sum(
                block.chain[-1].nbytes if block.chain else block.nbytes
                for block, old in zip(new, entry.blocks, strict=True)
                if block != old
            )
            done.append(Updated(replace(entry, blocks=new), change, stored))
            advance(entry.tensor.nbytes)
        whole = replace(manifest, entries=tuple(one.entry for one in done))
        after = packing.packed(whole).entries
        blocks.store.flush()
    return [replace(one, entry=entry) for one, entry in zip(done, after, strict=True)]


def next_version(manifest: Manifest, updated: Iterable[Updated]) -> Manifest:
    """The manifest with these tensors in place of the old ones."""
    new = {one.entry.tensor.name: one.entry for one in updated}
    entries = tuple(new.get(entry.tensor.name, entry) for entry in manifest.entries)
    return replace(manifest, entries=entries, version=LATEST)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One block of a tensor that changes; `start` is the first of the tensor's values in it."""

    name: str
    change: Change
    spec: BlockSpec
    start: int
    block: Block

    def update(self, blocks: Blocks) -> Block:
        """The block's next version, stored; the old one where its values stay."""
        old = blocks.read(self.spec, self.block)
        new = self.change.apply(self.spec, self.start, old)
        self._require_finite(old, new)
        digest = sha256(new)
        if digest == self.block.sha256:
            return self.block
        supplied = self.change.encode(self.spec, self.start, new, old)
        return blocks.write(
            self.spec, new, digest=digest, predecessor=self.block, supplied=supplied
        )

    def _require_finite(self, old: Values, new: Values) -> None:
        """Refuse sums and products that leave the range of the weights' dtype.

        Raises:
            UsageError: finite values became infinite or NaN.
        """
        dtype = self.spec.dtype
        if not self.change.computes or dtype.kind != "float":
            return
        lost = 0
        for first in range(0, len(new), _CHUNK):
            piece = slice(first, first + _CHUNK)
            finite = np.isfinite(widen(dtype, new[piece]))
            if not finite.all():
                lost += int((np.isfinite(widen(dtype, old[piece])) & ~finite).sum())
        if lost:
            raise UsageError(
                f"the update makes {plural(lost, 'value')} of tensor {self.name!r} infinite or "
                f"NaN ({dtype.name})",
                hint="the adapter is damaged or for another model, or the new values are too large "
                "for the dtype of the weights",
            )


def _pieces(entries: Iterable[Entry], changes: Mapping[str, Any]) -> Iterator[_Piece]:
    for entry in entries:
        start = 0
        for spec, block in entry.parts():
            yield _Piece(entry.tensor.name, changes[entry.tensor.name], spec, start, block)
            start += spec.count


def require_changes(updated: Iterable[Updated], path: str) -> None:
    """Refuse an adapter that changes nothing.

    Raises:
        UsageError: no tensor's bytes became others.
    """
    if not any(one.stored for one in updated):
        raise UsageError(
            f"the update changes no byte of {path}",
            hint="its values are zero, or too small for the weights' dtype",
        )
