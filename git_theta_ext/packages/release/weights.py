"""The weights of a release: which tensors, in which files, and how they are written."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from git_theta_ext import formats
from git_theta_ext.checkpoints.adapters.tied import EMBEDDINGS, HEADS
from git_theta_ext.checkpoints.exporting import sharded
from git_theta_ext.checkpoints.exporting.outgoing import (
    Outgoing,
    Pieces,
    outgoing,
    pieces_of,
    scales_among,
    write_layout,
)
from git_theta_ext.checkpoints.exporting.ties import Ties
from git_theta_ext.checkpoints.read import Checkpoint
from git_theta_ext.core import patterns
from git_theta_ext.core.errors import FormatError, UsageError
from git_theta_ext.core.tensors import DType, TensorInfo
from git_theta_ext.core.text import plural
from git_theta_ext.formats.base import Layout
from git_theta_ext.packages.release.chosen import Weights
from git_theta_ext.packages.release.folder import Folder
from git_theta_ext.packages.release.tensors_file import FileHashes, hash_of


@dataclass(frozen=True, slots=True)
class Wishes:
    """How tensors are to be written; see `outgoing` and `sharded`."""

    drop: tuple[str, ...] = ()
    strip_prefix: str = ""
    dtype: DType | None = None
    allow_overflow: bool = False
    shard_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One model that is about to be written.

    `files` has the layout of each file by its path in the folder; `made` says how the weights were
    written, for the model card, and `notes` what the user should know.
    """

    weights: Weights
    checkpoint: Checkpoint
    wanted: Mapping[str, Outgoing]
    shards: tuple[tuple[str, tuple[str, ...]], ...]
    layouts: tuple[Layout, ...]
    made: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """What the tensors take."""
        return sum(one.becomes.nbytes for one in self.wanted.values())


def plan(
    weights: Weights, checkpoint: Checkpoint, found: Ties, wishes: Wishes, *, head_is_tied: bool
) -> Plan:
    """Decide what is written, before a byte is.

    Args:
        weights: the model.
        checkpoint: the same, opened.
        found: its further names.
        wishes: of the user.
        head_is_tied: its configuration says that the output head is the input embedding.

    Raises:
        UsageError: see `outgoing`; a name is a view of a part of a tensor; safetensors cannot hold
            an element type.
    """
    infos = {name: checkpoint.info(name) for name in checkpoint}
    _check_views(checkpoint, found, wishes.drop)
    ties, notes = _settle(infos, found, head_is_tied=head_is_tied)
    drop = [
        one for one in wishes.drop
        if patterns.select(infos, [one]) or not patterns.select(found.views, [one])
    ]  # fmt: skip
    wanted = outgoing(
        infos.values(), ties=ties, drop=drop, strip_prefix=wishes.strip_prefix, dtype=wishes.dtype
    )
    wanted = {
        name: replace(one, becomes=replace(one.becomes, order=None)) for name, one in wanted.items()
    }
    made, further = _told(weights, checkpoint, wanted, wishes)
    becomes = {name: one.becomes for name, one in wanted.items()}
    groups = sharded.shards_of(becomes, wishes.shard_bytes)
    files = [
        posixpath.join(weights.folder, name)
        for name in sharded.file_names(weights.stem, len(groups))
    ]
    metadata = {**checkpoint.metadata, "format": "pt"}
    layouts = [_layout({name: becomes[name] for name in group}, metadata) for group in groups]
    shards = tuple((file, tuple(group)) for file, group in zip(files, groups, strict=True))
    return Plan(
        weights, checkpoint, wanted, shards, tuple(layouts), tuple(made), (*notes, *further)
    )


