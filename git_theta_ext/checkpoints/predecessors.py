"""What a checkpoint is compared with: the manifests that the index and HEAD hold.

Two questions are asked here. *Is this block stored already?* (then its entry is copied verbatim, so
that the same bytes give the same manifest and a renamed or re-sharded checkpoint stores nothing),
and *what did this tensor look like before?* (then its update is encoded against that). The answers
depend on the index and on HEAD, and on what the same Git command has just written to a file: some
commands look at that before they write the index.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from git_theta_ext.checkpoints.counterparts import quantised_from
from git_theta_ext.checkpoints.memo import noted
from git_theta_ext.core.errors import ManifestError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import TensorInfo, cut
from git_theta_ext.git.operations import revisions_in_progress
from git_theta_ext.git.repository import IndexEntry, Repository, literal
from git_theta_ext.manifest.block_index import (
    SKELETON,
    BlockIndex,
    Form,
    FormIndex,
    Key,
    TensorIndex,
    blocks_of,
    dtype_of,
    form_of,
)
from git_theta_ext.manifest.model import LATEST, MAGIC, MAX_BYTES, Block, Entry, Manifest
from git_theta_ext.manifest.text import Parser

Held = TypeVar("Held")

_KEPT_BYTES = 16 << 20
"""Text of manifests that is held, with what was parsed of it, which takes about five times that."""
_MOST_AHEAD = 64
_SINGLY = 4
"""Paths that are asked for one by one; for more than these, all alike are listed at once."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


class Unlike(Exception):
    """A file is not what the index names, and that is all that was asked."""


