"""Sharded models: files that hold parts of one model, joined into one for whoever reads it.

A shard is called `STEM-NNNNN-of-MMMMM.SUFFIX` (safetensors, torch, GGUF, TensorFlow), or, in a
folder of PyTorch's distributed checkpoints, `__RANK_N.distcp`, or in one of Orbax `d/` and 32
digits. A model is named by the index that Hugging Face's libraries write
(`model.safetensors.index.json`), or by a pattern (`model-*-of-*.safetensors`, `__*_*.distcp`), or,
with all folders below, by `FOLDER/**`. Every shard stays a file with a manifest of its own:
the joined manifest has all their tensors, so one that moves to another shard has not changed.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from git_theta_ext.core import advice, limits
from git_theta_ext.core.errors import FormatError, ManifestError, UsageError
from git_theta_ext.core.globs import Globs
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.text import plural
from git_theta_ext.formats import safetensors
from git_theta_ext.formats.base import Layout, Literal
from git_theta_ext.formats.layout import opaque, skeleton
from git_theta_ext.formats.layout.skeleton import Skeleton, SkeletonSegment, SpanRef
from git_theta_ext.formats.torch.rows import put_together, whole
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import HEAD_BYTES, Block, Entry, Manifest, is_manifest
from git_theta_ext.manifest.text import parse_manifest

if TYPE_CHECKING:
    from git_theta_ext.checkpoints.versions import Position, Side
    from git_theta_ext.core.values import Values
    from git_theta_ext.objects.blocks import Blocks

_SHARD = re.compile(r"(.+)-(\d{2,6})-of-(\d{2,6})((?:\.\w{1,16})?)", re.DOTALL | re.ASCII)
_RANKS = re.compile(r"((?:.*/)?)__\d{1,9}_\d{1,9}\.distcp", re.DOTALL | re.ASCII)
_OCDBT = re.compile(r"((?:.*/)?)d/[0-9a-f]{32}", re.DOTALL)
_OF_PROCESS = re.compile(r"(?:.*/)?ocdbt\.process_[^/]+/", re.DOTALL)
_BELOW = "/**"
_INDEX = ".index.json"


def model_of(path: str) -> str | None:
    """The pattern of the model that a file is one of several shards of; None for other files."""
    if ranks := _RANKS.fullmatch(path):
        return f"{ranks[1]}__*_*.distcp"
    if data := _OCDBT.fullmatch(path):
        folder = data[1]
        if _OF_PROCESS.fullmatch(folder):
            folder = folder[: folder.rstrip("/").rfind("/") + 1]
        return f"{folder}{_BELOW[1:]}" if folder else None
    match = _SHARD.fullmatch(path)
    if match is None or int(match[3]) < 2:
        return None
    return f"{match[1]}-*-of-*{match[4]}"


def names_model(path: str) -> bool:
    """Whether a path stands for several files: an index of shards, or a pattern."""
    return path.endswith(_INDEX) or "*" in path or "?" in path


def pattern_of(path: str) -> str:
    """The pattern that the shards match which a path stands for."""
    if not path.endswith(_INDEX):
        return path
    stem, suffix = posixpath.splitext(path.removesuffix(_INDEX))
    return f"{stem}-*-of-*{suffix}"


def paths_of(path: str, known: Iterable[str]) -> list[str]:
    """Those of some paths that are shards of the model that a path stands for."""
    globs = Globs([pattern_of(path)])
    if path.endswith(_BELOW):
        return [one for one in known if globs.matches(one)]
    folder = posixpath.dirname(path)
    return [one for one in known if posixpath.dirname(one) == folder and globs.matches(one)]


def index_of(path: str) -> str:
    """Where the index of a model stands, which a pattern of its shards or the index names."""
    return path if path.endswith(_INDEX) else path.replace("-*-of-*", "") + _INDEX


def pathspec_of(path: str) -> str:
    """The pathspec, from the top, of the shards that a path stands for."""
    return f":(top,glob){pattern_of(path)}"


@dataclass(frozen=True)
class Model:
    """The shards of one model in one version: their paths and manifests, in natural order.

    `others` are shards that are not stored tensor by tensor, and so not among them.
    """

    path: str
    shards: tuple[tuple[str, Manifest], ...]
    others: tuple[str, ...] = ()

    def require_whole(self) -> None:
        """Refuse to take a part of the model for all of it.

        Raises:
            UsageError: a shard is not stored tensor by tensor.
        """
        if self.others:
            raise UsageError(
                f"{self.others[0]!r}, a shard of {self.path!r}, is not stored tensor by tensor",
                hint=advice.TRACK_FIRST,
            )

    @cached_property
    def manifest(self) -> Manifest:
        """All tensors as one manifest; it stands in no file and cannot be written to one.

        A tensor whose rows lie in several shards is one.
        """
        return whole(self.joined)

    @cached_property
    def joined(self) -> Manifest:
        """As `manifest`, each tensor as a shard holds it."""
        return join(self.shards)

    @property
    def parts(self) -> tuple[Manifest, ...]:
        """The manifests of the shards."""
        return tuple(manifest for _, manifest in self.shards)


def container(manifest: Manifest) -> str:
    """The container of a manifest, joined or not: `safetensors` of `safetensors, 30 shards`."""
    return manifest.format.partition(",")[0]


def join(shards: Sequence[tuple[str, Manifest]]) -> Manifest:
    """One manifest of the tensors of all shards; its skeleton only tells versions apart.

    A tensor that two shards hold alike is one; where they differ, the later are `NAME@FILE`.
    """
    entries: dict[str, Entry] = {}
    for path, manifest in shards:
        for entry in manifest.entries:
            named = _named(entry, path, entries)
            entries[named.tensor.name] = named
    formats = {manifest.format for _, manifest in shards}
    kind = formats.pop() if len(formats) == 1 else "several containers"
    hashes = "\n".join(manifest.skeleton.sha256 for _, manifest in shards)
    chain = tuple(ref for _, manifest in shards for ref in manifest.skeleton.objects())
    size = sum(manifest.skeleton.nbytes for _, manifest in shards)
    block = Block(size, hashlib.sha256(hashes.encode()).hexdigest(), chain)
    ordered = sorted(entries.values(), key=lambda entry: natural_key(entry.tensor.name))
    return Manifest(f"{kind}, {plural(len(shards), 'shard')}", block, tuple(ordered))


def _named(entry: Entry, path: str, taken: Mapping[str, Entry]) -> Entry:
    other = taken.get(entry.tensor.name)
    if other is None or _content(other) == _content(entry):
        return entry if other is None else other
    name = f"{entry.tensor.name}@{posixpath.basename(path)}"
    return replace(entry, tensor=replace(entry.tensor, name=name))


def _content(entry: Entry) -> tuple[object, ...]:
    tensor = entry.tensor
    hashes = tuple(block.sha256 for block in entry.blocks)
    return tensor.dtype, tensor.shape, tensor.order, hashes


# -- finding the shards ----------------------------------------------------------------------------


def find(
    repository: Repository,
    revision: str,
    path: str,
    read: Callable[[str], Manifest | None] | None = None,
) -> Model | None:
    """The model that a path stands for in a revision, or in the index; None if it is not there.

    Args:
        repository: any.
        revision: a commit, or empty for the index.
        path: from the top: an index of shards, or a pattern.
        read: gives the manifest of a blob, where many are read.

    Raises:
        UsageError: the files are those of several models, or of one that is not whole.
    """
    files = _files(repository, revision, path)
    if path.endswith(_INDEX):
        if path not in files:
            return None
        wanted = _listed(path, repository.blob(files[path]))
        lacking = [name for name in wanted if name not in files]
        if lacking:
            raise UsageError(
                f"{path!r} names {lacking[0]!r}, which is not in {revision or 'the index'}"
            )
    else:
        globs = Globs([path], "the path")
        wanted = [name for name in files if globs.matches(name)]
    get = read or (lambda oid: _manifest(repository, oid))
    shards = [
        (name, manifest)
        for name in sorted(wanted, key=natural_key)
        if (manifest := get(files[name])) is not None
        and not (path.endswith(_BELOW) and manifest.format == opaque.NAME)
    ]
    if not shards:
        return None
    check_one([name for name, _ in shards])
    held = {name for name, _ in shards}
    others = (name for name in wanted if name not in held and _SHARD.fullmatch(name))
    return Model(path, tuple(shards), tuple(sorted(others, key=natural_key)))


def blobs_of_model(repository: Repository, revision: str, path: str) -> tuple[str, ...]:
    """The blobs of the files that a path stands for in a revision: they tell its versions apart."""
    files = _files(repository, revision, path)
    return tuple(files[name] for name in sorted(paths_of(path, files)))


def check_one(paths: Iterable[str]) -> None:
    """Check that files are the shards of one model.

    Raises:
        UsageError: they are of several models, or of one that was sharded in two ways.
    """
    kinds = {(match[1], match[3], match[4]) for path in paths if (match := _SHARD.fullmatch(path))}
    if len(kinds) > 1:
        some = ", ".join(f"{stem}-*-of-{count}{suffix}" for stem, count, suffix in sorted(kinds))
        raise UsageError(
            f"these are the shards of several models: {some}",
            hint="name one of these patterns, or remove the shards that are left over",
        )


def _files(repository: Repository, revision: str, path: str) -> dict[str, str]:
    """Path and blob of every file in the folder of a model, from the top; below it for `/**`."""
    folder, below = posixpath.dirname(path), path.endswith(_BELOW)
    if not revision:
        spec = f":(top,glob){folder}/*" if folder else ":(top,glob)*"
        return {
            entry.path: entry.oid
            for entry in repository.index(f"{spec}*" if below else spec)
            if entry.stage == 0
        }
    place = [f"{folder}/"] if folder else []
    found = repository.tree(revision, *place, recursive=below, ok=(0, 128))
    return {entry.path: entry.oid for entry in found if entry.kind == "blob"}


def is_index(text: bytes) -> bool:
    """Whether a text is an index of shards, and may be copied as one."""
    try:
        _weight_map(text)
    except ValueError:
        return False
    return True


def _weight_map(text: bytes) -> dict[str, str]:
    """The file of each tensor, as an index of shards says it.

    Raises:
        ValueError: the text is no index of shards; it does not say what it is instead.
    """
    if len(text) > limits.SHARD_INDEX_BYTES:
        raise ValueError("too long")
    try:
        found = json.loads(text)["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("no JSON with a weight_map") from None
    if not isinstance(found, dict):
        raise ValueError("its weight_map is no object")
    if not all(isinstance(name, str) and name for name in found.values()):
        raise ValueError("a file without a name")
    return found


def _listed(path: str, text: bytes) -> list[str]:
    """The files that an index of shards names, from the top."""
    try:
        names = dict.fromkeys(_weight_map(text).values())
    except ValueError as error:
        raise UsageError(f"{path!r} is not an index of shards: {error}") from error
    folder = posixpath.dirname(path)
    return [posixpath.normpath(posixpath.join(folder, name)) for name in names]


def _manifest(repository: Repository, oid: str) -> Manifest | None:
    data = repository.blob(oid)
    return parse_manifest(data) if is_manifest(data[:HEAD_BYTES]) else None


# -- reading ---------------------------------------------------------------------------------------


def structure(parts: Sequence[tuple[Manifest, Callable[[], bytes]]]) -> bytes:
    """A skeleton that tells of all shards: their common metadata, and their tensors in order.

    Args:
        parts: the manifest of each shard, and what gives the bytes of its skeleton.
    """
    texts: dict[str, str] = {}
    segments: list[SkeletonSegment] = []
    for manifest, read in parts:
        found = skeleton.decode(read()).segments
        texts = {**metadata(manifest, found), **texts}
        segments += [segment for segment in found if isinstance(segment, SpanRef)]
    if parts and container(parts[0][0]) == safetensors.NAME:
        segments = [*_header(texts), *segments]
    return skeleton.encode(Skeleton(tuple(segments)))


def _header(texts: Mapping[str, str]) -> list[SkeletonSegment]:
    header = safetensors.build({}, None, texts).segments[0]
    return [header] if isinstance(header, Literal) else []


def metadata(manifest: Manifest, segments: Sequence[SkeletonSegment]) -> dict[str, str]:
    """The `__metadata__` of a safetensors file; empty for other containers."""
    first = segments[0] if segments else None
    if container(manifest) != safetensors.NAME or not isinstance(first, Literal):
        return {}
    try:
        return safetensors.metadata(Layout(safetensors.NAME, (first,)))
    except FormatError:
        return {}


class JoinedSide:
    """The shards of one model as one side of a comparison, each from the store or a file."""

    def __init__(self, shards: Sequence[tuple[str, Side]]) -> None:
        """Paths and sides, in natural order."""
        self._sides = [side for _, side in shards]
        joined = join([(path, side.manifest) for path, side in shards])
        self.manifest = whole(joined)
        self._owner: dict[str, tuple[Side, str]] = {}
        taken: dict[str, Entry] = {}
        for path, side in shards:
            for entry in side.manifest.entries:
                named = _named(entry, path, taken)
                taken[named.tensor.name] = named
                self._owner.setdefault(named.tensor.name, (side, entry.tensor.name))
        self._runs = {
            made.tensor.name: [
                (run.tensor.name, number) for run in held for number in range(len(run.blocks))
            ]
            for made, held in put_together(joined.entries)
            if made.runs
        }

    def _held(self, position: Position) -> tuple[Side, Position]:
        """The shard that a block lies in, and which of its blocks it is."""
        name, number = position
        if name in self._runs:
            name, number = self._runs[name][number]
        side, name = self._owner[name]
        return side, (name, number)

    def read(self, spec: BlockSpec, position: Position, block: Block) -> Values:
        """The raw bits of a block's elements."""
        side, held = self._held(position)
        return side.read(spec, held, block)

    def skeletons(self) -> list[Block]:
        """Those of all shards."""
        return [block for side in self._sides for block in side.skeletons()]

    def length(self) -> int:
        """The length of all shards together, in bytes."""
        return sum(side.length() for side in self._sides)

    def prepare(self, blocks: Iterable[Block]) -> None:
        """Have what these blocks are rebuilt from at hand, in one batch."""
        wanted = [block for block in blocks if block.chain]
        if wanted:
            for side in {type(side): side for side in self._sides}.values():
                side.prepare(wanted)

    def store_of(self, position: Position) -> Blocks | None:
        """Where the block is rebuilt from, if its shard is not a file."""
        side, held = self._held(position)
        return side.store_of(held)

    def close(self) -> None:
        """Close every shard that is a file."""
        for side in self._sides:
            side.close()

    def structure(self) -> bytes:
        """The metadata and the order of the tensors of all shards."""
        return structure([(side.manifest, side.structure) for side in self._sides])


def reader(repository: Repository) -> Callable[[str], Manifest | None]:
    """Reads manifests by their blobs, each once; a damaged one is None."""
    known: dict[str, Manifest | None] = {}

    def read(oid: str) -> Manifest | None:
        if oid not in known:
            try:
                known[oid] = _manifest(repository, oid)
            except ManifestError:
                known[oid] = None
        return known[oid]

    return read
