"""The two versions of a checkpoint that an adapter leads between, and their tensors block by block.

Nothing is held but the block at hand, unless a whole tensor is asked for.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.versions import Side
from git_theta_ext.comparison.files import Pair, changed_checkpoints
from git_theta_ext.core import advice, limits
from git_theta_ext.core.arrays import as_array
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.tensors import BlockSpec, TensorInfo
from git_theta_ext.core.text import printable
from git_theta_ext.core.values import Values
from git_theta_ext.formats import safetensors
from git_theta_ext.git.paths import version_typed
from git_theta_ext.git.repository import Repository, literal
from git_theta_ext.git.revisions import commit_of
from git_theta_ext.manifest.model import Entry
from git_theta_ext.objects.bounds import check_held

STRUCTURE = "the metadata or structure of the file"
USAGE = "git theta export v1..v2 --to peft -o FOLDER"


@dataclass(frozen=True, slots=True)
class Range:
    """`A..B[:FILE]`, or `A...B[:FILE]` for what B added since it left A."""

    first: str
    last: str
    forked: bool
    path: str | None


def is_range(text: str) -> bool:
    """Whether the words before a colon name two versions."""
    return ".." in text.partition(":")[0] and not text.startswith(("./", "../"))


def parse(text: str) -> Range:
    """Two versions as the user typed them; an end that is left out is HEAD.

    Raises:
        UsageError: there are not two.
    """
    revisions, colon, path = text.partition(":")
    if not is_range(text):
        raise UsageError(
            f"{text!r} is one version; an adapter leads from one to another", hint=USAGE
        )
    first, _, last = revisions.partition("..")
    forked = last.startswith(".")
    return Range(first or "HEAD", last.removeprefix(".") or "HEAD", forked, path if colon else None)


@dataclass(slots=True)
class Piece:
    """A block in both versions; `start` is the first of the tensor's values in it."""

    spec: BlockSpec
    start: int
    old: Values
    new: Values


@dataclass
class Ends:
    """Both versions of one checkpoint.

    `first` and `last` are the commits; `beside` is the `config.json` in the folder of the new one;
    `others` are files in that folder that differ, too.
    """

    path: str
    first: str
    last: str
    old: Side
    new: Side
    beside: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    @property
    def left_out(self) -> list[str]:
        """What differs between the versions and is in no adapter, whatever its kind."""
        same = self.old.manifest.skeleton.sha256 == self.new.manifest.skeleton.sha256
        return [*([] if same else [STRUCTURE]), *self.others]

    @cached_property
    def before(self) -> dict[str, Entry]:
        """The tensors of the old version; without spans of unknown meaning."""
        return {e.tensor.name: e for e in self.old.manifest.entries if not e.opaque}

    @cached_property
    def after(self) -> dict[str, Entry]:
        """The tensors of the new version."""
        return {e.tensor.name: e for e in self.new.manifest.entries if not e.opaque}

    @cached_property
    def changed(self) -> list[str]:
        """Tensors of both versions, of one dtype and shape, whose values differ; in order."""
        return [
            name
            for name, entry in self.after.items()
            if name in self.before
            and _what(self.before[name].tensor) == _what(entry.tensor)
            and _content(self.before[name]) != _content(entry)
        ]

    @cached_property
    def remade(self) -> list[str]:
        """Tensors that are in one version only, or have another dtype or shape, or no dtype."""
        names = {*self.before, *self.after}
        found = [
            name
            for name in sorted(names)
            if name not in self.before
            or name not in self.after
            or _what(self.before[name].tensor) != _what(self.after[name].tensor)
        ]
        sides = (self.old.manifest.entries, self.new.manifest.entries)
        spans = [{e.tensor.name: _content(e) for e in side if e.opaque} for side in sides]
        both = sorted({*spans[0], *spans[1]})
        return found + [one for one in both if spans[0].get(one) != spans[1].get(one)]

    def prepare(self, names: list[str]) -> None:
        """Have the objects of some tensors here, in one batch."""
        for side, entries in ((self.old, self.before), (self.new, self.after)):
            side.prepare(block for name in names for block in entries[name].blocks)

    def pieces(self, name: str) -> Iterator[Piece]:
        """A tensor's blocks in both versions, one after the other."""
        start = 0
        pairs = zip(self.before[name].parts(), self.after[name].parts(), strict=True)
        for number, ((spec, old), (_, new)) in enumerate(pairs):
            place = (name, number)
            yield Piece(
                spec, start, self.old.read(spec, place, old), self.new.read(spec, place, new)
            )
            start += spec.count

    def values(self, name: str, side: Side) -> NDArray[Any]:
        """A whole tensor of one version, as an array of its shape.

        Raises:
            StoreError: it is larger than memory.
        """
        entry = (self.before if side is self.old else self.after)[name]
        check_held(f"{self.path}: tensor {name!r}", entry.tensor.nbytes, entry.blocks)
        parts = [
            side.read(spec, (name, number), block).view(np.uint8)
            for number, (spec, block) in enumerate(entry.parts())
        ]
        return as_array(entry.tensor, parts[0] if len(parts) == 1 else np.concatenate(parts))

    def is_gguf(self) -> bool:
        """Whether the checkpoint is a GGUF file, so that its names are those of llama.cpp."""
        return self.new.manifest.format == "gguf"

    def is_safetensors(self) -> bool:
        """Whether it is one or several safetensors files."""
        return shards.container(self.new.manifest) == safetensors.NAME

    def close(self) -> None:
        """Let go of what was opened."""
        self.old.close()
        self.new.close()


