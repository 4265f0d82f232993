"""The check of a whole repository: every manifest that anything names, and every object of these.

A manifest counts if a ref, a reflog (so also an older stash), an index or HEAD of any work tree,
or a merge under way names it. An object is right when its bytes have the hash that names it, and a
block when its chain decodes to the bytes that the manifest promises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core import files
from git_theta_ext.core.errors import (
    CorruptObjectError,
    ManifestError,
    MissingObjectError,
    StoreError,
    ThetaError,
)
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import check_work
from git_theta_ext.objects.executor import HERE, Executor
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import endpoints, transport

Kind = Literal["missing", "damaged", "manifest", "block"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: of which kind, the object's or blob's id, and what was found.

    `missing` and `damaged` are objects; `manifest` is a blob; `block` is a block, named by the
    blob that promises it, whose objects are right and decode to other bytes.
    """

    kind: Kind
    oid: str
    message: str
    tensor: str | None = None


@dataclass(slots=True)
class Report:
    """What a check saw: how many manifests, objects, blocks; bytes of objects; what is wrong.

    `promised` counts the objects of Git that are not here, as a partial clone has left them at a
    remote. They were not looked at: any of them may be a manifest, or a folder with some.
    """

    manifests: int = 0
    objects: int = 0
    blocks: int = 0
    bytes: int = 0
    resumed: int = 0
    promised: int = 0
    findings: list[Finding] = field(default_factory=list)


class Progress:
    """Which blocks an interrupted check had found right: one key a line in `theta/fsck/checked`."""

    def __init__(self, folder: Path, *, resume: bool) -> None:
        """Start afresh, or with what the last run left.

        Raises:
            StoreError: the folder cannot be written.
        """
        self._path = folder / "fsck" / "checked"
        self._full = False
        self.known: set[str] = set()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if resume and self._path.exists():
                with files.own(self._path) as file:  # else others could have blocks passed over
                    lines = file.read().decode("ascii", "replace").split("\n")[:-1]
                self.known = {line for line in lines if len(line) == 64}
            self._file = files.appending(self._path, mode=0o600, fresh=not resume)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error

    def add(self, key: str) -> None:
        """Note a block; on disk at once, so that an interrupted run loses nothing.

        Where the disk is full nothing more is noted: a later run looks at more, and misses nothing.
        """
        if self._full:
            return
        try:
            self._file.write(f"{key}\n".encode("ascii"))
            self._file.flush()
        except OSError:
            self._full = True

    def close(self, *, finished: bool) -> None:
        """Close the file; a finished check leaves none."""
        with suppress(OSError):  # what could not be written is tried again, and need not be
            self._file.close()
        if finished:
            self._path.unlink(missing_ok=True)


def everything_here(repository: Repository) -> Store:
    """The store, which also finds what git-lfs keeps here, as reading takes it from there.

    A repository that is a remote by its path has objects nowhere else.

    Raises:
        TransferError: `lfs.storage` names a user who is not there.
    """
    return store_of(repository).also(endpoints.lfs_folder(repository, repository.common_dir))


def check(
    repository: Repository,
    revisions: Iterable[str] = (),
    *,
    resume: bool = False,
    advance: Callable[[int], object] | None = None,
    executor: Executor = HERE,
) -> Report:
    """Check everything that the repository's manifests, or those of some revisions, need.

    Args:
        repository: any, bare ones too. Nothing is fetched and nothing changed.
        revisions: full object ids; none for all.
        resume: skip blocks that an interrupted check found right, if their files are as then.
        advance: called with the raw bytes of blocks done since the last call.
        executor: hashes the objects and rebuilds the blocks.

    Raises:
        StoreError: the state of the check cannot be written, or an object cannot be read.
    """
    store = everything_here(repository)
    report = Report()
    progress = Progress(store.root, resume=resume)
    finished = False
    try:
        look = _Check(Blocks(store, executor=executor), report, progress, advance)
        here, absent = reachable.listed(repository, revisions)
        report.promised = len(absent)
        # One after the other: of a long history no more is held than what was seen by name.
        for blob, manifest in reachable.manifests(repository, here):
            look.manifest(blob, manifest)
        finished = True
    finally:
        progress.close(finished=finished)
    return report


