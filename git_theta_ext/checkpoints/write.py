"""Arrays into checkpoints: as a file of another container, or as a commit without a work tree."""

from __future__ import annotations

import os
import posixpath
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.clean import Cleaner
from git_theta_ext.checkpoints.exporting import sharded
from git_theta_ext.checkpoints.exporting.layouts import built, layout_of, remark_on
from git_theta_ext.checkpoints.exporting.outgoing import (
    Outgoing,
    Pieces,
    outgoing,
    pieces_of,
    write_layout,
)
from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.checkpoints.predecessors import Predecessors
from git_theta_ext.checkpoints.read import Checkpoint
from git_theta_ext.core import files
from git_theta_ext.core.arrays import dtype_of
from git_theta_ext.core.errors import StoreError, UsageError
from git_theta_ext.core.pytorch import from_torch, is_torch
from git_theta_ext.core.tensors import DTYPES, DType, TensorInfo
from git_theta_ext.formats import safetensors
from git_theta_ext.formats.base import Crc32, Layout, Literal, SerializationId, Source, Span
from git_theta_ext.formats.layout.derived import Checksums
from git_theta_ext.formats.layout.places import segment_length
from git_theta_ext.formats.layout.source import FileSource, check_range
from git_theta_ext.git import outputs
from git_theta_ext.git.repository import IndexEntry, Repository
from git_theta_ext.git.trees import (
    Row,
    blobs_of,
    commit_tree,
    file_mode_at,
    index_of,
    store_blob,
    write_tree,
)
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import ROOM, check_room
from git_theta_ext.objects.executor import HERE, Executor
from git_theta_ext.objects.store.where import store_of

Array = NDArray[Any]


def describe(name: str, array: Array) -> TensorInfo:
    """An array as a tensor.

    Raises:
        UsageError: its elements cannot be stored.
    """
    return TensorInfo(name, DTYPES[dtype_of(array)], array.shape)


def plain_array(name: str, value: Any) -> Array:
    """A tensor of any framework as a NumPy array with the same values.

    Raises:
        UsageError: it has no plain values, or its name is no text.
    """
    if not isinstance(name, str):
        raise UsageError(f"the name of a tensor is text, not {type(name).__name__} {name!r}")
    if is_torch(value):
        return from_torch(name, value)
    if isinstance(value, np.ma.MaskedArray):
        raise UsageError(
            f"tensor {name!r} is a masked array, whose mask would be lost",
            hint="give its values and its mask as two tensors, or filled()",
        )
    if type(value).__module__.partition(".")[0] == "scipy":
        raise UsageError(
            f"tensor {name!r} is sparse ({type(value).__name__})", hint="give toarray() of it"
        )
    return np.asarray(value)


class ArraysSource:
    """The bytes of a file that holds arrays; only its structure is made in memory."""

    def __init__(
        self,
        tensors: Mapping[str, Any],
        metadata: Mapping[str, str],
        container: str = safetensors.NAME,
    ) -> None:
        """The tensors stand in the file in the mapping's order.

        Raises:
            UsageError: an array's elements cannot be stored (in this container).
        """
        arrays = {name: plain_array(name, value) for name, value in tensors.items()}
        infos = {name: describe(name, array) for name, array in arrays.items()}
        untold = remark_on(container, infos.values())
        if untold is not None:  # they would be committed as if they were bytes
            raise UsageError(untold, hint="commit a safetensors file")
        layout = built(container, infos, None, metadata)
        lengths = [segment_length(segment) for segment in layout.segments]
        sums = Checksums(layout.segments, lengths)
        self._pieces: list[Any] = []
        for number, segment in enumerate(layout.segments):
            piece = np.empty(0, np.uint8)
            if isinstance(segment, Literal):
                piece = np.frombuffer(segment.data, np.uint8)
            elif isinstance(segment, Span):
                little = arrays[segment.tensor.name]
                little = little.astype(little.dtype.newbyteorder("<"), copy=False)
                piece = np.ascontiguousarray(little).reshape(-1).view(np.uint8)
            if sums.covered(number):
                sums.feed(number, piece.data)
            self._pieces.append(piece)
        for number, segment in enumerate(layout.segments):
            if isinstance(segment, Crc32 | SerializationId):
                self._pieces[number] = np.frombuffer(sums.value(number), np.uint8)
        self._ends = list(accumulate(len(piece) for piece in self._pieces))

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._ends[-1]

    def write(self, file: IO[bytes]) -> None:
        """Write the whole file; the arrays are not copied."""
        for piece in self._pieces:
            file.write(piece.data)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            FormatError: the range is not inside the file.
        """
        check_range(offset, length, self.size)
        found = bytearray()
        at = bisect_right(self._ends, offset)
        while len(found) < length:
            start = offset + len(found) - (self._ends[at - 1] if at else 0)
            found += self._pieces[at][start : start + length - len(found)].data
            at += 1
        return bytes(found)


def container_of(path: str) -> str | None:
    """The container, of those that can be made, that a file's name stands for."""
    return SUFFIXES.get(posixpath.splitext(path.replace(os.sep, "/"))[1].lower())


