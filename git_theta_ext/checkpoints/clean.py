"""Clean as a use case: a checkpoint becomes a manifest, its changed blocks go into the store."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from git_theta_ext.checkpoints.counterparts import (
    counterpart,
    counterparts,
    quantised_from,
    source_of,
)
from git_theta_ext.checkpoints.elsewhere.far import FarFile, HashAt, StoreFrom, far_file
from git_theta_ext.checkpoints.elsewhere.unstored import SLICE_BYTES, Unstored, hash_of, written_to
from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.checkpoints.predecessors import PathPredecessors, Predecessors, Unlike
from git_theta_ext.core.errors import MissingObjectError, TransferError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.tensors import DTYPES, INLINE_BYTES, BlockSpec
from git_theta_ext.formats import read_layout
from git_theta_ext.formats.base import Layout, Source, Span
from git_theta_ext.formats.layout import opaque, skeleton
from git_theta_ext.formats.layout.places import Place, blocks_of
from git_theta_ext.formats.layout.source import BytesSource, FileSource
from git_theta_ext.formats.neighbours import has_neighbour
from git_theta_ext.git.repository import Repository, git_hash
from git_theta_ext.manifest.model import Block, Entry, Manifest, references
from git_theta_ext.manifest.text import manifest_bytes
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import say
from git_theta_ext.objects.packs import Packing

TICK_SECONDS = 0.05
_COARSE_TICK_SECONDS = 2.0
"""A file may change again, unnoticed, within one tick of its file system's clock: a few
milliseconds on most, up to two seconds where times have no fraction (FAT, old NFS)."""

WORTH_REMEMBERING = 1 << 20
"""A smaller file is cleaned as fast as its answer is looked up, and kept."""

_MAY_BE_COMPRESSED = (opaque.NAME, "npz", "keras", "zip", "ocdbt")
_UNLIKE = "unlike"
_MEMO_BYTES = 64 << 10
"""Blocks from this size on are worth a remembered encoding."""


Told = Callable[[int, Block], object]


def _tell_nobody(offset: int, block: Block) -> None:
    pass


class Cancelled(Exception):
    """The work was called off, because Git sent other bytes than the work-tree file has."""


@dataclass(frozen=True, slots=True)
class _Piece(Place):
    """One block of the file.

    Of a chunk of a file whose earlier version has chunks, also the SHA-256 of its bytes, and the
    chunk that stood in its place, where there was one.
    """

    digest: str | None = None
    before: Block | None = None


@dataclass(frozen=True, slots=True)
class _Task:
    """One file that is cleaned: its bytes, what it is compared with, and where its blocks go."""

    source: Source
    predecessors: PathPredecessors
    blocks: Packing


class Cleaner:
    """Makes manifests of checkpoints, for one repository and one state of its index and HEAD."""

    def __init__(self, blocks: Blocks, predecessors: Predecessors, memo: Memo) -> None:
        """`memo` remembers what has been seen; `predecessors` what is stored already."""
        self._blocks = blocks.passing_on()  # the file is at hand in full
        self._predecessors = predecessors
        self._memo = memo
        self._changing = False
        """Whether the last block differed from its predecessor: a guess at the next one."""

    def remembered(self, path: str, source: FileSource) -> bytes | None:
        """The manifest of a file that was seen before and has not changed since, at once.

        Only if every object that it names is in the store: a memory must not outlive them.
        """
        if source.size < WORTH_REMEMBERING:
            return None
        found = self._memo.get("file", path, *self._key(path, source))
        if found is None:
            return None
        objects, store = self._predecessors.parse(found).objects(), self._blocks.store
        distinct = {(ref.oid, ref.size) for ref in objects}
        # What the index names already is no garbage, and need not be kept from being taken for it.
        kept = store.holds if self._predecessors.is_staged(path, found) else store.keep
        whole = all(kept(oid, size) for oid, size in distinct)
        store.save_verified()
        return found if whole else None

    def remember(self, path: str, source: FileSource, manifest: bytes) -> None:
        """Keep the answer for a file, unless it is so new that it could change unnoticed."""
        self._keep("file", path, source, manifest)

    def _keep(self, kind: str, path: str, source: FileSource, answer: bytes) -> None:
        if source.size < WORTH_REMEMBERING:
            return
        identity = source.identity()
        coarse = identity.mtime_ns % 1_000_000_000 == 0
        tick = _COARSE_TICK_SECONDS if coarse else TICK_SECONDS
        if time.time() - max(identity.mtime_ns, identity.ctime_ns) / 1e9 > tick:
            self._memo.put(answer, kind, path, *self._key(path, source))

    def remember_written(self, repository: Repository, written: Mapping[str, bytes]) -> None:
        """Keep the answers for checkpoints that Git has just written from these manifests.

        Git cleans a file again when its time lies in the same second as the index, which is so
        after almost every checkout. Its index says what the file was when Git had written it; where
        the file is still that, and the index names that manifest, nothing needs to be read.
        """
        for path, known in repository.indexed_files(written).items():
            manifest = written[path]
            if git_hash(BytesSource(manifest).read, len(manifest), len(known.oid)) != known.oid:
                continue
            with suppress(OSError), FileSource(repository.top / path) as source:
                found = source.identity()
                same = (found.mtime_ns, found.ctime_ns) == (known.mtime_ns, known.ctime_ns)
                # The index keeps 32 bits of these two.
                same &= (found.inode - known.inode) % 2**32 == 0
                same &= (found.size - known.size) % 2**32 == 0
                if same:
                    self.remember(path, source, manifest)

    def _key(self, path: str, source: FileSource) -> tuple[str, str]:
        return repr(source.identity()), self._predecessors.fingerprint(path)

    def clean(
        self,
        path: str,
        source: Source,
        cancelled: threading.Event | None = None,
        told: Told = _tell_nobody,
    ) -> bytes:
        """The manifest of the checkpoint in `source`, every object that it names stored.

        Args:
            path: from the top of the work tree, to find its predecessor.
            source: the checkpoint.
            cancelled: may be set by another thread to give up early.
            told: called with the offset of each block, and its entry, whose SHA-256 the bytes
                there were found to have.

        Raises:
            Cancelled: that happened.
            Unlike: it was only asked whether the file is what the index names, and it is not.
            MissingObjectError: a predecessor is needed that cannot be fetched.
            StoreError: the store cannot be written.
            ChangedWhileReadError: the file became shorter while it was read.
        """
        try:
            if self._is_known_as_unlike(path, source):
                raise Unlike
            with self._blocks.store.gathering():
                manifest = self._clean(path, source, cancelled, told)
                self._blocks.store.flush()
        except Unlike:
            if isinstance(source, FileSource):
                self._keep(_UNLIKE, path, source, b"")
            raise
        return manifest_bytes(manifest)

    def _is_known_as_unlike(self, path: str, source: Source) -> bool:
        """Whether it was seen before that the file is not what the index names."""
        if not self._predecessors.only_asked or not isinstance(source, FileSource):
            return False
        large = source.size >= WORTH_REMEMBERING
        return large and self._memo.get(_UNLIKE, path, *self._key(path, source)) is not None

    def _clean(
        self, path: str, source: Source, cancelled: threading.Event | None, told: Told
    ) -> Manifest:
        """As `clean`, the manifest itself; what was put into the store is not flushed yet."""
        layout = self._layout(path, source)
        tensors = [span.tensor for span in layout.segments if isinstance(span, Span)]
        predecessors = self._predecessors.for_path(path, tensors)
        pieces = [
            _Piece(place.span, place.position, place.spec, place.offset)
            for place in blocks_of(layout, source)
        ]
        pieces = self._with_chunks_before(pieces, source, predecessors)

        top, root = self._predecessors.work_tree, self._blocks.store.root
        file = far_file(self._blocks, source, [root] if top is None else [root, top])
        if file is not None:
            pieces = self._hashed(pieces, file)
        self._fetch_predecessors(pieces, source, predecessors)
        task = _Task(source, predecessors, Packing(self._blocks))

        def encode(piece: _Piece) -> Block:
            if cancelled is not None and cancelled.is_set():
                raise Cancelled
            return self._block(piece, task)

        if file is None:
            found = ordered_map(encode, pieces, lambda piece: piece.spec.nbytes)
        else:
            found = self._far_blocks(pieces, file, task, cancelled)
        blocks: dict[str, list[Block]] = {}
        for piece, block in zip(pieces, found, strict=True):
            told(piece.offset, block)
            blocks.setdefault(piece.span.tensor.name, []).append(task.blocks.take(block))
        entries = [
            Entry(segment.tensor, tuple(blocks[segment.tensor.name]), segment.opaque)
            for segment in layout.segments
            if isinstance(segment, Span)
        ]
        entries.sort(key=lambda entry: natural_key(entry.tensor.name))
        structure = self._skeleton(layout, task)
        manifest = task.blocks.packed(Manifest(layout.format, structure, tuple(entries)))
        return replace(manifest, version=predecessors.version_of(manifest))

    def _layout(self, path: str, source: Source) -> Layout:
        """How the file is made up; what describes it from outside is asked where it is needed."""
        found = self._layout_of(path, source)
        if found.remark:
            how = (
                "stored as opaque bytes" if found.format == opaque.NAME else "stored without names"
            )
            kept = "but not by tensor" if found.format == opaque.NAME else "by storage"
            say(
                path,
                f"{how}, for its structure is past a limit ({found.remark}); it is kept byte for "
                f"byte, {kept}",
            )
        elif found.format in _MAY_BE_COMPRESSED and not self._predecessors.only_asked:
            # Only these files, so that no other is cleaned later for importing this.
            from git_theta_ext.formats.compressed import sentence

            if said := sentence(source, found):
                say(path, said)
        return found

    def _layout_of(self, path: str, source: Source) -> Layout:
        if not has_neighbour(path):
            return read_layout(source)
        # Only these files, so that no other is cleaned later for importing this.
        from git_theta_ext.checkpoints import companions

        found, top = self._predecessors.manifests(path), self._predecessors.work_tree
        return companions.read_layout(source, path, top, found, self._blocks)

    def raw_blob(self, path: str, size: int) -> str | None:
        """The blob that the index holds for `path` if it is no manifest and of this size."""
        staged = self._predecessors.staged(path)
        if staged is None or self._predecessors.blob(staged) is not None:
            return None
        return staged if self._predecessors.blob_size(staged) == size else None

    def _with_chunks_before(
        self, pieces: list[_Piece], source: Source, predecessors: PathPredecessors
    ) -> list[_Piece]:
        """The pieces, each chunk with its hash and with the earlier chunk that it may have been."""
        before = {
            piece.span.tensor.name: predecessors.chunks(piece.span.tensor.name)
            for piece in pieces
            if piece.span.opaque and piece.position == 0
        }
        if not any(before.values()):
            return pieces
        chunks = [piece for piece in pieces if before.get(piece.span.tensor.name)]
        digests = ordered_map(
            lambda piece: hash_of(source, piece.offset, piece.spec.nbytes),
            chunks,
            lambda piece: SLICE_BYTES,
        )
        hashes: dict[str, list[str]] = {}
        for piece, digest in zip(chunks, digests, strict=True):
            hashes.setdefault(piece.span.tensor.name, []).append(digest)
        stood = {name: counterparts(found, before[name]) for name, found in hashes.items()}
        return [
            piece
            if (found := hashes.get(piece.span.tensor.name)) is None
            else replace(
                piece,
                digest=found[piece.position],
                before=stood[piece.span.tensor.name][piece.position],
            )
            for piece in pieces
        ]

    def _fetch_predecessors(
        self, pieces: list[_Piece], source: Source, predecessors: PathPredecessors
    ) -> None:
        """Fetch, in one batch, the predecessors of changed blocks that are not on this machine.

        Encoding afresh instead would make the manifest depend on what happens to be here.
        """
        if predecessors.asked is not None:
            return  # nothing that has changed will be encoded
        store = self._blocks.store
        absent = []
        for piece in pieces:
            found = self._predecessor(piece, predecessors)
            if found and not all(store.has(ref.oid, ref.size) for ref in found[1].objects()):
                absent.append((piece, found[1]))

        def changed(item: tuple[_Piece, Block]) -> bool:
            piece, block = item
            if piece.digest is not None:
                return piece.digest != block.sha256
            data = source.read(piece.offset, piece.spec.nbytes)
            return hashlib.sha256(data).hexdigest() != block.sha256

        answers = ordered_map(changed, absent, lambda item: item[0].spec.nbytes)
        needed = [block for (_, block), yes in zip(absent, answers, strict=True) if yes]
        try:
            self._blocks.ensure(ref for block in needed for ref in block.objects())
        except (MissingObjectError, TransferError):
            # One that was damaged and set aside must not keep the next version from being added.
            if any(self._blocks.sound(block.objects()) for block in needed):
                raise

    def _block(self, piece: _Piece, task: _Task) -> Block:
        """One block's entry: copied if it is stored already, else encoded and stored."""
        spec, name = piece.spec, piece.span.tensor.name
        source, predecessors = task.source, task.predecessors
        if spec.nbytes <= INLINE_BYTES:
            data = source.read(piece.offset, spec.nbytes)
            return Block(spec.nbytes, hashlib.sha256(data).hexdigest(), (), data)
        predecessor = self._predecessor(piece, predecessors)
        digest = piece.digest
        like = predecessor is not None and predecessor[0] == spec
        if digest is not None:
            stored = predecessors.stored(name, piece.position, digest, spec.dtype.name)
            if stored is not None and stored.nbytes == spec.nbytes and self._relied_on(stored):
                return stored
        elif spec.nbytes > SLICE_BYTES and like and not self._changing:
            # Most blocks have not changed: those are hashed in the cache and never held whole.
            # Where one has, the next may well have too: it is read whole, and hashed once.
            digest = hash_of(source, piece.offset, spec.nbytes)
            stored = predecessors.stored(name, piece.position, digest, spec.dtype.name)
            if stored is not None and stored.nbytes == spec.nbytes and self._relied_on(stored):
                return stored
        data = source.read(piece.offset, spec.nbytes)
        found = hashlib.sha256(data).hexdigest()
        if digest is not None and found != digest:
            raise written_to(name)
        self._changing = predecessor is not None and found != predecessor[1].sha256
        return self._encoded(piece, data, found, predecessor, task)

    def _hashed(self, pieces: list[_Piece], file: FarFile) -> list[_Piece]:
        """The pieces with their hashes, which other processes find."""
        places = [
            (piece.offset, piece.spec.nbytes)
            for piece in pieces
            if piece.digest is None and piece.spec.nbytes > INLINE_BYTES
        ]
        digests = self._blocks.map(HashAt(file), places, lambda place: place[1])
        return [
            piece
            if piece.digest is not None or piece.spec.nbytes <= INLINE_BYTES
            else replace(piece, digest=next(digests))
            for piece in pieces
        ]

    def _far_blocks(
        self,
        pieces: list[_Piece],
        file: FarFile,
        task: _Task,
        cancelled: threading.Event | None,
    ) -> Iterator[Block]:
        """As `_block` of each piece, which has its hash; other processes encode what is to be."""

        def look(piece: _Piece) -> Block | Unstored:
            if piece.digest is None:
                return self._block(piece, task)
            predecessor = self._predecessor(piece, task.predecessors)
            return self._known(piece, piece.digest, predecessor, task.predecessors)

        found = list(ordered_map(look, pieces, lambda piece: SLICE_BYTES))
        todo = (one for one in found if isinstance(one, Unstored))
        made = task.blocks.map(StoreFrom(file), todo, lambda one: one.spec.nbytes)
        for one in found:
            if cancelled is not None and cancelled.is_set():
                raise Cancelled
            if isinstance(one, Unstored):
                yield self._noted(one, task.blocks.received(next(made)), task)
            else:
                yield one

    def _encoded(
        self,
        piece: _Piece,
        data: bytes,
        digest: str,
        predecessor: tuple[BlockSpec, Block] | None,
        task: _Task,
    ) -> Block:
        """The entry of a block whose bytes were read and hashed, with nothing damaged in its chain.

        It is one that is stored already, or was made before against the same predecessor; else the
        block is encoded and stored.
        """
        found = self._known(piece, digest, predecessor, task.predecessors)
        if isinstance(found, Block):
            return found
        return self._noted(found, found.store(task.blocks, data), task)

    def _known(
        self,
        piece: _Piece,
        digest: str,
        predecessor: tuple[BlockSpec, Block] | None,
        predecessors: PathPredecessors,
    ) -> Block | Unstored:
        """The entry of a block with this hash, if it needs not be encoded; else what to encode."""
        spec, name = piece.spec, piece.span.tensor.name
        stored = predecessors.stored(name, piece.position, digest, spec.dtype.name)
        if stored is not None and stored.nbytes == spec.nbytes:
            if self._relied_on(stored):
                return stored
            # An object of its chain is damaged. Encoded whole it needs no other, and where it was
            # stored whole before, that is the same object again.
            return Unstored(name, piece.offset, spec, digest)
        then, block = predecessor or (None, None)
        guesses = self._kin(piece, predecessors) if predecessor is None else ()
        chunk = piece.before is not None
        own = None
        if then is not None and then.dtype != spec.dtype and quantised_from(piece.span.tensor):
            own = self._own(piece, predecessors)
        found = Unstored(name, piece.offset, spec, digest, block, then, guesses, chunk, own)
        if self._worth_noting(found):
            chain = self._memo.get_chain(*found.key)
            if chain and all(
                self._blocks.store.keep(ref.oid, ref.size) for ref in references(chain)
            ):
                return Block(spec.nbytes, digest, chain)
        return found

    def _noted(self, found: Unstored, made: Block, task: _Task) -> Block:
        """An encoding that was just made, remembered where it took long to find.

        Not one that shares an object: which one depends on what was added with it, and what is
        remembered must be what would be found again.
        """
        made_of_others = found.predecessor is not None or len(made.chain) > 1
        if self._worth_noting(found) and made_of_others and not task.blocks.waits(made):
            self._memo.put_chain(made, *found.key)
        return made

    def _worth_noting(self, found: Unstored) -> bool:
        compared = found.predecessor is not None or bool(found.guesses)
        return compared and found.spec.nbytes >= _MEMO_BYTES

    def _predecessor(
        self, piece: _Piece, predecessors: PathPredecessors
    ) -> tuple[BlockSpec, Block] | None:
        """The block that this one is an update of, and what it is: same tensor, same place."""
        if piece.before is not None:
            length = piece.before.nbytes
            return BlockSpec(DTYPES["U8"], (length,)), piece.before
        return _unquantised(piece, predecessors) or self._own(piece, predecessors)

    @staticmethod
    def _own(piece: _Piece, predecessors: PathPredecessors) -> tuple[BlockSpec, Block] | None:
        """The block of the tensor's own name that this one is an update of, and what it is."""
        found = predecessors.predecessor(piece.span.tensor.name, piece.position)
        if found is None or piece.span.opaque:
            return None
        entry, block = found
        spec = counterpart(entry.tensor, piece)
        return None if spec is None or block.nbytes != spec.nbytes else (spec, block)

    def _kin(self, piece: _Piece, predecessors: PathPredecessors) -> tuple[Block, ...]:
        """Blocks of another name that this one may be an update of."""
        spec, span = piece.spec, piece.span
        if span.opaque or spec.dtype.kind != "float" or spec.nbytes < _MEMO_BYTES:
            return ()
        return tuple(predecessors.kin(span.tensor, piece.position))

    def _skeleton(self, layout: Layout, task: _Task) -> Block:
        data = skeleton.encode(layout)
        stored = task.predecessors.stored_skeleton(hashlib.sha256(data).hexdigest())
        if stored is not None:
            return stored if self._relied_on(stored) else task.blocks.write_bytes(data)
        return task.blocks.write_bytes(data, predecessor=task.predecessors.predecessor_skeleton())

    def _relied_on(self, stored: Block) -> bool:
        """Whether a new manifest may name what an earlier one names, in place of bytes at hand."""
        return self._blocks.sound(stored.objects())


def _unquantised(piece: _Piece, predecessors: PathPredecessors) -> tuple[BlockSpec, Block] | None:
    """The block of floats that a quantised one is made of, and what it is."""
    tensor = piece.span.tensor
    if piece.span.opaque or not quantised_from(tensor):
        return None
    entry = predecessors.unquantised(tensor.name)
    found = None if entry is None else source_of(entry.tensor, piece)
    if entry is None or found is None:
        return None
    number, spec = found
    block = entry.blocks[number]
    own = predecessors.predecessor(tensor.name, piece.position)
    follows = own is not None and own[1].chain[: len(block.chain)] == block.chain
    if own is not None and follows and own[0].tensor.dtype == tensor.dtype:
        return None  # codes that changed while their floats did not are no quantisation of these
    return spec, block
