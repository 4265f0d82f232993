"""Blocks in and out of the store: rebuild one from its chain, verified, or encode and store one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.errors import (
    CorruptObjectError,
    MissingObjectError,
    StoreError,
    ThetaError,
    TransferError,
    UnknownUpdateError,
    UsageError,
)
from git_theta_ext.core.parallel import BUDGET_BYTES
from git_theta_ext.core.tensors import BLOCK_BYTES, DTYPES, INLINE_BYTES, BlockSpec
from git_theta_ext.core.values import Values, raw_bytes, values_dtype
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.skeleton import Skeleton
from git_theta_ext.manifest.model import (
    Block,
    Chain,
    Link,
    Manifest,
    Place,
    Recipe,
    UpdateRef,
    references,
)
from git_theta_ext.objects import straight
from git_theta_ext.objects.executor import HERE, Executor, Item, Result
from git_theta_ext.objects.kept import Kept
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.storing import Chosen, Storing, chosen
from git_theta_ext.objects.work import Ledger, Work, needs_settings, of_chain
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.chain import before, decode_chain
from git_theta_ext.updates.choose import (
    Choice,
    Predecessor,
    encode_block,
    encode_bytes,
    encode_chunk,
    is_kin,
)
from git_theta_ext.updates.dense import Dense, glimpse
from git_theta_ext.updates.parameter_file import head_settings, parse
from git_theta_ext.updates.recipes import predict

if TYPE_CHECKING:
    from git_theta_ext.git.repository import Repository

Fetch = Callable[[Iterable[UpdateRef]], None]
"""Brings objects into the store, in one batch, or raises MissingObjectError."""


NOT_HONEST = "no program writes such a manifest: restore it from a commit that you trust"
_HEAD_BYTES = 4096
_GLANCE_BYTES = 1 << 20
"""Predecessors from this size on are glanced at before they are rebuilt."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What several versions of a block were made of: the beginning of their chains."""

    spec: BlockSpec
    chain: Chain
    values: Values
    """What that beginning stands for; not to be written to."""