def _what(tensor: TensorInfo) -> tuple[object, ...]:
    return tensor.dtype, tensor.shape, tensor.order


def _content(entry: Entry) -> tuple[str, ...]:
    return tuple(block.sha256 for block in entry.blocks)


def open_ends(repository: Repository, text: str) -> Ends:
    """The checkpoint that differs between two versions.

    Args:
        repository: any.
        text: `A..B`, `A...B`, or either with `:FILE` where several checkpoints differ.

    Raises:
        UsageError: there is no such revision, none or several checkpoints differ, or one is not
            stored by tensor in both.
    """
    wanted = parse(text)
    first, last = (_commit(repository, one) for one in (wanted.first, wanted.last))
    if wanted.forked:
        answer = repository.git("merge-base", first, last, ok=(0, 1)).decode().split()
        if not answer:
            raise UsageError(f"{wanted.first} and {wanted.last} have no version in common")
        first = answer[0]
    path = None
    if wanted.path is not None:
        path = version_typed(repository, f"{last}:{wanted.path}").partition(":")[2]
    pairs = [
        pair
        for pair in changed_checkpoints(repository, [first, last], [])
        if path is None or path in (pair.path, shards.model_of(pair.path) or pair.path)
    ]
    try:
        pair = _only(pairs, text, wanted)
        if pair.old is None or pair.new is None:
            raise UsageError(
                f"{printable(pair.path)} is not stored by tensor in both versions of {text}",
                hint=advice.with_name(
                    f"git theta diff {first[:10]} {last[:10]} -- FILE   says what happened to it",
                    pair.path,
                ),
            )
    except UsageError:
        for one in pairs:
            one.close()
        raise
    for one in pairs:
        if one is not pair:
            one.close()
    config, others = _config(repository, last, pair.path), _others(repository, first, last, pair)
    return Ends(pair.path, first, last, pair.old, pair.new, config, others)


def _others(repository: Repository, first: str, last: str, pair: Pair) -> tuple[str, ...]:
    """Files in the folder of a checkpoint, but for its own, that differ between two commits."""
    folder = posixpath.dirname(pair.path)
    options = ("--no-renames", "--name-only", "-z")
    within = ["--", literal(f"{folder}/")] if folder else []
    answer = repository.git("diff-tree", "-r", *options, first, last, *within)
    found = os.fsdecode(answer).split("\0")[:-1]
    return tuple(
        path
        for path in found
        if posixpath.dirname(path) == folder
        and pair.path not in (path, shards.model_of(path))
        and not shards.names_model(path)
    )


def _commit(repository: Repository, revision: str) -> str:
    return commit_of(repository, revision, hint=USAGE)


def _only(pairs: list[Pair], text: str, wanted: Range) -> Pair:
    if len(pairs) == 1:
        return pairs[0]
    if not pairs:
        what = "no checkpoint differs" if wanted.path is None else f"{wanted.path} does not differ"
        raise UsageError(f"{what} between the versions of {text}")
    names = [printable(pair.path) for pair in pairs]
    raise UsageError(
        f"{len(pairs)} checkpoints differ between the versions of {text}: {', '.join(names[:5])}",
        hint=advice.with_name(
            "name one: git theta export RANGE", f"{text}:{pairs[0].path}", "RANGE"
        ),
    )


def _config(repository: Repository, commit: str, path: str) -> Mapping[str, Any]:
    """The `config.json` in the folder of a checkpoint, as Transformers writes it; empty if none."""
    beside = posixpath.join(posixpath.dirname(path), "config.json")
    oid = repository.blob_at(commit, beside)
    if oid is None:
        return {}
    try:
        if repository.blob_size(oid) > limits.ADAPTER_CONFIG_BYTES:
            return {}
        found = json.loads(repository.blob(oid))
    except (ValueError, RecursionError, RepositoryError):
        return {}
    return found if isinstance(found, dict) else {}