class _RevisionPredecessors(Predecessors):
    """What a new version is compared with when it is committed on a revision, not from an index."""

    def __init__(self, repository: Repository, commit: str) -> None:
        super().__init__(repository)
        self._commit = commit

    @cached_property
    def _heads(self) -> list[str]:
        return [self._commit]

    @cached_property
    def _index(self) -> dict[str, list[IndexEntry]]:
        files = blobs_of(self._repository, self._commit)
        return {path: [IndexEntry("100644", oid, 0, path)] for path, oid in files}

    def staged(self, path: str) -> str | None:
        """The blob at a path of the revision."""
        return self._index[path][0].oid if path in self._index else None


def commit(
    repository: Repository,
    tensors: Mapping[str, Any],
    path: str,
    *,
    message: str,
    parent: str = "HEAD",
    metadata: Mapping[str, str] | None = None,
    executor: Executor = HERE,
) -> str:
    """Commit tensors as a file, without a work tree or an index: safetensors, or as it is called.

    Where `parent` is a branch (or HEAD on one), it moves to the new commit; nothing else changes.

    Args:
        repository: bare ones too.
        tensors: NumPy arrays or torch tensors by name, in the order in which they are to stand in
            the file.
        path: from the top of the repository.
        message: of the commit.
        parent: a branch or any revision.
        metadata: the file's `__metadata__`.
        executor: hashes and encodes blocks; a far one from a file that is written for it meanwhile,
            beside the store.

    Returns:
        The commit's object id.

    Raises:
        UsageError: an array cannot be stored, there is no such parent, or the path is not tracked.
        RepositoryError: the branch moved meanwhile, or there is no identity to commit with.
    """
    base = repository.resolve(f"{parent}^{{commit}}")
    if base is None:
        raise UsageError(f"there is no revision {parent!r} here")
    predecessors = _RevisionPredecessors(repository, base)
    blocks = Blocks.open(repository, executor)
    memo = Memo(store_of(repository).root / "memo")
    cleaner = Cleaner(blocks, predecessors, memo)
    container = container_of(path) or safetensors.NAME
    _check_metadata(metadata or {}, container)
    with _at_hand(ArraysSource(tensors, metadata or {}, container), blocks) as source:
        manifest = cleaner.clean(path, source)
    memo.trim(store_of(repository).root / "objects")
    row = Row(file_mode_at(repository, base, path), store_blob(repository, manifest), path)
    with index_of(repository, base) as env:
        _check_tracked(repository, path, parent, env)
        tree = write_tree(repository, [row], env)
    new = commit_tree(repository, tree, [base], message)
    branch = repository.branch(parent)
    if branch is not None:
        reason = f"git-theta: {message.splitlines()[0] if message else 'commit'}"
        repository.git("update-ref", "-m", reason, branch, new, base)
    return new


@contextmanager
def _at_hand(arrays: ArraysSource, blocks: Blocks) -> Iterator[Source]:
    """What is to be cleaned: arrays, or a file of them that other processes see.

    Raises:
        StoreError: it cannot be written.
    """
    if not blocks.executor.far:
        yield arrays
        return
    place = blocks.store.scratch("commit")
    try:
        with files.new_file(place) as file:
            arrays.write(file)
    except OSError as error:
        raise StoreError(f"cannot write {place}: {error.strerror or error}") from error
    try:
        with FileSource(place) as source:
            yield source
    finally:
        files.remove_quietly(place)


def _check_metadata(metadata: Mapping[str, str], container: str) -> None:
    """Metadata that the file has no place for would be lost."""
    if metadata and container not in (safetensors.NAME, "gguf"):
        raise UsageError(
            f"a {container} file has no place for metadata",
            hint="commit a safetensors file, or give the metadata in the message",
        )
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise UsageError(f"metadata maps text to text; {key!r} is {type(value).__name__}")


def _check_tracked(repository: Repository, path: str, parent: str, env: Mapping[str, str]) -> None:
    """A manifest at a path without the filter would be checked out as the text that it is."""
    answer = repository.git(
        "check-attr",
        "--cached",
        "-z",
        "--stdin",
        "filter",
        stdin=os.fsencode(path) + b"\0",
        env=env,
    )
    if answer.split(b"\0")[2] != b"theta":
        raise UsageError(
            f"{path!r} is not tracked in {parent}: no pattern of its .gitattributes gives it the "
            "filter theta",
            hint="git theta track PATTERN, commit .gitattributes, then try again",
        )


