"""Single tensors of any version, read from the store without a checkout, each block verified."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints import shards
from git_theta_ext.core import advice, patterns
from git_theta_ext.core.arrays import as_array, numpy_dtype, room_for
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.frameworks.convert import Framework, converter
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.tensors import BlockSpec, TensorInfo
from git_theta_ext.formats import safetensors
from git_theta_ext.formats.base import Layout, Span
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.git import near
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import unknown
from git_theta_ext.manifest import slices
from git_theta_ext.manifest.model import (
    HEAD_BYTES,
    Block,
    Entry,
    Manifest,
    is_manifest,
    stored_bytes,
)
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import check_held, check_work

if TYPE_CHECKING:
    from git_theta_ext.checkpoints.versions import Side

Array = NDArray[Any]


class Checkpoint(Mapping[str, Array]):
    """One version of a checkpoint: a mapping of tensor names to NumPy arrays, read when asked for.

    Several threads may read at once. Spans of unknown meaning are not tensors and not listed.
    """

    def __init__(
        self, manifest: Manifest, blocks: Blocks, name: str, parts: tuple[Manifest, ...] = ()
    ) -> None:
        """Use `open_checkpoint`; `name` is how messages call it.

        `parts` are the manifests of the shards, where `manifest` joins several.
        """
        self.manifest = manifest
        self.parts = parts or (manifest,)
        self.name = name
        self._blocks = blocks
        self._entries = {entry.tensor.name: entry for entry in manifest.entries if not entry.opaque}

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held open; the context manager is for symmetry with other readers."""

    def __repr__(self) -> str:
        return f"<Checkpoint {self.name}: {self.format}, {len(self)} tensors>"

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str | tuple[Any, ...]) -> Array:
        """The tensor of a name; with an index behind the name, that part of it.

        `model["w", :, 3:5]` is what `model["w"][:, 3:5]` gives. Of a large tensor only the blocks
        that hold some of it are read, and no more than a few of them are held at once.

        Raises:
            KeyError: there is none.
            IndexError: the index is out of range.
            MissingObjectError, TransferError: its objects cannot be had.
            CorruptObjectError: they are damaged.
            ManifestError, StoreError: it is too large; see `check_held`.
        """
        if isinstance(name, tuple):
            first, *index = name
            return self._part(self.entry(first), tuple(index))
        return self._read(self.entry(name))

    get_tensor = __getitem__

    @property
    def format(self) -> str:
        """The container, such as `safetensors`; of shards, of which one has several."""
        return self.manifest.format

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The `__metadata__` of a safetensors file or of all its shards; empty for others."""
        if shards.container(self.manifest) != safetensors.NAME:
            return {}
        self._blocks.ensure(ref for part in self.parts for ref in part.skeleton.objects())
        found: dict[str, str] = {}
        for part in self.parts:
            segments = self._blocks.skeleton(part).segments
            found = {**shards.metadata(part, segments), **found}
        return found

    def side(self) -> Side:
        """This version as one side of a comparison."""
        from git_theta_ext.checkpoints.versions import StoredSide  # imports every container

        sides = [StoredSide(part, self._blocks) for part in self.parts]
        if len(sides) == 1:
            return sides[0]
        return shards.JoinedSide([(str(number), one) for number, one in enumerate(sides)])

    def entry(self, name: str) -> Entry:
        """What the manifest says of a tensor.

        Raises:
            KeyError: there is no tensor of that name.
        """
        try:
            return self._entries[name]
        except KeyError:
            raise KeyError(f"{self.name} has no tensor {name!r}") from None

    def info(self, name: str) -> TensorInfo:
        """Name, dtype, shape and memory order of a tensor.

        Raises:
            KeyError: there is no tensor of that name.
        """
        return self.entry(name).tensor

    def select(
        self, *wanted: str, framework: Framework = "numpy", device: Any = "cpu"
    ) -> dict[str, Any]:
        """The tensors whose names match a pattern; what is missing is fetched in one batch.

        Args:
            wanted: patterns such as `layers.{0..3}.*`; all tensors if there is none.
            framework: `torch`, `jax`, `tensorflow` or `mlx`: tensors of it, which share the arrays'
                memory where they can.
            device: where torch tensors are put.

        Raises:
            MissingObjectError, TransferError, CorruptObjectError: see `__getitem__`.
            UsageError: the framework is not installed, or would change a value.
        """
        convert = converter(framework, device)
        names = patterns.select(self, wanted) if wanted else list(self)
        return {name: convert(self.info(name), array) for name, array in self.stream(names)}

    def stream(self, names: Iterable[str]) -> Iterator[tuple[str, Array]]:
        """Tensors one after the other, each verified, in the order of the names.

        The next ones are read meanwhile, on several threads, as far as 96 MiB go.

        Raises:
            KeyError, MissingObjectError, TransferError, CorruptObjectError: see `__getitem__`.
            ManifestError, StoreError: all of them are too large to be held; see `check_held`.
        """
        names = list(names)
        self.check_held(names)
        self.fetch(names)

        def jobs() -> Iterator[_Job]:
            for name in names:
                entry = self.entry(name)
                yield from _jobs(entry, room_for(entry.tensor.nbytes))

        for job in ordered_map(self._fill, jobs(), lambda job: job.spec.nbytes):
            if job.last is not None:
                yield job.last.name, as_array(job.last, job.whole)

    def fetch(self, names: Iterable[str] | None = None) -> None:
        """Have the objects of these tensors (default: all) in the store, in one batch.

        Raises:
            MissingObjectError, TransferError: they cannot be had.
        """
        entries = [self.entry(name) for name in (self if names is None else names)]
        self._blocks.ensure(ref for e in entries for block in e.blocks for ref in block.objects())

    def check_held(self, names: Iterable[str], more: int = 0) -> None:
        """Look whether these tensors can be held in memory at once, before one is made.

        What is unusual is said on stderr.

        Args:
            names: the tensors.
            more: bytes that the caller needs beside them.

        Raises:
            KeyError: there is no tensor of that name.
            ManifestError: no honest checkpoint stands for as many values.
            StoreError: memory and swap space together do not have as many bytes.
        """
        entries = [self.entry(name) for name in names]
        what = (
            f"tensor {entries[0].tensor.name!r}" if len(entries) == 1 else f"{len(entries)} tensors"
        )
        nbytes = sum(entry.tensor.nbytes for entry in entries)
        blocks = [block for entry in entries for block in entry.blocks]
        check_held(f"{self.name}: {what}", nbytes, blocks, more)

    def rows(self, name: str, start: int, stop: int) -> Array:
        """The rows from `start` to `stop` (not included) of a tensor's first axis.

        Of a large tensor only the blocks that hold these rows are read.

        Raises:
            KeyError, MissingObjectError, TransferError, CorruptObjectError: see `__getitem__`.
        """
        entry = self.entry(name)
        if not entry.tensor.shape:
            raise UsageError(f"tensor {name!r} is a scalar and has no rows")
        return self._part(entry, (slice(start, stop),))

    def to_records(self) -> list[dict[str, Any]]:
        """One row per tensor, for tables: what it is and how it is stored; sizes in bytes."""
        return [
            {
                "name": name,
                "dtype": entry.tensor.dtype.name,
                "shape": entry.tensor.shape,
                "parameters": entry.tensor.count,
                "bytes": entry.tensor.nbytes,
                "stored": stored_bytes(entry.blocks),
                "updates": [ref.kind for ref in entry.blocks[0].chain] or ["inline"],
                "blocks": len(entry.blocks),
            }
            for name, entry in self._entries.items()
        ]

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor as they lie in the file, of any element type.

        Raises:
            KeyError, MissingObjectError, TransferError, CorruptObjectError: see `__getitem__`.
        """
        return self._bytes(self.entry(name))

    def pieces(self, name: str) -> Iterator[NDArray[np.uint8]]:
        """The bytes of a tensor as `raw` gives them, block by block: to be passed on, not held.

        Raises:
            KeyError, MissingObjectError, TransferError, CorruptObjectError: see `__getitem__`.
            ManifestError: no honest checkpoint stands for as many values.
        """
        entry = self.entry(name)
        pairs = list(zip(entry.specs(), entry.blocks, strict=True))
        if len(pairs) == 1:
            yield self._bytes(entry)
            return
        self._blocks.ensure(ref for block in entry.blocks for ref in block.objects())
        check_work(self._blocks, pairs, f"{self.name}: tensor {name!r}", reading=True)
        blocks = self._blocks.passing_on()
        for values in ordered_map(
            lambda pair: blocks.read(*pair), pairs, lambda pair: pair[0].nbytes
        ):
            yield values.view(np.uint8)

    def file_order(self) -> list[str]:
        """The tensors' names as they lie in the file; of shards, one after the other."""
        self._blocks.ensure(ref for part in self.parts for ref in part.skeleton.objects())
        found: dict[str, None] = {}
        for part in self.parts:
            segments = self._blocks.skeleton(part).segments
            found.update((one.name, None) for one in segments if isinstance(one, skeleton.SpanRef))
        return [*(name for name in found if name in self), *(n for n in self if n not in found)]

    def structure(self) -> Layout:
        """How the file is made up (of shards: the first): tensors, and literal bytes between."""
        part = self.parts[0]
        self._blocks.ensure(part.skeleton.objects())
        entries = part.by_name()
        found = self._blocks.skeleton(part).segments
        segments = [
            Span(entries[segment.name].tensor, entries[segment.name].opaque)
            if isinstance(segment, skeleton.SpanRef)
            else segment
            for segment in found
        ]
        return Layout(part.format, tuple(segments))

    def _read(self, entry: Entry) -> Array:
        return as_array(entry.tensor, self._bytes(entry))

    def _part(self, entry: Entry, index: tuple[Any, ...]) -> Array:
        """What an index gives of a tensor."""
        info, specs = entry.tensor, entry.specs()
        found = slices.plan(info, specs, index)
        dtype = numpy_dtype(info.dtype)
        if found is None or dtype is None:
            return slices.cut_out(self._read(entry), index)
        blocks = [entry.blocks[piece.number] for piece in found.pieces]
        nbytes = math.prod(found.shape) * dtype.itemsize
        check_held(f"{self.name}: a part of tensor {info.name!r}", nbytes, blocks)
        self._blocks.ensure(ref for block in blocks for ref in block.objects())
        if len(specs) == len(found.pieces) == 1:
            return slices.cut_out(self._read(entry), index)
        result: Array = room_for(nbytes).view(dtype).reshape(found.shape)

        def take(piece: slices.Piece) -> None:
            values = self._blocks.read(specs[piece.number], entry.blocks[piece.number])
            result[piece.place] = as_array(piece.info, values.view(np.uint8))[piece.taken]

        for _ in ordered_map(take, found.pieces, lambda piece: piece.info.nbytes):
            pass
        return result

    def _bytes(self, entry: Entry) -> NDArray[np.uint8]:
        """All bytes of a tensor, in memory order; missing objects are fetched first."""
        self.check_held([entry.tensor.name])
        self._blocks.ensure(ref for block in entry.blocks for ref in block.objects())
        whole = room_for(entry.tensor.nbytes)
        for _ in ordered_map(self._fill, _jobs(entry, whole), lambda job: job.spec.nbytes):
            pass
        return whole

    def _fill(self, job: _Job) -> _Job:
        self._blocks.read_into(job.room, job.spec, job.block)
        return job


