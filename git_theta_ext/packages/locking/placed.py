"""The files of one model in its folder: what is as it should be, and what is put there.

A file is made in a folder of our own first, hashed, and moved to its place last. So what is to be
there is known before anything is replaced, and a file that somebody changed stays.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from git_theta_ext.core.errors import CorruptObjectError, StoreError
from git_theta_ext.core.text import printable
from git_theta_ext.git import outputs
from git_theta_ext.git.work_tree import WorkTree, is_link
from git_theta_ext.objects.store.store import sha256_of
from git_theta_ext.packages.fetched import Package, Progress
from git_theta_ext.packages.files import PackageFile
from git_theta_ext.packages.getting import Watch
from git_theta_ext.packages.locking.lock_file import ANOTHER_LOCK, LockedFile, LockedModel
from git_theta_ext.packages.locking.project import INCOMING, Project
from git_theta_ext.packages.locking.state import Key, State
from git_theta_ext.packages.placing import amount, make_folder, place


def unwatched(label: str, total: int) -> AbstractContextManager[Progress]:
    """Nobody looks."""
    return nullcontext(lambda count: None)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that is not as it should be, and was left alone; its path from the folder, and why."""

    path: str
    why: str


@dataclass(slots=True)
class Report:
    """What became of the files: written, removed, kept; paths from the folder of `models.toml`."""

    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)


class Placed:
    """The files of a project, compared with what is locked, and made so."""

    def __init__(self, project: Project, *, force: bool, watch: Watch = unwatched) -> None:
        """With `force` what somebody changed is replaced, too."""
        self._project, self._force, self._watch = project, force, watch
        self._state: State = project.state
        self.report = Report()

    def lacking(self, row: LockedModel) -> list[LockedFile]:
        """The files of a model that have to be written; those that are to be kept are reported.

        Raises:
            StoreError: the folder lies behind a link of a work tree, or cannot be read.
        """
        outputs.check_folder(self._project.folder / row.into)
        return [file for file in row.files if self._must_be_written(row.into, file)]

    def _must_be_written(self, into: str, file: LockedFile) -> bool:
        """Whether a file is not as it should be, and may be replaced."""
        key = (into, file.path)
        found = self._state.found(key)
        if found == file.sha256:
            self._state.note(key, found)
            return False
        place = self._project.folder / into / file.path
        if found is None and os.path.lexists(place):
            why = "is a folder" if place.is_dir() and not is_link(place) else "is a link"
            return self._may_replace(key, why, self._force and why == "is a link")
        if found is not None and not self._state.is_ours(key, found):
            return self._may_replace(key, "was changed by hand", self._force)
        return True

    def _may_replace(self, key: Key, why: str, allowed: bool) -> bool:
        if not allowed:
            self.report.kept.append(Kept("/".join(key), why))
        return allowed

    def bring(
        self,
        package: Package,
        files: Sequence[PackageFile],
        row: LockedModel,
        expected: Collection[LockedFile] | None,
    ) -> list[LockedFile]:
        """Write files of a model.

        Args:
            package: where they are from.
            files: all of the model.
            row: what is locked of it; without files, where it was not written before.
            expected: those that are to be written, of a row with files; None: all, whatever they
                are.

        Returns:
            Those that were made, each with its hash.

        Raises:
            CorruptObjectError: what was made is not what is locked, or not what was made.
            StoreError: the disk is full, or the place is refused.
        """
        wanted = None if expected is None else {file.path: file for file in expected}
        made: list[LockedFile] = []
        make_folder(self._project.folder / row.into)
        batches = list(_batches(files, wanted, bool(row.tensors)))
        chosen = [file for each in batches for file in each]
        total = 0 if row.tensors else amount(package, chosen)
        with (
            _incoming(self._project.folder, row.name) as incoming,
            self._watch(f"{row.name} {row.label}", total) as progress,
        ):
            for batch in batches:
                blobs = {file.place: file.blob for file in batch} if not row.tensors else {}
                written = place(package, batch, incoming, tensors=row.tensors, progress=progress)
                new = [
                    LockedFile(one.path, blobs.get(one.path), one.size, one.sha256)
                    for one in written
                ]
                made += new
                self._settle(incoming, row, new, wanted)
        lost = [] if wanted is None else sorted(set(wanted) - {file.path for file in made})
        if lost:
            raise CorruptObjectError(
                f"theta.lock names {printable(lost[0])} of {row.name}, which commit "
                f"{row.commit[:10]} does not have",
                hint=ANOTHER_LOCK,
            )
        return made

    def _settle(
        self,
        incoming: Path,
        row: LockedModel,
        made: Iterable[LockedFile],
        wanted: Mapping[str, LockedFile] | None,
    ) -> None:
        """Move files that were made to their places, and look at them there once more."""
        coming = []
        for file in made:
            if wanted is None:
                if self._must_be_written(row.into, file):
                    coming.append(file)
            elif file.path in wanted:
                _compare(row, wanted[file.path], file)
                coming.append(file)
        for file in coming:
            self._state.expect((row.into, file.path), file.sha256)
        if coming:
            self._state.flush()
        for file in coming:
            self._move(incoming, row.into, file)

    def _move(self, incoming: Path, into: str, file: LockedFile) -> None:
        top = self._project.folder / into
        WorkTree(top).take(incoming / file.path, file.path)
        found = sha256_of(top / file.path)
        if found != file.sha256:
            shown = printable(f"{into}/{file.path}")
            raise CorruptObjectError(
                f"{shown} is not what was written: its SHA-256 is {found}, and was {file.sha256}",
                hint="is the disk sound, and does nobody else write there? then: git theta sync",
            )
        self._state.note((into, file.path), file.sha256)
        self.report.written.append(f"{into}/{file.path}")

    def remove_others(self, rows: Mapping[str, LockedModel]) -> None:
        """Remove what was written for what is not locked any more, if it is as it was written.

        Raises:
            StoreError: it cannot be removed.
        """
        named = {(row.into, file.path) for row in rows.values() for file in row.files}
        for key in sorted(set(self._state.rows) - named):
            outputs.check_folder(self._project.folder / key[0])
            found = self._state.found(key)
            changed = found is not None and not self._state.is_ours(key, found)
            why = "is not locked any more, but was changed by hand"
            if changed and not self._may_replace(key, why, self._force):
                continue
            if found is not None:
                WorkTree(self._project.folder / key[0]).remove(key[1])
                self.report.removed.append("/".join(key))
            del self._state.rows[key]
            _remove_empty(self._project.folder, "/".join(key))