class Predecessors:
    """The manifests of a repository's index and HEAD; the last few are held parsed."""

    def __init__(
        self,
        repository: Repository,
        written: Mapping[str, bytes] | None = None,
        parser: Parser | None = None,
        *,
        only_asked: bool = False,
    ) -> None:
        """Nothing is read before it is asked for.

        Args:
            repository: the one that is looked at.
            written: the manifests whose files Git has just written, by path; it may grow.
            parser: one that has read versions of the same checkpoints, for this thread.
            only_asked: it is only asked whether files are what the index names: `Unlike` is raised
                for one that is not, as soon as that is seen.
        """
        self._repository = repository
        self.only_asked = only_asked
        self._written = {} if written is None else written
        self._manifests: _Last[tuple[bytes, Manifest] | None] = _Last(_KEPT_BYTES)
        self._unparsed: _Last[bytes | None] = _Last(_KEPT_BYTES)
        self._extra: dict[str, list[IndexEntry]] = {}
        self._listed: set[str] = set()
        self._asked = 0
        self._ahead = 1
        self._parser = parser or Parser()
        self._lock = threading.RLock()

    @cached_property
    def _heads(self) -> list[str]:
        return revisions_in_progress(self._repository)

    @cached_property
    def _index(self) -> dict[str, list[IndexEntry]]:
        """Index entries by path, for all tracked paths."""
        return _by_path(self._repository.tracked())

    def staged(self, path: str) -> str | None:
        """The blob that the index holds for a path: stage 0, else ours of a conflict."""
        entries = self._index.get(path)
        if entries is None:
            entries = self._untracked(path)
        return next(
            (entry.oid for stage in (0, 2) for entry in entries if entry.stage == stage), None
        )

    def _untracked(self, path: str) -> list[IndexEntry]:
        """The index entries of a path that is new, or not tracked as the work tree is now."""
        if path not in self._extra:
            name = os.path.basename(path)
            ending = os.path.splitext(name)[1][1:]
            if len(self._extra) < _SINGLY or not _PLAIN.fullmatch(ending):
                self._extra[path] = self._repository.index(literal(path))
            else:
                if ending not in self._listed:
                    self._listed.add(ending)
                    self._extra |= _by_path(self._repository.index(f":(top,glob)**/*.{ending}"))
                self._extra.setdefault(path, [])
        return self._extra[path]

    def committed(self, path: str) -> list[str]:
        """The blobs of a path in HEAD and in the other heads of a merge under way."""
        found = (self._committed_at(head, path) for head in self._heads)
        return list(dict.fromkeys(oid for oid in found if oid is not None))

    def _committed_at(self, head: str, path: str) -> str | None:
        self._asked += 1
        if self._repository.reads_within_process or self._asked <= _SINGLY:
            return self._repository.blob_at(head, path)
        return self._trees[head].get(path)

    @cached_property
    def _trees(self) -> dict[str, dict[str, str]]:
        """The blobs of the heads by path, where to ask for one would start a process."""
        return {head: self._repository.blobs_at(head) for head in self._heads}

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
        found = self._load(oid)
        return None if found is None else found[0]

    def blob_size(self, oid: str) -> int:
        """The length of a blob in bytes."""
        return self._repository.blob_size(oid)

    def manifest(self, oid: str) -> Manifest | None:
        """A blob as a manifest, or None if it is not one."""
        found = self._load(oid)
        return None if found is None else found[1]

    def parse(self, text: bytes) -> Manifest:
        """As `parse_manifest`, of a version of something that is known here; thread-safe.

        Raises:
            ManifestError: it is none.
        """
        with self._lock:
            return self._parser.parse(text)

    def is_staged(self, path: str, manifest: bytes) -> bool:
        """Whether the index holds just this manifest for a path."""
        staged = self.staged(path)
        return staged is not None and self._repository.names(staged, manifest)

    def _load(self, oid: str) -> tuple[bytes, Manifest] | None:
        """A manifest and its text; those that were asked for last are held."""
        with self._lock:
            if oid not in self._manifests:
                found, text = None, self._text(oid)
                with suppress(ManifestError):  # a broken one must not stop new work
                    found = None if text is None else (text, self._parser.parse(text))
                self._manifests.put(oid, found, len(found[0]) if found else 0)
            return self._manifests.get(oid)

    def _text(self, oid: str) -> bytes | None:
        """The text of a manifest, not parsed; held as `_load` does."""
        if oid not in self._unparsed:
            wanted = [oid, *self._following(oid)]
            found = dict(self._texts(wanted))
            for one in reversed(wanted):
                self._unparsed.put(one, found.get(one), len(found.get(one) or b""))
            self._ahead = 2 * len(wanted) if len(wanted) < _MOST_AHEAD else len(wanted)
            if sum(map(len, found.values())) > _KEPT_BYTES // 2:
                self._ahead = 0
        return self._unparsed.get(oid)

    def _following(self, oid: str) -> list[str]:
        """The blobs after one, in the order of the paths, where to read one starts a process.

        Git asks for files in this order. The more were asked for, the more are read ahead.
        """
        if self._repository.reads_within_process or not self._ahead:
            return []
        start = self._places.get(oid, len(self._places)) + 1
        return [one for one in self._everything[start : start + self._ahead] if one != oid]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {oid: at for at, oid in enumerate(self._everything)}

    def _texts(self, oids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The texts of those of some blobs that begin as manifests do, each read when it is due."""
        return self._repository.small_blobs(oids, MAGIC, MAX_BYTES)

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
        """What one path is compared with, at which there now are these tensors.

        A path that is in no commit yet is compared with the committed checkpoint that is most
        like it, so that `step-200.pt` is an update of `step-100.pt`.
        """
        staged = self.staged(path)
        if self.only_asked and staged is not None:
            asked = self.manifest(staged)
            if asked is not None:  # nothing is encoded, so nothing else counts
                return PathPredecessors([asked], [], tensors, self, asked)
        committed = self.committed(path)
        own = [oid for oid in dict.fromkeys((staged, *committed)) if oid is not None]
        predecessors = [found for oid in committed if (found := self.manifest(oid)) is not None]
        if not predecessors:
            nearest = self._by_tensors.nearest(tensors)
            relative = None if nearest is None else self.manifest(nearest)
            predecessors = [] if relative is None else [relative]
        written = [self.parse(self._written[path])] if path in self._written else []
        known = [found for oid in own if (found := self.manifest(oid)) is not None]
        if (noted := self._noted(path)) is not None:
            # After what is staged: bytes that the index names must not become another manifest.
            known.insert(int(staged is not None and self.manifest(staged) is not None), noted)
        return PathPredecessors(
            [*written, *known],
            predecessors,
            tensors,
            self,
        )

    def _noted(self, path: str) -> Manifest | None:
        """What a file was made from that a command wrote to settle a conflict."""
        return noted(self._repository, path)

    def unquantised(self, tensors: Iterable[TensorInfo]) -> Manifest | None:
        """The committed checkpoint of floats that most of some tensors were quantised from."""
        for floats in zip(*filter(None, map(quantised_from, tensors)), strict=True):
            nearest = self._by_tensors.nearest(floats)
            found = None if nearest is None else self.manifest(nearest)
            if found is not None:
                return found
        return None

    @cached_property
    def _by_tensors(self) -> TensorIndex:
        """Committed manifests by which tensors they have; of equals, the last path's."""
        paths = sorted(self._index, key=natural_key, reverse=True)
        oids = [*(oid for path in paths for oid in self.committed(path)), *self._gone]
        return TensorIndex(self._texts(list(dict.fromkeys(oids))))

    @property
    def _gone(self) -> list[str]:
        """The blobs of paths that HEAD has and the index does not: what is new may be one, moved.

        A renamed file that was removed under its old name first is an update all the same.
        """
        if not self._heads:
            return []
        there = self._trees[self._heads[0]]
        gone = sorted((path for path in there if path not in self._index), key=natural_key)
        return [there[path] for path in reversed(gone)]

    def known_block(self, key: Key) -> Block | None:
        """A block of any tracked checkpoint, by hash and dtype; thread-safe."""
        with self._lock:
            return self._known.get(key)

    @cached_property
    def _known(self) -> BlockIndex:
        return BlockIndex(self._texts(self._everything), self._text)

    def blocks_by_form(self, forms: Iterable[Form]) -> dict[Form, list[Block]]:
        """A few blocks of any tracked checkpoint, by what they look like; thread-safe."""
        with self._lock:
            return self._by_form.find(forms)

    @cached_property
    def _by_form(self) -> FormIndex:
        return FormIndex(self._texts(self._everything), self.manifest)


class _Last(Generic[Held]):
    """What was asked for last, by a name, up to a number of bytes; the newest is always there."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._all: OrderedDict[str, tuple[Held, int]] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def get(self, name: str) -> Held:
        self._all.move_to_end(name)
        return self._all[name][0]

    def put(self, name: str, held: Held, nbytes: int) -> None:
        self._all[name] = held, nbytes
        self._most -= nbytes
        while self._most < 0 and len(self._all) > 1:
            self._most += self._all.popitem(last=False)[1][1]


class PathPredecessors:
    """What one checkpoint is compared with."""

    def __init__(
        self,
        own: list[Manifest],
        committed: list[Manifest],
        tensors: Collection[TensorInfo],
        everything: Predecessors,
        asked: Manifest | None = None,
    ) -> None:
        """The manifests and the tensors of one path.

        Args:
            own: the path's manifests, the index's first.
            committed: those of HEAD and others.
            tensors: what there is now.
            everything: what all paths are compared with.
            asked: the manifest of which it is only asked whether the file is it.
        """
        self.asked = asked
        self._as_asked = _entries(asked) if asked is not None else None
        self._own = [_entries(manifest) for manifest in own]
        self._committed = [_entries(manifest) for manifest in committed]
        self._skeletons = [manifest.skeleton for manifest in own]
        self._predecessor_skeletons = [manifest.skeleton for manifest in committed]
        self._everything = everything
        self._renamed = _renamed(tensors, self._committed[0]) if self._committed else {}
        self._tensors = tensors
        self._manifests = own
        self._before = committed

    def version_of(self, manifest: Manifest) -> int:
        """The version of the text that a manifest is written in.

        One that says what the path's manifests say is the same text; what is new is of the latest.
        """
        alike = (one.version for one in (*self._manifests, *self._before) if one == manifest)
        return next(alike, LATEST)

    def stored(self, name: str, position: int, sha256: str, dtype: str) -> Block | None:
        """The block with this hash, if it is stored: this tensor's, this file's, any other's.

        Args:
            name: the tensor's name.
            position: the number of the block in its tensor, from 0.
            sha256: the hash of the block's bytes, in hexadecimal.
            dtype: the name of the block's dtype; a block of another one does not count.

        Raises:
            Unlike: see `Predecessors`.
        """
        if self._as_asked is not None:
            asked = self._as_asked.get(name)
            blocks = asked.blocks if asked is not None else ()
            if position >= len(blocks) or blocks[position].sha256 != sha256:
                raise Unlike
        for entries in (*self._own, *self._committed):
            entry = entries.get(name)
            if entry is not None and position < len(entry.blocks):
                block = entry.blocks[position]
                if block.sha256 == sha256 and block.chain and dtype_of(entry) == dtype:
                    return block
        key = (sha256, dtype)
        return self._own_blocks.get(key) or self._everything.known_block(key)

    @cached_property
    def _own_blocks(self) -> dict[Key, Block]:
        found: dict[Key, Block] = {}
        for manifest in reversed(self._manifests):
            found |= blocks_of(manifest)
        return found

    def predecessor(self, name: str, position: int) -> tuple[Entry, Block] | None:
        """The block at this position of the tensor of this name in what was committed."""
        for entries in self._committed:
            entry = entries.get(name)
            if entry is not None and position < len(entry.blocks) and not entry.opaque:
                return entry, entry.blocks[position]
        return None

    def unquantised(self, name: str) -> Entry | None:
        """The floats of this name, in what was committed, that are to be looked at first.

        Those of the same path; else those of another, if the tensor was new, or was a quantisation
        before: then it was of an earlier version of these.
        """
        own = next((found[name] for found in self._committed if name in found), None)
        if own is not None and own.tensor.dtype.kind == "float":
            return own
        made = own is None or any(
            link.kind == "quantise" for block in own.blocks for link in block.chain
        )
        return self._unquantised.get(name) if made else None

    @cached_property
    def _unquantised(self) -> Mapping[str, Entry]:
        found = self._everything.unquantised(self._tensors)
        return {} if found is None else _entries(found)

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
        yield from self._kin.get(form_of(tensor, position), ())

    @cached_property
    def _kin(self) -> dict[Form, list[Block]]:
        """Blocks of the forms that tensors without a predecessor have."""
        before: Mapping[str, Entry] = self._committed[0] if self._committed else {}
        alone = [tensor for tensor in self._tensors if tensor.name not in before]
        return self._everything.blocks_by_form(
            form_of(tensor, position)
            for tensor in alone
            for position in range(sum(1 for _ in cut(tensor)))
        )

    def stored_skeleton(self, sha256: str) -> Block | None:
        """The skeleton with this hash, if it is stored: this file's, any other's.

        Raises:
            Unlike: see `Predecessors`.
        """
        if self.asked is not None and self.asked.skeleton.sha256 != sha256:
            raise Unlike
        own = next((block for block in self._skeletons if block.sha256 == sha256), None)
        return own or self._everything.known_block((sha256, SKELETON))

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


def _renamed(tensors: Iterable[TensorInfo], before: dict[str, Entry]) -> dict[str, Entry]:
    """Old tensors by the names that they may have now: where as many came as went, in order."""
    names = {tensor.name for tensor in tensors}
    came: dict[Form, list[str]] = {}
    went: dict[Form, list[Entry]] = {}
    for tensor in sorted(tensors, key=lambda tensor: natural_key(tensor.name)):
        if tensor.name not in before:
            came.setdefault(form_of(tensor, 0), []).append(tensor.name)
    for name, entry in before.items():
        if name not in names and not entry.opaque:
            went.setdefault(form_of(entry.tensor, 0), []).append(entry)
    found: dict[str, Entry] = {}
    for form, new in came.items():
        if len(new) == len(went.get(form, ())):
            found.update(zip(new, went[form], strict=True))
    return found