_Job = tuple[str, str, str, BlockSpec, Block]
"""A block to look at: its key, the manifest's blob, the tensor, what it is."""


class _Check:
    """Looks at one manifest after the other, at each object and block once."""

    def __init__(
        self,
        blocks: Blocks,
        report: Report,
        progress: Progress,
        advance: Callable[[int], object] | None,
    ) -> None:
        """Nothing is looked at before the first manifest.

        Args:
            blocks: where the objects are; nothing is fetched.
            report: gets the counts and what is wrong.
            progress: the blocks that were found right, to which others are added.
            advance: called with the raw bytes of each block that was looked at.
        """
        self._store = blocks.store
        self._report = report
        self._progress = progress
        self._advance = advance
        self._blocks = blocks.passing_on()  # what each manifest asks for is looked at
        self._objects: set[str] = set()
        self._bad: set[str] = set()
        self._keys: set[str] = set()
        self._entries: dict[str, Entry] = {}
        """The entries of the manifest before: what is the same in this one was looked at."""
        self._skeleton: tuple[str, Block] | None = None
        """Its format and skeleton, if they belong to its tensors."""

    def manifest(self, blob: str, manifest: Manifest | ManifestError) -> None:
        """Look at what a manifest needs and at whether it can be rebuilt."""
        report = self._report
        report.manifests += 1
        if isinstance(manifest, ManifestError):
            report.findings.append(Finding("manifest", blob, manifest.message))
            return
        new = [one for one in manifest.entries if self._entries.get(one.tensor.name) is not one]
        jobs = self._jobs(blob, new)
        self._objects_of([manifest.skeleton, *(block for one in new for block in one.blocks)], jobs)
        try:
            pairs = ((job[3], job[4]) for job in jobs)
            check_work(Blocks(self._store), pairs, f"manifest {blob}", reading=True)
        except ManifestError as error:
            report.findings.append(Finding("manifest", blob, error.message))
            return
        self._keys.update(job[0] for job in jobs)
        report.blocks += len(jobs)
        self._look(jobs)
        if not self._stands_for_same(manifest, new):
            self._structure(blob, manifest)
        self._entries = manifest.by_name()

    def _stands_for_same(self, manifest: Manifest, new: Iterable[Entry]) -> bool:
        """Whether the manifest before was of a file with this very structure, and was right."""
        before = self._entries
        return (
            (manifest.format, manifest.skeleton) == self._skeleton
            and len(manifest.entries) == len(before)
            and all(
                (then := before.get(one.tensor.name)) is not None
                and (then.tensor, then.opaque) == (one.tensor, one.opaque)
                for one in new
            )
        )

    def _objects_of(self, blocks: Iterable[Block], jobs: Iterable[_Job]) -> None:
        """Look at the objects of some blocks, but for those that an interrupted check read."""
        refs = {ref.oid: ref for block in blocks for ref in block.objects()}
        new = {oid: ref for oid, ref in refs.items() if oid not in self._objects}
        self._objects.update(new)
        self._report.objects += len(new)
        self._report.bytes += sum(ref.size for ref in new.values())
        known = (job[4] for job in jobs if job[0] in self._progress.known)
        sound = {ref.oid for block in known for ref in block.objects()}
        wanted = [ref for oid, ref in new.items() if oid not in sound]
        self._bad |= _check_objects(self._blocks, wanted, self._report)

    def _jobs(self, blob: str, entries: Iterable[Entry]) -> list[_Job]:
        """The blocks of some entries that were not looked at yet."""
        found: dict[str, _Job] = {}
        for entry in entries:
            for spec, block in entry.parts():
                if block.chain and (key := _key(self._store, spec, block)) not in self._keys:
                    found[key] = key, blob, entry.tensor.name, spec, block
        return list(found.values())

    def _look(self, jobs: list[_Job]) -> None:
        """Rebuild these blocks, but for those that an interrupted check found right.

        Each that is right is noted at once. The others go into the report, but for those whose
        objects are in it already.
        """
        todo = [job for job in jobs if job[0] not in self._progress.known]
        self._report.resumed += len(jobs) - len(todo)

        whole = (job for job in todo if not self._is_bad(job))
        rebuilt = self._blocks.map(_rebuild, whole, lambda job: job[4].held)
        for job in todo:
            # One whose object is bad is named already, by the object.
            finding = None if self._is_bad(job) else next(rebuilt)
            right = finding is None and not self._is_bad(job)
            if finding is not None:
                self._report.findings.append(finding)
            if right:
                self._progress.add(job[0])
            if self._advance is not None:
                self._advance(job[4].nbytes)

    def _is_bad(self, job: _Job) -> bool:
        """Whether an object of a block is missing or damaged."""
        return any(ref.oid in self._bad for ref in job[4].objects())

    def _structure(self, blob: str, manifest: Manifest) -> None:
        """Rebuild the skeleton; it and the manifest must name the same tensors."""
        self._skeleton = None
        if any(ref.oid in self._bad for ref in manifest.skeleton.objects()):
            return
        try:
            # Only the skeleton is read here; the blocks have been.
            Smudger(manifest, Blocks(self._store))
            self._skeleton = manifest.format, manifest.skeleton
        except ThetaError as error:
            self._report.findings.append(Finding("block", blob, error.message))


