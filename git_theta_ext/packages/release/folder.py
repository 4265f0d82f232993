"""A folder that is made whole, or is not there."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git import outputs
from git_theta_ext.git.work_tree import WorkTree, is_link


@dataclass(frozen=True, slots=True)
class Written:
    """A file of the folder: its path there, with slashes, its length in bytes, and its SHA-256."""

    path: str
    size: int
    sha256: str


class Writer(Protocol):
    """Takes bytes, one piece after the other."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take the next bytes."""
        ...


class Sink:
    """Takes the bytes of a file one after the other, and hashes them on the way."""

    def __init__(self, file: Writer, report: Callable[[int], object] | None = None) -> None:
        """`file` is what they go on to; `report` is called with the number of bytes that did."""
        self._file, self._report = file, report
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write and hash; the number of bytes."""
        self._digest.update(data)
        self.size += len(data)
        self._file.write(data)
        if self._report is not None:
            self._report(len(data))
        return len(data)

    def tell(self) -> int:
        """Where the next byte goes."""
        return self.size

    def seek(self, offset: int) -> int:
        """Bytes that were hashed cannot be written over.

        Raises:
            OSError: always.
        """
        raise io.UnsupportedOperation(f"seek to {offset}")

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()


class Folder:
    """A folder that is being made; every file that is written is noted with its hash."""

    def __init__(self, place: Path, report: Callable[[int], object] | None = None) -> None:
        """`report` is called with the numbers of bytes, as they are written."""
        self._tree = WorkTree(place)
        self._report = report
        self.place = place
        self.written: list[Written] = []

    @contextmanager
    def new(self, path: str) -> Iterator[Sink]:
        """A new file at a path with slashes; folders on the way are made.

        Raises:
            StoreError: it cannot be written, or its name would leave the folder.
        """
        if any(one.path == path for one in self.written):
            raise StoreError(f"two files of the release would be called {printable(path)}")
        with self._tree.replacing(path) as file:
            sink = Sink(file, self._report)
            yield sink
        self.written.append(Written(path, sink.size, sink.sha256))

    def add(self, path: str, content: bytes) -> None:
        """A small file."""
        with self.new(path) as sink:
            sink.write(content)


@contextmanager
def whole(
    target: Path, *, force: bool, report: Callable[[int], object] | None = None
) -> Iterator[Folder]:
    """A folder beside its place that gets its name when the block ends, or goes if it fails.

    Args:
        target: its name; as the user typed it.
        force: replace a folder with something in it.
        report: see `Folder`.

    Raises:
        UsageError: something else is there.
        StoreError: it cannot be made, or not there; see `outputs.check_folder`.
    """
    outputs.check_folder(target)
    place = Path(os.path.abspath(target))
    _check_free(place, force=force, shown=str(target))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(files.temporary_name(str(place)))
        hidden.mkdir()
    except OSError as error:
        raise StoreError(f"cannot make {target}: {error.strerror or error}") from error
    try:
        yield Folder(hidden, report)
        _check_free(place, force=force, shown=str(target))
        _put(hidden, place)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _check_free(place: Path, *, force: bool, shown: str) -> None:
    if not os.path.lexists(place):
        return
    if is_link(place) or not place.is_dir():
        raise UsageError(f"{shown} is there, and is no folder")
    if any((place / name).exists() for name in (".git", "HEAD")) and any(place.iterdir()):
        raise UsageError(f"{shown} is a repository: it is not replaced", hint="name another folder")
    if not force and any(place.iterdir()):
        raise UsageError(f"{shown} is not empty", hint="replace it with --force")


def _put(hidden: Path, place: Path) -> None:
    """Give the new folder its name; the old one goes, and comes back if that fails."""
    if not place.exists():
        files.move(hidden, place)
        return
    old = Path(files.temporary_name(str(place)))
    files.move(place, old)
    try:
        files.move(hidden, place)
    except OSError:
        files.move(old, place)
        raise
    shutil.rmtree(old, ignore_errors=True)