class Blocks:
    """Reads and writes blocks; safe to use from several threads."""

    def __init__(self, store: Store, fetch: Fetch | None = None, executor: Executor = HERE) -> None:
        """Nothing is read before it is asked for.

        Args:
            store: where objects are.
            fetch: brings objects that are not in the store; without it they are errors.
            executor: does the work on many blocks.
        """
        self.store = store
        self.executor = executor
        self.chosen = Chosen()
        """How blocks are stored, as far as users choose."""
        self.kept: Kept | None = None
        """Merged values that are left to, or by, another process of the same operation."""
        self._fetch = fetch
        self._ledger = Ledger()
        self._bounded = True

    @classmethod
    def open(cls, repository: Repository, executor: Executor = HERE) -> Blocks:
        """The blocks of a repository; missing objects are fetched from its remotes."""

        def fetch(objects: Iterable[UpdateRef]) -> None:
            from git_theta_ext.objects.transfer import transport

            transport.fetch(repository, objects)

        blocks = cls(store_of(repository), fetch, executor)
        blocks.chosen = Chosen(lambda: chosen(repository))
        return blocks

    def map(
        self,
        work: Callable[[Blocks, Item], Result],
        items: Iterable[Item],
        cost: Callable[[Item], int],
        budget: int = BUDGET_BYTES,
    ) -> Iterator[Result]:
        """Apply `work` to these blocks and each item, in order, where the executor does it.

        Args:
            work: called once per item, or again where a process died.
            items: consumed lazily, as results are taken.
            cost: raw bytes that an item holds while it is worked on.
            budget: raw bytes under way at once in one process.

        Raises:
            ThetaError: the first failure, in the order of the items; see `Executor.map`.
        """
        if self.executor.far:
            self.store.share()  # others may write, whose objects are not to be taken for garbage
        return self.executor.map(self, work, items, cost, budget)

    @property
    def is_bounded(self) -> bool:
        """Whether it is refused to read far more than the objects hold; see `passing_on`."""
        return self._bounded

    def writing_to(self, scratch: Store) -> Blocks:
        """The same blocks, but what is written goes into another store and is gone with it."""
        return _Rehearsal(self, scratch)

    def above(self, folder: Path) -> Blocks:
        """The same blocks, but what is written goes into a folder; it can be read there too."""
        return Blocks(self.store.above(folder), self._fetch)

    def passing_on(self) -> Blocks:
        """The same blocks, for one who needs every byte: how many there are is not bounded here.

        For a checkpoint that is written to the disk, whose room is looked at, or read from it.
        """
        same = object.__new__(type(self))
        same.__dict__.update(self.__dict__)
        same._bounded = False
        return same

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process finds the same store by its path; it fetches nothing."""
        return _reopened, (self.store.roots, self._bounded, self.chosen.storing)

    def ensure(self, objects: Iterable[UpdateRef]) -> None:
        """Have all these objects in the store; what is missing is fetched in one batch.

        Raises:
            MissingObjectError, TransferError: they cannot be had.
        """
        distinct = {(ref.oid, ref.size): ref for ref in objects}  # thousands may share a pack
        missing = {
            oid: ref for (oid, size), ref in distinct.items() if not self.store.has(oid, size)
        }
        if missing and self._fetch is not None:
            self._fetch(missing.values())

    def weigh(self, blocks: Iterable[tuple[BlockSpec, Block]]) -> Work:
        """What it takes to rebuild some blocks, from what is at hand of their parameter files."""
        settings: dict[Place, Mapping[str, Any]] = {}
        objects: dict[str, int] = {}
        total = [0.0, 0, 0]
        for spec, block in blocks:
            for ref in needs_settings(block.chain):
                if ref.place not in settings:
                    settings[ref.place] = self._head(ref)
            one = of_chain(spec, block.chain, lambda ref: settings.get(ref.place))
            total = [total[0] + one.nanoseconds, total[1] + one.values, total[2] + one.nbytes]
            objects.update((ref.oid, ref.size) for ref in block.objects())
        return Work(total[0], int(total[1]), int(total[2]), sum(objects.values()))

    def _head(self, ref: UpdateRef) -> Mapping[str, Any]:
        path = self.store.find(ref.oid, ref.size)
        if path is None:
            return {}
        try:
            with path.open("rb") as file:
                file.seek(0 if ref.part is None else ref.part[0])
                head = file.read(_HEAD_BYTES)
                length = int.from_bytes(head[:8], "little") + 8
                if _HEAD_BYTES < length <= limits.PARAMETER_HEADER_BYTES + 8:
                    head += file.read(length - len(head))
        except OSError:
            return {}
        return head_settings(head)

    def account(self, work: Work, chain: Iterable[UpdateRef], *, bounded: bool) -> None:
        """Refuse what is out of all proportion, over all that was read so far.

        An object counts once, however many blocks are made of it.
        """
        if work.nbytes > limits.WHOLE_BLOCK_BYTES:
            raise CorruptObjectError(
                f"a block of {work.nbytes} bytes; at most {limits.WHOLE_BLOCK_BYTES} are rebuilt",
                hint=NOT_HONEST,
            )
        problem = self._ledger.add(work, chain, bounded=bounded)
        if problem is not None:
            raise CorruptObjectError(problem, hint=NOT_HONEST)

    def read_into(self, room: NDArray[np.uint8], spec: BlockSpec, block: Block) -> None:
        """Fill memory with a block, rebuilt and verified; see `read`.

        Args:
            room: as many bytes as the block has, aligned as its elements are.
            spec: what the block is.
            block: how it is rebuilt.

        Raises:
            MissingObjectError, CorruptObjectError: as `read`; what was filled is of no use then.
        """
        aim = room.view(values_dtype(spec.dtype))
        found = self.read(spec, block, aim)
        if found is not aim:
            aim[:] = found

    def read(self, spec: BlockSpec, block: Block, room: Values | None = None) -> Values:
        """The raw bits of a block's elements, rebuilt and verified; a fresh writable array.

        Or `room` itself, where that saves copying them; it is overwritten then, also in vain.

        Raises:
            MissingObjectError: an object of its chain is nowhere.
            CorruptObjectError: the bytes do not have the SHA-256 that the manifest promises.
        """
        if block.inline is not None:
            return np.frombuffer(block.inline, values_dtype(spec.dtype)).copy()
        if self.kept is not None and isinstance(block.chain[0], Recipe):
            kept = self.kept.take(spec, block.sha256)
            if kept is not None:
                return kept
        if len(block.chain) > 1 or isinstance(block.chain[0], Recipe):
            self.ensure(block.objects())  # a single one is fetched where it is found to be missing
        values = None if room is None else self._straight(spec, block, room)
        if values is None:
            values = self._decode(spec, block.chain, room=room)
        if sha256(values) == block.sha256:
            return values
        raise self._blame(block)

    def read_together(
        self, versions: Sequence[tuple[BlockSpec, Block]]
    ) -> tuple[list[Values], Shared | None]:
        """The raw bits of several versions of a block; what their chains share is decoded once.

        Returns:
            The values of each, not to be written to, for two may be one array; and what the
            beginning that all chains share stands for, if there is one.

        Raises:
            MissingObjectError, CorruptObjectError: as `read`.
        """
        self.ensure(ref for _, block in versions for ref in block.objects())
        made = [spec for spec, _ in versions]
        shared, together = self._together(made, [block.chain for _, block in versions])
        if shared is None:
            return [self.read(spec, block) for spec, block in versions], None
        # A distance is added to every value, so a wrong head cannot give a right successor.
        rests = [block.chain[len(shared.chain) :] for _, block in versions]
        proven = any(rest and all(ref.kind == "delta" for ref in rest) for rest in rests)
        found = []
        for (spec, block), rest, values in zip(versions, rests, together, strict=True):
            right = (not rest and proven) or sha256(values) == block.sha256
            found.append(values if right else self.read(spec, block))
        return found, shared

    def _together(
        self, made: Sequence[BlockSpec], chains: Sequence[Chain]
    ) -> tuple[Shared | None, list[Values]]:
        """What several chains decode to, not verified; what they begin with is decoded once.

        None and nothing where they do not begin alike.

        Args:
            made: what each of them decodes to.
            chains: their objects are at hand.
        """
        length = _common(chains)
        if not length:
            return None, []
        rests = [_updates(chain[length:]) for chain in chains]
        files = [[self.parameters(ref) for ref in rest] for rest in rests]
        heads = {before(spec, rest) for spec, rest in zip(made, files, strict=True)}
        if len(heads) != 1:
            return None, []
        (head,) = heads
        values = self._decode(head, chains[0][:length], whole=False)
        if values.nbytes != head.nbytes:
            return None, []
        found = [
            self._decode_files(spec, rest, parsed, base=values.copy()) if rest else values
            for spec, rest, parsed in zip(made, rests, files, strict=True)
        ]
        return Shared(head, chains[0][:length], values), found

    def skeleton(self, manifest: Manifest) -> Skeleton:
        """The structure of a manifest's file: its literal bytes, and where its tensors lie.

        Raises:
            MissingObjectError, CorruptObjectError, TransferError: it cannot be had.
            ManifestError: it is no skeleton.
        """
        return skeleton.decode(self.read_bytes(manifest.skeleton))

    def read_bytes(self, block: Block) -> bytes:
        """The content of a block of plain bytes, such as a skeleton."""
        return self.read(_bytes_spec(block.nbytes), block).tobytes()

    def write(
        self,
        spec: BlockSpec,
        values: Values,
        *,
        digest: str | None = None,
        predecessor: Block | None = None,
        predecessor_spec: BlockSpec | None = None,
        supplied: Encoded | None = None,
    ) -> Block:
        """Encode a block, against a predecessor if there is one, and store it.

        Args:
            spec: what the block is.
            values: the raw bits of its elements, flat.
            digest: the SHA-256 of their bytes, where it is known already.
            predecessor: the block that this one is an update of.
            predecessor_spec: what that is, if it is of another dtype or shape.
            supplied: the update that makes it of the predecessor, where it is known already.
        """
        digest = digest or sha256(values)
        if spec.nbytes <= INLINE_BYTES:
            return Block(spec.nbytes, digest, (), values.tobytes())
        base = self._predecessor(predecessor_spec or spec, predecessor)
        dense = Dense(compress=self.chosen.storing.compress)
        choice, predecessor = self._chosen(
            lambda base: encode_block(spec, values, base, supplied if base else None, dense),
            base,
            predecessor,
        )
        return Block(spec.nbytes, digest, self._store(choice, predecessor))

    def _chosen(
        self,
        encode: Callable[[Predecessor | None], Choice],
        base: Predecessor | None,
        predecessor: Block | None,
    ) -> tuple[Choice, Block | None]:
        """How a block is encoded, and against what: nothing, where its predecessor is damaged.

        Whoever can damage or plant an object must not keep others from storing what they have.
        """
        if base is None or predecessor is None:
            return encode(None), None
        try:
            choice = encode(base)
        except CorruptObjectError:
            self.sound(predecessor.objects())  # says which object it is, and moves it away
        except (MissingObjectError, TransferError):
            if self.sound(predecessor.objects()):
                raise  # absent, and not because it was moved away
        else:
            if self.sound(references(predecessor.chain[: choice.keep])):
                return choice, predecessor
        return encode(None), None

    def write_chunk(self, values: Values, *, digest: str, predecessor: Block) -> Block:
        """Encode and store a chunk of bytes against the one that stood in its place.

        Args:
            values: its bytes.
            digest: their SHA-256.
            predecessor: the earlier chunk.
        """
        spec = _bytes_spec(values.nbytes)
        base = self._predecessor(_bytes_spec(predecessor.nbytes), predecessor)
        choice, found = self._chosen(
            lambda base: (
                encode_chunk(spec, values, base) if base else encode_block(spec, values, None)
            ),
            base,
            predecessor,
        )
        return Block(spec.nbytes, digest, self._store(choice, found))

    def sound(self, chain: Iterable[UpdateRef]) -> bool:
        """Whether no object of a chain is damaged, as far as they are on this machine.

        Asked before a new manifest names them: see `Store.sound`.
        """
        return all(self.store.sound(ref.oid, ref.size) for ref in chain)

    def append(self, spec: BlockSpec, digest: str, chain: Chain, encoded: Encoded) -> Block:
        """Store an update that the caller has encoded, behind a chain; the block that it makes.

        Args:
            spec: what the block is.
            digest: the SHA-256 of its bytes.
            chain: what the update was encoded against; empty for a dense one.
            encoded: the update.

        Raises:
            CorruptObjectError: an object of the chain is damaged.
        """
        self.rely_on(chain)
        return Block(spec.nbytes, digest, (*chain, self._put(encoded)))

    def append_to_merge(
        self, spec: BlockSpec, digest: str, recipe: Recipe, residual: Encoded | None
    ) -> Block:
        """Write down a merged block as what its recipe gives, and what that misses.

        Args:
            spec: what the block is.
            digest: the SHA-256 of its bytes.
            recipe: carried out, it gives these bytes, or what the residual was encoded against.
            residual: the update to the bytes themselves, if it is needed.

        Raises:
            CorruptObjectError: an object of a parent is damaged.
        """
        if residual is not None:
            return self.append(spec, digest, (recipe,), residual)
        self.rely_on((recipe,))
        return Block(spec.nbytes, digest, (recipe,))

    def find_kin(self, spec: BlockSpec, values: Values, guesses: Iterable[Block]) -> Block | None:
        """The first of some blocks of the same size that this one may be an update of.

        Looks at samples of those that are on this machine; none is fetched for a guess.
        """
        for block in guesses:
            if block.nbytes != spec.nbytes:
                continue
            if not all(self.store.has(ref.oid, ref.size) for ref in block.objects()):
                continue
            predecessor = self._predecessor(spec, block)
            with suppress(CorruptObjectError):  # a guess that is damaged is none
                if predecessor is not None and is_kin(spec, values, predecessor):
                    return block
        return None

    def quantises(self, old_spec: BlockSpec, old: Block, spec: BlockSpec, values: Values) -> bool:
        """Whether samples say that a block is a quantisation of another.

        Args:
            old_spec, old: the block of floats, and what it is.
            spec, values: what the other block is, and its bytes.
        """
        from git_theta_ext.updates.quantise import Quantise  # few checkpoints ask for it

        with suppress(CorruptObjectError):  # writing it says what is wrong
            return Quantise().applies(spec, values, old_spec, self.read(old_spec, old))
        return True

    def write_bytes(self, data: bytes, *, predecessor: Block | None = None) -> Block:
        """Encode and store plain bytes, such as a skeleton, against an earlier version of them."""
        digest = hashlib.sha256(data).hexdigest()
        if len(data) <= INLINE_BYTES:
            return Block(len(data), digest, (), data)
        spec = _bytes_spec(0 if predecessor is None else predecessor.nbytes)
        choice, predecessor = self._chosen(
            lambda base: encode_bytes(data, base), self._predecessor(spec, predecessor), predecessor
        )
        return Block(len(data), digest, self._store(choice, predecessor))

    def _predecessor(self, spec: BlockSpec, block: Block | None) -> Predecessor | None:
        """A block as one to encode against; None if there is none, or it has no objects.

        Nothing is read or fetched before its values are asked for.
        """
        if block is None or not block.chain:
            return None

        def rebuild(count: int) -> Values:
            if count == len(block.chain):
                return self.read(spec, block)
            self.ensure(references(block.chain[:count]))
            return self._decode(spec, block.chain[:count], whole=False)

        def first_glance() -> tuple[NDArray[np.intp], Values] | None:
            first = block.chain[0]
            if spec.nbytes < _GLANCE_BYTES or isinstance(first, Recipe):
                return None
            self.ensure([first])
            try:
                return glimpse(spec, self.parameters(first))
            except (CorruptObjectError, KeyError, TypeError, ValueError, IndexError):
                return None  # rebuilding it says what is wrong

        return Predecessor(block.chain, spec, rebuild, first_glance)

    def _store(self, choice: Choice, predecessor: Block | None) -> Chain:
        kept = predecessor.chain[: choice.keep] if predecessor is not None else ()
        if choice.encoded is None:
            return kept
        return (*kept, self._put(choice.encoded))

    def rely_on(self, chain: Iterable[Link]) -> None:
        """Raise CorruptObjectError if an object of a chain is damaged."""
        if not self.sound(references(chain)):
            raise CorruptObjectError(
                "an object that the new version would build on is damaged",
                hint="git theta fsck --repair   fetches it again, where a remote has it",
            )

    def _put(self, encoded: Encoded) -> UpdateRef:
        """Store an update."""
        oid, size = self.store.put(encoded.pieces)
        return UpdateRef(encoded.kind, oid, size, encoded.info)

    def _straight(self, spec: BlockSpec, block: Block, room: Values) -> Values | None:
        """A block that is stored by itself, not verified; None where it is not, or not here."""
        ref = block.chain[0]
        if len(block.chain) > 1 or not isinstance(ref, UpdateRef) or ref.kind != "dense":
            return None
        if room.nbytes != spec.nbytes:
            return None
        try:
            if straight.read_as_it_is(self.store, ref, room):
                work = of_chain(spec, [ref], lambda ref: None)
                self.account(work, [ref], bounded=self._bounded)
                return room
            file = straight.parameters(self.store, ref)
        except (MissingObjectError, StoreError):
            return None  # the plain way brings it, or says what is wrong
        return None if file is None else self._decode_files(spec, [ref], [file], room=room)

    def _decode(
        self, spec: BlockSpec, chain: Chain, whole: bool = True, room: Values | None = None
    ) -> Values:
        """What a chain decodes to, not verified; `whole` and `room` as for `decode_chain`."""
        first, rest = chain[0], _updates(chain[1:])
        if not isinstance(first, Recipe):
            rest = [first, *rest]
            files = [self.parameters(ref) for ref in rest]
            return self._decode_files(spec, rest, files, whole=whole, room=room)
        files = [self.parameters(ref) for ref in rest]
        predicted = self.predicted(before(spec, files), first)
        return self._decode_files(spec, rest, files, base=predicted) if rest else predicted

    def predicted(self, spec: BlockSpec, recipe: Recipe) -> Values:
        """What a recipe gives of its parents, as they are stored; a fresh array, not verified.

        Args:
            spec: what the block is, and so is each of its parents.
            recipe: its objects are fetched where they are not here.

        Raises:
            MissingObjectError, CorruptObjectError: as `read`.
            UnknownUpdateError: this version of the program knows no such recipe.
        """
        chains = [parent.chain for parent in recipe.parents]
        if spec.nbytes > BLOCK_BYTES:  # all its versions are held at once
            raise CorruptObjectError(
                f"a merge of blocks of {spec.nbytes} bytes; they have at most {BLOCK_BYTES}",
                hint=NOT_HONEST,
            )
        self.ensure(references([recipe]))
        alone = replace(recipe, parents=tuple(replace(one, chain=()) for one in recipe.parents))
        work = of_chain(spec, [alone], lambda ref: None)
        self.account(work, (), bounded=self._bounded)
        shared, values = self._together([spec] * len(chains), chains)
        if shared is None:
            values = [self._decode(spec, chain) for chain in chains]
        base, sides = (values[0], values[1:]) if recipe.has_base else (None, values)
        try:
            return predict(recipe, spec.dtype, base, sides)
        except CorruptObjectError as error:
            raise CorruptObjectError(error.message, hint=NOT_HONEST) from error

    def _decode_files(
        self,
        spec: BlockSpec,
        chain: Sequence[UpdateRef],
        files: Sequence[Parameters],
        *,
        whole: bool = True,
        base: Values | None = None,
        room: Values | None = None,
    ) -> Values:
        """What parsed files of a chain decode to, not verified; errors name their objects.

        What is out of all proportion is refused before it is computed. `whole`, `base` and `room`
        are as for `decode_chain`.
        """
        said = {ref.place: file.settings for ref, file in zip(chain, files, strict=True)}
        work = of_chain(spec, chain, lambda ref: said.get(ref.place))
        self.account(work, chain, bounded=self._bounded)
        try:
            return decode_chain(spec, files, whole=whole, base=base, room=room)
        except (UnknownUpdateError, UsageError):
            raise
        except ThetaError as error:
            names = ", ".join(ref.oid for ref in chain)
            raise CorruptObjectError(f"objects {names}: {error.message}") from error

    def parameters(self, ref: UpdateRef) -> Parameters:
        """A parameter file, parsed; not verified.

        Raises:
            MissingObjectError: it is nowhere.
            CorruptObjectError: it is none.
        """
        try:
            try:
                data = self.store.load(ref.oid, ref.size, ref.part)
            except MissingObjectError:
                # It was here a moment ago; `git theta prune` removes what a remote has.
                self.ensure([ref])
                data = self.store.load(ref.oid, ref.size, ref.part)
            return parse(data)
        except CorruptObjectError as error:
            raise CorruptObjectError(f"object {ref.oid}: {error.message}") from error

    def _blame(self, block: Block) -> CorruptObjectError:
        """Say which object of a chain is damaged, or that the manifest's promise is wrong."""
        refs = list(block.objects())
        for ref in refs:
            try:
                self.store.verify(ref.oid, ref.size)
            except CorruptObjectError as error:
                return error
        return CorruptObjectError(
            f"the chain of {refs[-1].oid} decodes to other bytes than the manifest promises "
            f"(sha256:{block.sha256})",
            hint="the manifest was edited or written by another program; restore it from a commit",
        )