def _compare(row: LockedModel, locked: LockedFile, made: LockedFile) -> None:
    """Refuse a file that is not the one that is locked."""
    if locked != made:
        shown = printable(f"{row.into}/{made.path}")
        said = f"has the SHA-256 {made.sha256}, and theta.lock says {locked.sha256}"
        if locked.sha256 == made.sha256:
            said = (
                f"has {made.size} bytes and is of blob {made.blob}, and theta.lock says otherwise"
            )
        raise CorruptObjectError(f"{shown} {said}", hint=ANOTHER_LOCK)


def _batches(
    files: Sequence[PackageFile], wanted: Mapping[str, object] | None, tensors: bool
) -> Iterator[list[PackageFile]]:
    """Files that are made together: what is small at once, what is large one by one."""
    if tensors:
        yield list(files)
        return
    chosen = [file for file in files if wanted is None or file.place in wanted]
    if small := [file for file in chosen if file.kind == "raw"]:
        yield small
    yield from ([file] for file in chosen if file.kind != "raw")


class _incoming:
    """A folder of our own on the way, which is empty before and gone afterwards."""

    def __init__(self, folder: Path, name: str) -> None:
        self._place = folder / INCOMING / name

    def __enter__(self) -> Path:
        try:
            self._place.mkdir(parents=True)
        except OSError as error:
            where = printable(str(self._place))
            raise StoreError(f"cannot make {where}: {error.strerror}") from error
        return self._place

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            shutil.rmtree(self._place.parent)


def _remove_empty(folder: Path, path: str) -> None:
    """Remove the folders that a file was in, as far as they are empty now."""
    with suppress(OSError):
        for parent in Path(path).parents[:-1]:
            (folder / parent).rmdir()
