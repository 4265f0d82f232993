"""A plan carried out: objects are brought, tensors made, and the manifest put together.

A tensor that is one of a part as it is keeps the blocks that it has there: nothing of it is read
or encoded, only its objects are copied, each once and verified. What the version before has with
the same bytes, under whatever name, is taken from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from git_theta_ext.core import limits
from git_theta_ext.core.errors import (
    CorruptObjectError,
    FormatError,
    MissingObjectError,
    UsageError,
)
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.tensors import BlockSpec, TensorInfo
from git_theta_ext.formats import safetensors
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.objects.blocks import Blocks, sha256
from git_theta_ext.objects.packs import Packing
from git_theta_ext.objects.store.store import Store
from git_theta_ext.packages.assemble.given import Given
from git_theta_ext.packages.assemble.parts import Opened
from git_theta_ext.packages.assemble.pieces import Made, Reader, blocks_of
from git_theta_ext.packages.assemble.plan import in_file_order
from git_theta_ext.packages.assemble.recipe_file import RecipeFile

Advance = Callable[[int], object]
"""Called with the number of bytes done since the last call."""

_COPY_BYTES = 1 << 20
_COPIES = 3
"""What a block holds while it is made and encoded, in its own length."""
_DEFAULT_METADATA = {"format": "pt"}
"""What `transformers` asks a file of tensors for, where no part says it."""


@dataclass(frozen=True, slots=True)
class Built:
    """The checkpoint as a manifest, and the objects that were brought for it and their length."""

    manifest: Manifest
    objects: int
    nbytes: int


class Known:
    """The blocks of the version before, by their bytes, whatever their tensors are called."""

    def __init__(self, before: Manifest | None) -> None:
        """`before`: what the index has at the path; None where there is nothing."""
        self.before = before
        entries = () if before is None else before.entries
        self._blocks: dict[tuple[str, BlockSpec], Block] = {}
        for entry in entries:
            for spec, block in entry.parts():
                self._blocks[block.sha256, spec] = block

    def block(self, spec: BlockSpec, digest: str) -> Block | None:
        """A block with these bytes."""
        return self._blocks.get((digest, spec))

    def entry(self, entry: Entry) -> Entry:
        """An entry with the blocks of the version before where it has the same."""
        blocks = tuple(self.block(spec, block.sha256) or block for spec, block in entry.parts())
        return entry if blocks == entry.blocks else replace(entry, blocks=blocks)


@dataclass(frozen=True)
class Task:
    """What is carried out.

    `blocks` are those of this repository, to whose store all goes; `parts` are those of the recipe,
    in order; `plan` is what `make_plan` gave; `before` is what the index has at the path.
    """

    repository: Repository
    blocks: Blocks
    recipe: RecipeFile
    parts: Sequence[Opened]
    plan: Mapping[str, Given]
    before: Manifest | None

    @cached_property
    def known(self) -> Known:
        """The blocks of the version before."""
        return Known(self.before)

    def wanted(self) -> dict[int, dict[str, UpdateRef]]:
        """The objects that the store of this repository needs, by the number of their part."""
        found: dict[int, dict[str, UpdateRef]] = {}
        for one in self.plan.values():
            wanted = found.setdefault(one.part, {})
            if one.is_plain:
                pairs = one.entry.parts()
            else:
                pairs = [pair for made in blocks_of(one) if (pair := self.stored_against(made))]
            for spec, block in pairs:
                if self.known.block(spec, block.sha256) is None:
                    wanted.update((ref.oid, ref) for ref in block.objects())
        return {number: wanted for number, wanted in found.items() if wanted}

    def stored_against(self, made: Made) -> tuple[BlockSpec, Block] | None:
        """The block that a cast is stored as an update of, and what that is; None: it is dense.

        One of another repository that has wider elements is not brought for it: that would take
        more than the cast by itself.
        """
        if made.exact is None:
            return None
        spec, block = made.exact
        is_here = self.parts[made.given.part].repository is self.repository
        if not is_here and spec.dtype.itemsize > made.spec.dtype.itemsize:
            return None
        return spec, self.known.block(spec, block.sha256) or block


def build(task: Task, advance: Advance = lambda _: None) -> Built:
    """Bring what is needed, make what is to be made, and give the manifest of all.

    Args:
        task: what is wanted, of what, and where.
        advance: called with the bytes of each object that was brought and each tensor made.

    Raises:
        UsageError: a tensor cannot be cast, or cannot be in such a file.
        ThetaError: an object is not to be had, or the store cannot be written.
    """
    known = task.known
    with task.blocks.store.gathering():
        count, nbytes = _bring(task, task.wanted(), advance)
        packing = Packing(task.blocks)
        made = _made(packing, task, advance)
        entries = [
            known.entry(one.entry) if one.is_plain else next(made)
            for one in sorted(task.plan.values(), key=lambda one: natural_key(one.name))
        ]
        infos = {one.name: one.info for one in in_file_order(task.plan.values())}
        header = _stored(packing, structure(task.recipe, task.parts, infos), known)
        manifest = packing.packed(Manifest(task.recipe.format, header, tuple(entries)))
        task.blocks.store.flush()
    return Built(manifest, count, nbytes)


def _bring(
    task: Task, wanted: Mapping[int, Mapping[str, UpdateRef]], advance: Advance
) -> tuple[int, int]:
    """Have the objects in the store of this repository; how many were copied, and their length."""
    count = nbytes = 0
    store = task.blocks.store
    for number, refs in wanted.items():
        part = task.parts[number]
        if part.repository is task.repository:
            task.blocks.ensure(refs.values())
        here = ordered_map(lambda ref: store.keep(ref.oid, ref.size), refs.values(), _held)
        lacking = [ref for ref, kept in zip(refs.values(), here, strict=True) if not kept]
        if part.repository is task.repository:
            task.blocks.rely_on(lacking)
            continue
        part.blocks.ensure(lacking)
        for ref in ordered_map(Taking(part.blocks, store), lacking, _held):
            count += 1
            nbytes += ref.size
            advance(ref.size)
    return count, nbytes


@dataclass(frozen=True, slots=True)
class Taking:
    """Copies an object from where a part has it to another store, verified."""

    source: Blocks
    target: Store

    def __call__(self, ref: UpdateRef) -> UpdateRef:
        """Have the object in the other store, too; one that is damaged is fetched once more.

        Raises:
            MissingObjectError, TransferError: it is not to be had.
            CorruptObjectError: its bytes are not those that its name promises.
            StoreError: the disk is full, or the other store cannot be written.
        """
        try:
            self._take(ref)
        except CorruptObjectError:
            if self.source.sound([ref]):  # which moves a damaged one away
                raise
            self.source.ensure([ref])
            self._take(ref)
        return ref

    def _take(self, ref: UpdateRef) -> None:
        path = self.source.store.find(ref.oid, ref.size)
        if path is None:
            raise MissingObjectError(f"object {ref.oid} is not in {self.source.store.root}")
        self.target.take(path, ref.oid, ref.size)


def _held(ref: UpdateRef) -> int:
    """What is held of an object that is hashed or copied piece by piece."""
    return min(ref.size, _COPY_BYTES)


def _made(blocks: Packing, task: Task, advance: Advance) -> Iterator[Entry]:
    """The entries of all tensors that are made, in natural order of their names."""
    wanted = [one for one in task.plan.values() if not one.is_plain]
    wanted.sort(key=lambda one: natural_key(one.name))
    readers = {one.part: Reader(task.parts[one.part].blocks) for one in wanted}

    def make(made: Made) -> Block:
        values = readers[made.given.part].read(made)
        digest = sha256(values)
        same = task.known.block(made.spec, digest)
        if same is not None:
            return same
        spec, block = task.stored_against(made) or (made.spec, None)
        return blocks.write(
            made.spec, values, digest=digest, predecessor=block, predecessor_spec=spec
        )

    pieces = [list(blocks_of(one)) for one in wanted]
    every: Iterable[Made] = (made for some in pieces for made in some)
    done = ordered_map(make, every, lambda made: _COPIES * made.spec.nbytes)
    for one, some in zip(wanted, pieces, strict=True):
        entry = Entry(one.info, tuple(blocks.take(next(done)) for _ in some))
        advance(one.info.nbytes)
        yield entry


def structure(
    recipe: RecipeFile, parts: Sequence[Opened], infos: Mapping[str, TensorInfo]
) -> bytes:
    """What holds the tensors, in the order given: a header with their names, as a skeleton.

    A part that has just these tensors gives its own header, as it is: what takes all of another
    checkpoint is that checkpoint, to the byte.

    Args:
        recipe: its `metadata`, if it has some, is that of the file.
        parts: whose metadata the file has otherwise: that of the first with some.
        infos: the tensors by name, in the order of the file.

    Raises:
        UsageError: the container has no such element type, or the names are too long together.
        ThetaError: the structure of a part is not to be had.
    """
    for one in infos.values():
        if one.order is not None or one.dtype.name.startswith("Q"):
            raise UsageError(
                f"{one.name!r} lies in memory in another order, or has codes as elements: a "
                f"{recipe.format} file has no place for it",
                hint="leave it out of its part: without",
            )
    metadata = recipe.metadata
    if metadata is None:
        for part in parts:
            its = part.checkpoint
            if its.format == recipe.format and {name: its.info(name) for name in its} == infos:
                return part.blocks.read_bytes(its.manifest.skeleton)
        found = (part.checkpoint.metadata for part in parts)
        metadata = tuple((next(filter(None, found), None) or _DEFAULT_METADATA).items())
    try:
        layout = safetensors.build(infos, None, dict(metadata))
    except FormatError as error:
        raise UsageError(error.message, hint="cast it, or leave it out: without") from error
    data = skeleton.encode(layout)
    if len(data) > limits.JSON_HEADER_BYTES:
        raise UsageError(
            f"the names of {len(infos)} tensors make a header of {len(data)} bytes; at most "
            f"{limits.JSON_HEADER_BYTES} are read"
        )
    return data


def _stored(blocks: Blocks, data: bytes, known: Known) -> Block:
    """A skeleton as a block: that of the version before where it is the same."""
    before = None if known.before is None else known.before.skeleton
    if before is not None and before.sha256 == hashlib.sha256(data).hexdigest():
        return before
    return blocks.write_bytes(data, predecessor=before)