class _Rehearsal(Blocks):
    """Reads where others read, writes elsewhere."""

    def __init__(self, real: Blocks, scratch: Store) -> None:
        super().__init__(scratch)
        self.chosen = real.chosen
        self._real = real

    def passing_on(self) -> Blocks:
        return _Rehearsal(self._real.passing_on(), self.store)

    def ensure(self, objects: Iterable[UpdateRef]) -> None:
        self._real.ensure(objects)

    def account(self, work: Work, chain: Iterable[UpdateRef], *, bounded: bool) -> None:
        self._real.account(work, chain, bounded=bounded)

    def _straight(self, spec: BlockSpec, block: Block, room: Values) -> Values | None:
        return self._real._straight(spec, block, room)

    def _decode(
        self, spec: BlockSpec, chain: Chain, whole: bool = True, room: Values | None = None
    ) -> Values:
        return self._real._decode(spec, chain, whole, room)

    def parameters(self, ref: UpdateRef) -> Parameters:
        return self._real.parameters(ref)

    def _blame(self, block: Block) -> CorruptObjectError:
        return self._real._blame(block)

    def sound(self, chain: Iterable[UpdateRef]) -> bool:
        return self._real.sound(chain)


@functools.lru_cache(maxsize=16)
def _reopened(roots: tuple[Path, ...], bounded: bool, storing: Storing) -> Blocks:
    """Blocks that came from another process; all that comes from there shares one store.

    What this process has hashed it remembers for itself: others append to their own memory.
    """
    blocks = Blocks(_store_at(roots))
    blocks.chosen = Chosen(lambda: storing)
    return blocks if bounded else blocks.passing_on()


@functools.lru_cache(maxsize=16)
def _store_at(roots: tuple[Path, ...]) -> Store:
    return Store(roots[0], roots[1:])


def _updates(chain: Chain) -> list[UpdateRef]:
    """The parameter files of a chain, or of its rest, that begins with no recipe."""
    return [link for link in chain if isinstance(link, UpdateRef)]


def _common(chains: Sequence[Chain]) -> int:
    """How many updates all chains begin with alike."""
    first = min(chains, key=len)
    for length, ref in enumerate(first):
        if any(chain[length] != ref for chain in chains):
            return length
    return len(first)


def sha256(values: Values) -> str:
    """The SHA-256 of the raw bytes of values, in hexadecimal."""
    return hashlib.sha256(raw_bytes(values)).hexdigest()


def _bytes_spec(length: int) -> BlockSpec:
    return BlockSpec(DTYPES["U8"], (length,))