class _Job(NamedTuple):
    """A block that is to be read, and where to; `last` is the tensor that is whole with it."""

    whole: NDArray[np.uint8]
    room: NDArray[np.uint8]
    spec: BlockSpec
    block: Block
    last: TensorInfo | None


def _jobs(entry: Entry, whole: NDArray[np.uint8]) -> Iterator[_Job]:
    """The blocks of a tensor, each with its place in the memory for all of it."""
    at, left = 0, len(entry.blocks)
    for spec, block in entry.parts():
        left -= 1
        last = None if left else entry.tensor
        yield _Job(whole, whole[at : at + spec.nbytes], spec, block, last)
        at += spec.nbytes


_FORM = "write REV:PATH, such as main:model.safetensors"


def open_checkpoint(repository: Repository, name: str) -> Checkpoint:
    """A version of a checkpoint.

    Args:
        repository: any, bare ones too.
        name: `REV:PATH` as Git writes it, `:PATH` for the index, `PATH` for HEAD. A path that ends
            in `.index.json`, or a pattern such as `model-*-of-*.safetensors`, stands for all
            shards of a model.

    Raises:
        UsageError: there is no such file, or it is not stored tensor by tensor.
        ManifestError: its manifest is damaged.
    """
    spec = name if ":" in name else f"HEAD:{name}"
    revision, _, path = spec.partition(":")
    if shards.names_model(path):
        return _open_model(repository, revision, path, spec)
    oid = repository.resolve(spec)
    if oid is None:
        if revision and repository.resolve(f"{revision}^{{tree}}") is None:
            raise unknown(repository, revision)
        way = near.hint(repository, revision, path, _FORM) if revision else _FORM
        raise UsageError(f"there is no {spec!r} here", hint=way)
    try:
        text = repository.blob(oid)
    except RepositoryError as error:
        raise UsageError(f"{spec} is not a file") from error
    if not is_manifest(text[:HEAD_BYTES]):
        raise UsageError(
            f"{spec} is not stored tensor by tensor",
            hint=advice.TRACK_FIRST,
        )
    return Checkpoint(parse_manifest(text), Blocks.open(repository), spec)


def _open_model(repository: Repository, revision: str, path: str, spec: str) -> Checkpoint:
    commit = repository.resolve(f"{revision}^{{commit}}") if revision else ""
    if commit is None:
        raise unknown(repository, revision)
    model = shards.find(repository, commit, path)
    if model is None:
        raise UsageError(
            f"{spec} matches no shards that are stored tensor by tensor",
            hint=advice.TRACK_FIRST,
        )
    model.require_whole()
    return Checkpoint(model.manifest, Blocks.open(repository), spec, model.parts)
