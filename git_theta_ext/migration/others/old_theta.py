"""Checkpoints of git-theta 0.2 (r-three): JSON in Git, each tensor's update a file of git-lfs.

An update is msgpack of arrays, each of which is a Zarr 2 array of TensorStore, its chunks packed by
Blosc. What it is an update of stands in the commit that it names. Nothing of git-theta, TensorStore
or torch is needed. Sources: git_theta 0.2.0 (metadata.py, params.py, updates/*.py).
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from git_theta_ext import formats
from git_theta_ext.checkpoints.exporting.outgoing import write_layout
from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import FormatError, MissingObjectError
from git_theta_ext.core.names import quote
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.torch.names import DTYPES_BY_NAME
from git_theta_ext.git.object_pipes import ObjectPipes
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.migration.attribute_patterns import matches
from git_theta_ext.migration.found import walk
from git_theta_ext.migration.headers import parse_commit
from git_theta_ext.migration.importing import Importing
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.others.old_arrays import Array, applied, unpacked
from git_theta_ext.migration.rewrite import Contents
from git_theta_ext.migration.selection import Selection

_BEGINS = re.compile(rb"\s*\{")
_SHAPE = re.compile(r"\((?:\d+,? ?)*\)")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LONGEST_CHAIN = 10_000
_HELD_BYTES = 128 << 20

_LEAST, _MOST = 64, 16 << 20
"""Bytes that the metadata of a checkpoint has: about 600 for each tensor."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One tensor of a version: what it is, the object that makes it, and of which commit's."""

    name: str
    info: TensorInfo
    ref: UpdateRef
    kind: str
    last_commit: str


def parameters_of(text: bytes) -> dict[str, Parameter] | None:
    """The tensors of a version by name, in its order; None where the text is no such metadata.

    Raises:
        FormatError: it is, but says something that no git-theta wrote.
    """
    if not _BEGINS.match(text) or b'"lfs_metadata"' not in text:
        return None
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    made: dict[str, Parameter] = {}
    for name, leaf in _leaves(found, "", 0):
        if name in made:
            raise FormatError(f"two tensors are called {quote(name)}")
        made[name] = _parameter(name, leaf)
    return made


