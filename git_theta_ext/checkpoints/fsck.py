"""The check of a whole repository: every manifest that anything names, and every object of these.

A manifest counts if a ref, a reflog (so also an older stash), an index or HEAD of any work tree,
or a merge under way names it. An object is right when its bytes have the hash that names it, and a
block when its chain decodes to the bytes that the manifest promises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
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
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Block, Manifest, UpdateRef
from git_theta_ext.objects import reachable
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import check_work
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
    """What a check saw: how many manifests, objects, blocks; bytes of objects; what is wrong."""

    manifests: int = 0
    objects: int = 0
    blocks: int = 0
    bytes: int = 0
    resumed: int = 0
    findings: list[Finding] = field(default_factory=list)


class Progress:
    """Which blocks an interrupted check had found right: one key a line in `theta/fsck/checked`."""

    def __init__(self, folder: Path, *, resume: bool) -> None:
        """Start afresh, or with what the last run left.

        Raises:
            StoreError: the folder cannot be written.
        """
        self._path = folder / "fsck" / "checked"
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
        """Note a block; on disk at once, so that an interrupted run loses nothing."""
        self._file.write(f"{key}\n".encode("ascii"))
        self._file.flush()

    def close(self, *, finished: bool) -> None:
        """Close the file; a finished check leaves none."""
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
) -> Report:
    """Check everything that the repository's manifests, or those of some revisions, need.

    Args:
        repository: any, bare ones too. Nothing is fetched and nothing changed.
        revisions: full object ids; none for all.
        resume: skip blocks that an interrupted check found right, if their files are as then.
        advance: called with the raw bytes of blocks done since the last call.

    Raises:
        StoreError: the state of the check cannot be written, or an object cannot be read.
    """
    store = everything_here(repository)
    report = Report()
    needed: dict[str, UpdateRef] = {}
    jobs: dict[str, tuple[str, str, BlockSpec, Block]] = {}
    whole: list[tuple[str, Manifest]] = []
    for blob, manifest in reachable.reachable_manifests(repository, revisions):
        report.manifests += 1
        if isinstance(manifest, ManifestError):
            report.findings.append(Finding("manifest", blob, manifest.message))
            continue
        needed.update((ref.oid, ref) for ref in manifest.objects())
        fresh: dict[str, tuple[str, str, BlockSpec, Block]] = {}
        for entry in manifest.entries:
            for spec, block in entry.parts():
                if block.chain and (key := _key(store, spec, block)) not in jobs:
                    fresh[key] = blob, entry.tensor.name, spec, block
        try:
            pairs = ((job[2], job[3]) for job in fresh.values())
            check_work(Blocks(store), pairs, f"manifest {blob}", reading=True)
        except ManifestError as error:
            report.findings.append(Finding("manifest", blob, error.message))
            continue
        whole.append((blob, manifest))
        jobs.update(fresh)
    report.objects, report.blocks = len(needed), len(jobs)
    report.bytes = sum(ref.size for ref in needed.values())
    progress = Progress(store.root, resume=resume)
    finished = False
    try:
        known = {key: job for key, job in jobs.items() if key in progress.known}
        report.resumed = len(known)
        sound = {ref.oid for job in known.values() for ref in job[3].chain}
        bad = _check_objects(store, [r for r in needed.values() if r.oid not in sound], report)
        todo = [(key, job) for key, job in jobs.items() if key not in known]
        _check_blocks(store, todo, bad, report, progress=progress, advance=advance)
        _check_structures(store, whole, bad, report)
        finished = True
    finally:
        progress.close(finished=finished)
    return report


def _key(store: Store, spec: BlockSpec, block: Block) -> str:
    """A block, its promise, and the state of the files that it is rebuilt from."""
    parts: list[object] = [spec.dtype.name, spec.shape, block.sha256]
    for ref in block.chain:
        path = store.find(ref.oid, ref.size)
        try:
            found = path.stat() if path else None
        except OSError:
            found = None
        parts += [ref.oid, (found.st_mtime_ns, found.st_ino) if found else None]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _check_objects(store: Store, refs: list[UpdateRef], report: Report) -> set[str]:
    """Note objects that are missing or damaged; their ids."""

    def look(ref: UpdateRef) -> Finding | None:
        try:
            if store.find(ref.oid) is not None and not store.has(ref.oid, ref.size):
                return Finding("damaged", ref.oid, f"object {ref.oid} is not {ref.size} bytes long")
            store.verify(ref.oid, ref.size)
        except MissingObjectError as error:
            return Finding("missing", ref.oid, error.message)
        except CorruptObjectError as error:
            return Finding("damaged", ref.oid, error.message)
        except OSError as error:
            return Finding("damaged", ref.oid, f"object {ref.oid}: {error.strerror or error}")
        return None

    found = [item for item in ordered_map(look, refs, lambda ref: ref.size) if item is not None]
    report.findings += found
    return {item.oid for item in found}


def _check_blocks(
    store: Store,
    jobs: list[tuple[str, tuple[str, str, BlockSpec, Block]]],
    bad: set[str],
    report: Report,
    *,
    progress: Progress,
    advance: Callable[[int], object] | None,
) -> None:
    blocks = Blocks(store).passing_on()  # what each manifest asks for has been looked at

    def look(item: tuple[str, tuple[str, str, BlockSpec, Block]]) -> tuple[str, Finding | None]:
        key, (blob, name, spec, block) = item
        if any(ref.oid in bad for ref in block.chain):
            return "", None  # named already, by the object
        try:
            blocks.read(spec, block)
        except ThetaError as error:
            return "", Finding("block", blob, error.message, name)
        return key, None

    sizes = [job[3].nbytes for _, job in jobs]
    done = ordered_map(look, jobs, lambda item: item[1][3].nbytes)
    for size, (key, finding) in zip(sizes, done, strict=True):
        if finding is not None:
            report.findings.append(finding)
        if key:
            progress.add(key)
        if advance is not None:
            advance(size)


def _check_structures(
    store: Store, whole: list[tuple[str, Manifest]], bad: set[str], report: Report
) -> None:
    """Rebuild each skeleton; it and its manifest must name the same tensors."""
    for blob, manifest in whole:
        if any(ref.oid in bad for ref in manifest.skeleton.chain):
            continue
        try:
            # Only the skeleton is read here; the blocks have been.
            Smudger(manifest, Blocks(store))
        except ThetaError as error:
            report.findings.append(Finding("block", blob, error.message))


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