def _layout(infos: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> Layout:
    try:
        return formats.build("safetensors", infos, None, metadata)
    except FormatError as error:
        raise UsageError(error.message, hint="leave it out: --drop NAME") from error


def _check_views(checkpoint: Checkpoint, ties: Ties, drop: Sequence[str]) -> None:
    left = set(ties.views) - set(patterns.select(ties.views, drop) if drop else ())
    for name in ties.views:
        if name in left:
            raise UsageError(
                f"{name!r} in {checkpoint.name} is a view of a part of another tensor, and has no "
                "bytes of its own",
                hint="leave it out with --drop, or commit a checkpoint in which it has",
            )


def _settle(
    infos: dict[str, TensorInfo], found: Ties, *, head_is_tied: bool
) -> tuple[dict[str, str], list[str]]:
    """Put tied names among the tensors: a copy each, but for a head that loaders tie themselves."""
    ties: dict[str, str] = {}
    notes: list[str] = []
    for name, (of, info) in found.whole.items():
        pair = (_module(name), _module(of))
        if head_is_tied and pair[0] in HEADS and pair[1] in EMBEDDINGS:
            notes.append(f"{name!r} is {of!r}, as the configuration says: it is written once")
            continue
        infos[name] = info
        ties[name] = of
        if head_is_tied and pair[1] in HEADS and pair[0] in EMBEDDINGS:
            del infos[of]  # loaders look for the embedding
            notes.append(f"{of!r} is {name!r}, as the configuration says: it is written once")
        else:
            notes.append(f"{name!r} shares its values with {of!r}: both are written")
    return ties, notes


def _module(name: str) -> str:
    parts = name.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1] == "weight" else ""


def _told(
    weights: Weights, checkpoint: Checkpoint, wanted: Mapping[str, Outgoing], wishes: Wishes
) -> tuple[list[tuple[str, str]], list[str]]:
    """How the weights were written, and what stayed as it was or was left out."""
    made: list[tuple[str, str]] = []
    notes: list[str] = []
    if not checkpoint.format.startswith("safetensors"):
        made.append(("written as safetensors from", posixpath.basename(weights.path)))
        parts = sum(entry.opaque for entry in checkpoint.manifest.entries)
        if parts:
            notes.append(f"{plural(parts, 'part')} of unknown meaning left out")
    if wishes.drop:
        made.append(("left out", ", ".join(wishes.drop)))
    if wishes.strip_prefix:
        made.append(("names are without", wishes.strip_prefix))
    if wishes.dtype is not None:
        cast = sum(one.is_cast for one in wanted.values())
        made.append((f"{plural(cast, 'tensor')} cast to", wishes.dtype.name))
        scales = scales_among(one.source for one in wanted.values())
        if scales:
            notes.append(f"{plural(len(scales), 'tensor')} beside codes not cast")
    return made, notes


def write(one: Plan, folder: Folder, wishes: Wishes) -> dict[str, FileHashes]:
    """Write the files of a model and the index of its shards; the hashes of its tensors by file.

    Raises:
        UsageError: a number would become infinite.
        CorruptObjectError, MissingObjectError, TransferError: the tensors cannot be had.
        StoreError: a file cannot be written.
    """
    one.checkpoint.fetch(dict.fromkeys(item.reads for item in one.wanted.values()))
    read = pieces_of(one.checkpoint, one.wanted, allow_overflow=wishes.allow_overflow)
    digests: dict[str, str] = {}
    for (path, _), layout in zip(one.shards, one.layouts, strict=True):
        with folder.new(path) as sink:
            write_layout(layout, _hashed(read, digests), sink)
    becomes = {name: item.becomes for name, item in one.wanted.items()}
    if len(one.shards) > 1:
        name = posixpath.join(one.weights.folder, sharded.index_name(one.weights.stem))
        shards = [(posixpath.basename(path), names) for path, names in one.shards]
        folder.add(name, sharded.index_of(becomes, shards))
    return {
        path: FileHashes({name: hash_of(becomes[name], (digests[name],)) for name in names})
        for path, names in one.shards
    }


def _hashed(read: Pieces, digests: dict[str, str]) -> Pieces:
    """The same pieces; the hash of each tensor is put down when it is through."""

    def each(name: str) -> Iterator[memoryview]:
        digest = hashlib.sha256()
        for piece in read(name):
            digest.update(piece)
            yield piece
        digests[name] = digest.hexdigest()

    return each