def _leaves(value: Any, prefix: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Descend to what has an object; names of nested groups are joined by dots."""
    if not isinstance(value, dict) or depth > limits.MSGPACK_DEPTH:
        raise FormatError("the metadata of git-theta 0.2 is damaged")
    for key, below in value.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(below, dict) and "lfs_metadata" in below:
            yield name, below
        else:
            yield from _leaves(below, name, depth + 1)


def _parameter(name: str, leaf: dict[str, Any]) -> Parameter:
    try:
        tensor, lfs, theta = (leaf[f"{key}_metadata"] for key in ("tensor", "lfs", "theta"))
        shape, dtype, oid = str(tensor["shape"]), str(tensor["dtype"]), str(lfs["oid"])
        size, kind = int(lfs["size"]), str(theta["update_type"])
        last = str(theta["last_commit"] or "")
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{quote(name)}: the metadata of git-theta 0.2 is damaged") from error
    known = DTYPES_BY_NAME.get(dtype)
    if known is None or not _SHAPE.fullmatch(shape) or not re.fullmatch("[0-9a-f]{64}", oid):
        raise FormatError(f"{quote(name)}: {dtype} {shape} is not read")
    numbers = tuple(int(one) for one in re.findall(r"\d+", shape))
    return Parameter(
        name, TensorInfo(name, DTYPES[known], numbers), UpdateRef("lfs", oid, size), kind, last
    )


class OldTheta:
    """Rebuilds versions; values that updates build on are held up to a number of bytes."""

    def __init__(self, pipes: ObjectPipes, lfs: LfsFiles) -> None:
        """Nothing is read before it is asked for."""
        self._pipes, self._lfs = pipes, lfs
        self._held: OrderedDict[tuple[str, str], Array] = OrderedDict()
        self._texts: OrderedDict[tuple[str, str], dict[str, Parameter]] = OrderedDict()

    def missing(self, found: Mapping[str, Parameter]) -> list[UpdateRef]:
        """The objects of a version that are not here; those that it builds on stand in others."""
        return [one.ref for one in found.values() if self._lfs.find(one.ref) is None]

    @contextmanager
    def written(self, path: str, oid: str) -> Iterator[Path]:
        """A version as a file: safetensors by that ending, else as `torch.save` writes it.

        Raises:
            FormatError: it is damaged.
            MissingObjectError: a file of git-lfs is not here.
        """
        found = parameters_of(self._pipes.read(oid, "blob")) or {}
        infos = {name: one.info for name, one in found.items()}
        kind = "safetensors" if path.endswith(".safetensors") else "pt"
        layout = formats.build(kind, infos)

        def read(name: str) -> list[memoryview]:
            values = np.ascontiguousarray(self.values(path, found[name]))
            return [memoryview(values.reshape(-1).view(np.uint8).data)]

        with self._pipes.scratch() as file:
            with files.new_file(file, mode=0o600) as target:
                write_layout(layout, read, target)
            yield file

    def values(self, path: str, wanted: Parameter) -> Array:
        """The values of a tensor; errors as for `written`."""
        chain = [wanted]
        while chain[-1].kind != "dense" and self._key(path, chain[-1]) not in self._held:
            if len(chain) > _LONGEST_CHAIN:
                raise FormatError(f"{quote(wanted.name)} is an update of too many updates")
            chain.append(self._before(path, chain[-1]))
        values: Array | None = self._held.get(self._key(path, chain[-1]))
        if values is not None:
            chain.pop()
        for one in reversed(chain):
            values = applied(one.kind, self._arrays(one), values)
            values = self._checked(one, values)
        assert values is not None
        self._hold(self._key(path, wanted), values)
        return values

    def _key(self, path: str, one: Parameter) -> tuple[str, str]:
        return one.ref.oid, f"{one.last_commit} {path}" if one.kind != "dense" else ""

    def _hold(self, key: tuple[str, str], values: Array) -> None:
        self._held[key] = values
        while sum(one.nbytes for one in self._held.values()) > _HELD_BYTES and len(self._held) > 1:
            self._held.popitem(last=False)

    def _checked(self, one: Parameter, values: Array) -> Array:
        """The values as the metadata promises them: of its shape, and of its dtype."""
        name = "bfloat16" if one.info.dtype.name == "BF16" else None
        wanted = {key: value for value, key in DTYPES_BY_NAME.items()}[one.info.dtype.name]
        dtype = np.dtype(ml_dtypes.bfloat16) if name else np.dtype(wanted)
        if values.shape != one.info.shape:
            raise FormatError(f"{quote(one.name)} has another shape than its metadata says")
        return values if values.dtype == dtype else values.astype(dtype)

    def _arrays(self, one: Parameter) -> dict[str, Array]:
        path = self._lfs.find(one.ref)
        if path is None:
            raise MissingObjectError(
                f"{quote(one.name)}: object {one.ref.oid} of git-lfs is not here"
            )
        if one.ref.size > 2 * one.info.nbytes + (64 << 20):
            raise FormatError(f"{quote(one.name)}: its update is larger than it can be")
        return unpacked(files.read_whole(path), max(one.info.nbytes * 2, 1 << 20))

    def _before(self, path: str, one: Parameter) -> Parameter:
        """The tensor in the version that an update was made of."""
        if not _COMMIT.fullmatch(one.last_commit):
            raise FormatError(f"{quote(one.name)} names no commit that it is an update of")
        key = (one.last_commit, path)
        if key not in self._texts:
            blob = self._blob_at(*key)
            found = None if blob is None else parameters_of(self._pipes.read(blob, "blob"))
            if found is None:
                raise FormatError(f"{quote(one.name)}: {one.last_commit} has no version of it")
            self._texts[key] = found
            while len(self._texts) > 8:
                self._texts.popitem(last=False)
        before = self._texts[key].get(one.name)
        if before is None:
            raise FormatError(f"{quote(one.name)} is not in {one.last_commit}")
        return before

    def _blob_at(self, commit: str, path: str) -> str | None:
        oid = parse_commit(self._pipes.read(commit, "commit")).tree
        *folders, name = path.encode("utf-8", "surrogateescape").split(b"/")
        for folder in folders:
            below = {one.name: one for one in self._pipes.tree(oid)}.get(folder)
            if below is None or not below.is_folder:
                return None
            oid = below.oid
        found = {one.name: one for one in self._pipes.tree(oid)}.get(name)
        return found.oid if found is not None and found.is_file else None


class ImportingOldTheta:
    """A converter: see `rewrite.Converter`."""

    def __init__(self, importing: Importing, looking: LookingAtOld) -> None:
        """`importing` stores files, and tracks them in `.gitattributes`."""
        self._importing, self._looking = importing, looking
        self.begin = importing.begin
        self.top = importing.top

    def folder(self, contents: Contents) -> None:
        """See `rewrite.Converter`."""
        for name, item in list(contents.items.items()):
            path = contents.path_of(name)
            found = self._looking.look(path, item.oid) if item.is_file else None
            if found is None:
                continue
            if self._looking.old.missing(found):
                contents.kept.append((path, "raw"))
                continue
            key = f"old {item.oid} {path}"
            new = self._importing.stored(key, path, self._looking.old.written(path, item.oid))
            contents.items[name] = item._replace(oid=new)
            contents.moved.append(path)
        if contents.path:
            self._importing.track_below(contents)


class LookingAtOld:
    """Finds the checkpoints of git-theta 0.2 in a history."""

    def __init__(self, pipes: ObjectPipes, old: OldTheta, selection: Selection) -> None:
        """Nothing is read before it is asked for."""
        self._pipes, self.old, self._selection = pipes, old, selection

    def names(self, path: str) -> bool:
        """Whether a path may be meant."""
        chosen = self._selection
        included = not chosen.include or any(matches(one, path) for one in chosen.include)
        return included and not chosen.leaves_out(path)

    def look(self, path: str, oid: str) -> dict[str, Parameter] | None:
        """The tensors of a file; None where it is no checkpoint of git-theta 0.2."""
        stated = self._pipes.size(oid) if self.names(path) else None
        if stated is None or stated[0] != "blob" or not _LEAST <= stated[1] <= _MOST:
            return None
        return parameters_of(self._pipes.read(oid, "blob"))

    def all_of(self, commits: Iterable[str]) -> Iterator[tuple[str, str, dict[str, Parameter]]]:
        """Path, blob and tensors of each version in a history."""
        for path, oid in walk(self._pipes, commits, self.names):
            found = self.look(path, oid)
            if found is not None:
                yield path, oid, found