def _key(store: Store, spec: BlockSpec, block: Block) -> str:
    """A block, its promise, and the state of the files that it is rebuilt from."""
    parts: list[object] = [spec.dtype.name, spec.shape, block.sha256]
    for ref in block.objects():
        found = store.state(ref.oid, ref.size)
        parts += [ref.oid, (found.st_mtime_ns, found.st_ino) if found else None]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _rebuild(blocks: Blocks, job: _Job) -> Finding | None:
    """What is wrong with a block whose objects are right."""
    _, blob, name, spec, block = job
    try:
        blocks.read(spec, block)
    except ThetaError as error:
        return Finding("block", blob, error.message, name)
    return None


def _look_at(blocks: Blocks, ref: UpdateRef) -> Finding | None:
    """What is wrong with an object."""
    try:
        blocks.store.verify(ref.oid, ref.size)
    except MissingObjectError as error:
        if blocks.store.has(ref.oid):
            return Finding("damaged", ref.oid, f"object {ref.oid} is not {ref.size} bytes long")
        return Finding("missing", ref.oid, error.message)
    except CorruptObjectError as error:
        return Finding("damaged", ref.oid, error.message)
    except OSError as error:
        return Finding("damaged", ref.oid, f"object {ref.oid}: {error.strerror or error}")
    return None


def _check_objects(blocks: Blocks, refs: list[UpdateRef], report: Report) -> set[str]:
    """Note objects that are missing or damaged; their ids."""
    answers = blocks.map(_look_at, refs, lambda ref: ref.size)
    found = [item for item in answers if item is not None]
    report.findings += found
    return {item.oid for item in found}


def repair(repository: Repository, report: Report, objects: dict[str, UpdateRef]) -> list[str]:
    """Fetch the objects that are missing or damaged; the ids of those that are right now.

    A damaged file is set aside in `theta/damaged`, never deleted, and put back where no remote has
    a whole one.

    Args:
        repository: the one that was checked.
        report: what the check found.
        objects: the objects of the repository by id.

    Raises:
        StoreError: the store cannot be written.
    """
    store = everything_here(repository)
    wanted = [objects[item.oid] for item in report.findings if item.kind in ("missing", "damaged")]
    aside: dict[str, Path] = {}
    try:
        for ref in wanted:
            path = store.path(ref.oid)
            if path.exists():
                aside[ref.oid] = store.root / "damaged" / ref.oid
                aside[ref.oid].parent.mkdir(parents=True, exist_ok=True)
                files.move(path, aside[ref.oid])
        try:
            transport.fetch(repository, wanted)
        except ThetaError:
            pass  # what could be had is in the store; the rest is told from what is not
        finally:
            for oid, path in aside.items():
                if not store.path(oid).exists():
                    files.move(path, store.path(oid))
    except OSError as error:
        raise StoreError(f"cannot repair {store.root}: {error.strerror or error}") from error
    fixed = []
    for ref in wanted:
        try:
            store.verify(ref.oid, ref.size)
        except (ThetaError, OSError):
            continue
        fixed.append(ref.oid)
    return fixed