# -- export ----------------------------------------------------------------------------------------


def export(
    checkpoint: Checkpoint,
    names: list[str],
    path: Path | None,
    container: str,
    work_tree: Path | None = None,
    *,
    drop: Sequence[str] = (),
    strip_prefix: str = "",
    dtype: DType | None = None,
    allow_overflow: bool = False,
) -> tuple[int, str | None]:
    """Write some tensors of a checkpoint to a file; whole or not at all.

    Args:
        checkpoint: where they are read, one after the other.
        names: the tensors, in the order in which they are written.
        path: the file, as the user named it; replaced if it is there. None is standard output.
        container: one of `formats.BUILDERS`.
        work_tree: the top of the repository's; others are found.
        drop, strip_prefix, dtype: see `outgoing`.
        allow_overflow: numbers that the dtype is too small for may become infinite.

    Returns:
        Its size in bytes, and what `remark_on` says of it.

    Raises:
        UsageError: the container cannot hold one of them, or is unknown; also as `outgoing` does,
            and where a number would become infinite.
        StoreError: the file cannot be written, or not there; see `outputs`.
    """
    infos = [checkpoint.info(name) for name in names]
    wanted = outgoing(infos, drop=drop, strip_prefix=strip_prefix, dtype=dtype)
    read, layout = _ready(checkpoint, wanted, container, path, allow_overflow)
    with outputs.to_stdout() if path is None else outputs.writing(path, work_tree) as file:
        write_layout(layout, read, file)
        length = file.seek(0, os.SEEK_END)
    return length, remark_on(container, (s.tensor for s in layout.segments if isinstance(s, Span)))


def _ready(
    checkpoint: Checkpoint,
    wanted: Mapping[str, Outgoing],
    container: str,
    path: Path | None,
    allow_overflow: bool,
) -> tuple[Pieces, Layout]:
    """What a file is made of: its objects are fetched, and there is room for it."""
    layout = layout_of(checkpoint, wanted, container)
    spans = [one.tensor for one in layout.segments if isinstance(one, Span)]
    wanted = {info.name: replace(wanted[info.name], becomes=info) for info in spans}
    if path is not None and (path.is_file() or not path.exists()):  # a pipe has room
        nbytes = sum(segment_length(segment) for segment in layout.segments)
        folder = Path(os.path.realpath(path)).parent
        check_room(str(path), nbytes, folder, certain=True, in_memory=False, hint=ROOM)
    checkpoint.fetch(one.reads for one in wanted.values())
    return pieces_of(checkpoint, wanted, allow_overflow=allow_overflow), layout


def export_shards(
    checkpoint: Checkpoint,
    wanted: Mapping[str, Outgoing],
    path: Path,
    most_bytes: int,
    work_tree: Path | None = None,
    *,
    allow_overflow: bool = False,
) -> int:
    """Write tensors to safetensors files of a bounded size; the size of all of them in bytes.

    Each file is whole or not there, and the index that makes a model of them is written last.

    Args:
        checkpoint: where they are read.
        wanted: what becomes of them, by their new names.
        path: of the file, if one is enough; else the numbers of the files stand in its name.
        most_bytes: what the tensors of a file take at most.
        work_tree, allow_overflow: as for `export`.

    Raises:
        UsageError: as for `export`; there are several, and `path` is there.
        StoreError: as for `export`.
    """
    infos = {name: one.becomes for name, one in wanted.items()}
    groups = sharded.shards_of(infos, most_bytes)
    names = sharded.file_names(path.stem, len(groups), path.suffix)
    if len(groups) > 1 and os.path.lexists(path):
        raise UsageError(f"{path} is there, and loaders would take it", hint="remove it first")
    total = 0
    for name, group in zip(names, groups, strict=True):
        place, part = path.with_name(name), {key: wanted[key] for key in group}
        read, layout = _ready(checkpoint, part, safetensors.NAME, place, allow_overflow)
        with outputs.writing(place, work_tree) as file:
            write_layout(layout, read, file)
            total += file.seek(0, os.SEEK_END)
    if len(groups) > 1:
        index = sharded.index_of(infos, list(zip(names, groups, strict=True)))
        outputs.write(path.with_name(sharded.index_name(path.stem, path.suffix)), index, work_tree)
    return total


SUFFIXES = {
    ".safetensors": "safetensors", ".npz": "npz", ".pt": "pt", ".pth": "pt", ".gguf": "gguf",
}  # fmt: skip
"""Names of files by which a container is chosen."""
