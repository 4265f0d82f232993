"""What a checkpoint is compared with: the manifests that the index and HEAD hold.

Two questions are asked here. *Is this block stored already?* (then its entry is copied verbatim, so
that the same bytes give the same manifest and a renamed or re-sharded checkpoint stores nothing),
and *what did this tensor look like before?* (then its update is encoded against that). The answers
depend on the index and on HEAD, and on what the same Git command has just written to a file: some
commands look at that before they write the index.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from git_theta_ext.core.errors import ManifestError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import DType, TensorInfo, cut
from git_theta_ext.git.repository import IndexEntry, Repository
from git_theta_ext.manifest.model import FIRST_LINE, MAX_BYTES, Block, Entry, Manifest
from git_theta_ext.manifest.text import parse_manifest

_Key = tuple[str, str]
_Form = tuple[str, int, int]
"""Element type and number of elements of a tensor, and the number of a block in it."""
_MAX_KIN = 8
"""Blocks of one form that a block without a predecessor is compared with."""
_Traits = frozenset[tuple[str, DType, tuple[int, ...]]]
"""Which tensors there are: their names, element types and shapes."""
_SKELETON = "skeleton"
"""Stands for the dtype in the keys of skeletons."""


class Predecessors:
    """The manifests of a repository's index and HEAD, each read and parsed once."""

    def __init__(self, repository: Repository, written: Mapping[str, bytes] | None = None) -> None:
        """Nothing is read before it is asked for.

        `written` are the manifests whose files Git has just written, by path; it may grow.
        """
        self._repository = repository
        self._written = {} if written is None else written
        self._manifests: dict[str, tuple[bytes, Manifest] | None] = {}
        self._extra: dict[str, list[IndexEntry]] = {}
        self._known: dict[_Key, Block] | None = None
        self._by_form: dict[_Form, list[Block]] | None = None
        self._lock = threading.Lock()

    @cached_property
    def _heads(self) -> list[str]:
        return self._repository.revisions_in_progress()

    @cached_property
    def _index(self) -> dict[str, list[IndexEntry]]:
        """Index entries by path, for all tracked paths."""
        return _by_path(self._repository.tracked())

    def staged(self, path: str) -> str | None:
        """The blob that the index holds for a path: stage 0, else ours of a conflict."""
        entries = self._index.get(path)
        if entries is None:
            if path not in self._extra:
                self._extra[path] = self._repository.index(f":(top,literal){path}")
            entries = self._extra[path]
        return next(
            (entry.oid for stage in (0, 2) for entry in entries if entry.stage == stage), None
        )

    def committed(self, path: str) -> list[str]:
        """The blobs of a path in HEAD and in the other heads of a merge under way."""
        found = (self._repository.blob_at(head, path) for head in self._heads)
        return list(dict.fromkeys(oid for oid in found if oid is not None))

    def manifests(self, path: str) -> Iterator[Manifest]:
        """The manifests of a path: the index's, then those of HEAD and other heads."""
        for oid in (self.staged(path), *self.committed(path)):
            found = None if oid is None else self.manifest(oid)
            if found is not None:
                yield found

    @property
    def work_tree(self) -> Path | None:
        """The folder that paths count from; None for a bare repository."""
        return self._repository.work_tree

    def blob(self, oid: str) -> bytes | None:
        """The bytes of a manifest, or None if that blob is not one."""
        self._load([oid])
        found = self._manifests[oid]
        return None if found is None else found[0]

    def blob_size(self, oid: str) -> int:
        """The length of a blob in bytes."""
        return self._repository.blob_size(oid)

    def manifest(self, oid: str) -> Manifest | None:
        """A blob as a manifest, or None if it is not one."""
        self._load([oid])
        found = self._manifests[oid]
        return None if found is None else found[1]

    def _load(self, oids: Iterable[str]) -> None:
        missing = [oid for oid in dict.fromkeys(oids) if oid not in self._manifests]
        for oid in missing:
            self._manifests[oid] = None
        for oid, data in self._repository.small_blobs(missing, FIRST_LINE, MAX_BYTES):
            try:
                self._manifests[oid] = (data, parse_manifest(data))
            except ManifestError:
                continue  # a broken manifest in history must not stop new work

    @cached_property
    def _everything(self) -> list[str]:
        """The blobs of all tracked paths in the index and in HEAD, in the order of the paths."""
        oids: list[str] = []
        for path in sorted(self._index):
            staged = self.staged(path)
            oids += [staged] if staged else []
            oids += self.committed(path)
        return list(dict.fromkeys(oids))

    def fingerprint(self, path: str) -> str:
        """A hash of everything that the manifest of `path` may depend on besides its bytes."""
        own = [self.staged(path) or "", *self.committed(path), "", self._state]
        return hashlib.sha256("\n".join(own).encode()).hexdigest()

    @cached_property
    def _state(self) -> str:
        """A hash of what the index and the heads hold at all tracked paths."""
        return hashlib.sha256("\n".join(self._everything).encode()).hexdigest()

    def for_path(self, path: str, tensors: Collection[TensorInfo]) -> PathPredecessors:
        """The references of one path, at which there now are these tensors.

        A path that is in no commit yet is compared with the committed checkpoint that is most
        like it, so that `step-200.pt` is an update of `step-100.pt`.
        """
        staged = self.staged(path)
        committed = self.committed(path)
        own = [oid for oid in (staged, *committed) if oid is not None]
        self._load(own)
        predecessors = [found for oid in committed if (found := self.manifest(oid)) is not None]
        if not predecessors and (relative := self._relative(tensors)) is not None:
            predecessors = [relative]
        written = [parse_manifest(self._written[path])] if path in self._written else []
        return PathPredecessors(
            [*written, *(found for oid in own if (found := self.manifest(oid)) is not None)],
            predecessors,
            tensors,
            self,
        )

    def _relative(self, tensors: Collection[TensorInfo]) -> Manifest | None:
        """The committed checkpoint that shares most tensors by name, dtype and shape.

        At least half of them, else none; of equals, the last path in natural order.
        """
        wanted = _traits(tensors)
        best, most = None, max(1, len(wanted) // 2) - 1
        for there, oid in self._by_tensors.items():
            shared = len(there & wanted)
            if shared > most:
                best, most = oid, shared
        return None if best is None else self.manifest(best)

    @cached_property
    def _by_tensors(self) -> dict[_Traits, str]:
        """Committed manifests by which tensors they have; of equals, the last path's.

        The checkpoints of a run have the same tensors, so there are few of these.
        """
        paths = sorted(self._index, key=natural_key, reverse=True)
        oids = list(dict.fromkeys(oid for path in paths for oid in self.committed(path)))
        self._load(oids)
        found: dict[_Traits, str] = {}
        for oid in oids:
            manifest = self.manifest(oid)
            if manifest is not None:
                tensors = (entry.tensor for entry in manifest.entries if not entry.opaque)
                found.setdefault(_traits(tensors), oid)
        return found

    @property
    def known_blocks(self) -> dict[_Key, Block]:
        """Every block of every tracked checkpoint, by hash and dtype; thread-safe."""
        with self._lock:
            if self._known is None:
                self._known = self._gather()
            return self._known

    @property
    def blocks_by_form(self) -> dict[_Form, list[Block]]:
        """Blocks of every tracked checkpoint, by what they look like from outside; thread-safe."""
        with self._lock:
            if self._by_form is None:
                self._by_form = self._sort_by_form()
            return self._by_form

    def _sort_by_form(self) -> dict[_Form, list[Block]]:
        oids = self._everything
        self._load(oids)
        found: dict[_Form, dict[str, Block]] = {}
        for manifest in filter(None, map(self.manifest, oids)):
            for entry in manifest.entries:
                for position, block in enumerate(() if entry.opaque else entry.blocks):
                    alike = found.setdefault(_form(entry.tensor, position), {})
                    if block.chain and len(alike) < _MAX_KIN:
                        alike.setdefault(block.sha256, block)
        return {form: list(blocks.values()) for form, blocks in found.items()}

    def _gather(self) -> dict[_Key, Block]:
        oids = self._everything
        self._load(oids)
        known: dict[_Key, Block] = {}
        for oid in oids:
            manifest = self.manifest(oid)
            if manifest is not None:
                _add_blocks(known, manifest)
        return known


class PathPredecessors:
    """What one checkpoint is compared with."""

    def __init__(
        self,
        own: list[Manifest],
        committed: list[Manifest],
        tensors: Collection[TensorInfo],
        everything: Predecessors,
    ) -> None:
        """The manifests and the tensors of one path.

        Args:
            own: the path's manifests, the index's first.
            committed: those of HEAD and others.
            tensors: what there is now.
            everything: the references of all paths.
        """
        self._own = [_entries(manifest) for manifest in own]
        self._committed = [_entries(manifest) for manifest in committed]
        self._skeletons = [manifest.skeleton for manifest in own]
        self._predecessor_skeletons = [manifest.skeleton for manifest in committed]
        self._everything = everything
        self._renamed = _renamed(tensors, self._committed[0]) if self._committed else {}
        self._own_blocks: dict[_Key, Block] = {}
        for manifest in own:
            _add_blocks(self._own_blocks, manifest)

    def stored(self, name: str, position: int, sha256: str, dtype: str) -> Block | None:
        """The block with this hash, if it is stored: this tensor's, this file's, any other's."""
        for entries in self._own:
            entry = entries.get(name)
            if entry is not None and position < len(entry.blocks):
                block = entry.blocks[position]
                if block.sha256 == sha256 and block.chain and _dtype(entry) == dtype:
                    return block
        key = (sha256, dtype)
        return self._own_blocks.get(key) or self._everything.known_blocks.get(key)

    def predecessor(self, name: str, position: int) -> tuple[Entry, Block] | None:
        """The block at this position of the tensor of this name in what was committed."""
        for entries in self._committed:
            entry = entries.get(name)
            if entry is not None and position < len(entry.blocks) and not entry.opaque:
                return entry, entry.blocks[position]
        return None

    def chunks(self, name: str) -> tuple[Block, ...]:
        """The chunks of the bytes of this name in what was committed."""
        found = (entries.get(name) for entries in self._committed)
        return next((entry.blocks for entry in found if entry is not None and entry.opaque), ())

    def kin(self, tensor: TensorInfo, position: int) -> Iterator[Block]:
        """Blocks that may be what this one was, where no predecessor has its name: a few guesses.

        First the tensor of another name that stands where this one does among those of its form,
        then blocks of that form in any tracked checkpoint.
        """
        before = self._renamed.get(tensor.name)
        if before is not None and position < len(before.blocks):
            yield before.blocks[position]
        yield from self._everything.blocks_by_form.get(_form(tensor, position), ())

    def stored_skeleton(self, sha256: str) -> Block | None:
        """The skeleton with this hash, if it is stored: this file's, any other's."""
        own = next((block for block in self._skeletons if block.sha256 == sha256), None)
        return own or self._everything.known_blocks.get((sha256, _SKELETON))

    def predecessor_skeleton(self) -> Block | None:
        """The skeleton of the last commit."""
        return next(iter(self._predecessor_skeletons), None)


def _by_path(entries: Iterable[IndexEntry]) -> dict[str, list[IndexEntry]]:
    found: dict[str, list[IndexEntry]] = {}
    for entry in entries:
        found.setdefault(entry.path, []).append(entry)
    return found


def _entries(manifest: Manifest) -> dict[str, Entry]:
    return manifest.by_name()


def _traits(tensors: Iterable[TensorInfo]) -> _Traits:
    return frozenset((one.name, one.dtype, one.memory_shape) for one in tensors)


def _form(tensor: TensorInfo, position: int) -> _Form:
    return tensor.dtype.name, tensor.count, position


def _renamed(tensors: Iterable[TensorInfo], before: dict[str, Entry]) -> dict[str, Entry]:
    """Old tensors by the names that they may have now: where as many came as went, in order."""
    names = {tensor.name for tensor in tensors}
    came: dict[_Form, list[str]] = {}
    went: dict[_Form, list[Entry]] = {}
    for tensor in sorted(tensors, key=lambda tensor: natural_key(tensor.name)):
        if tensor.name not in before:
            came.setdefault(_form(tensor, 0), []).append(tensor.name)
    for name, entry in before.items():
        if name not in names and not entry.opaque:
            went.setdefault(_form(entry.tensor, 0), []).append(entry)
    found: dict[str, Entry] = {}
    for form, new in came.items():
        if len(new) == len(went.get(form, ())):
            found.update(zip(new, went[form], strict=True))
    return found


def _dtype(entry: Entry) -> str:
    return next(cut(entry.tensor)).dtype.name


def _add_blocks(known: dict[_Key, Block], manifest: Manifest) -> None:
    if manifest.skeleton.chain:
        known.setdefault((manifest.skeleton.sha256, _SKELETON), manifest.skeleton)
    for entry, block in _blocks(manifest):
        if block.chain:
            known.setdefault((block.sha256, _dtype(entry)), block)


def _blocks(manifest: Manifest) -> Iterator[tuple[Entry, Block]]:
    for entry in manifest.entries:
        for block in entry.blocks:
            yield entry, block
