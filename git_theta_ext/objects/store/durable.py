"""New files that are whole wherever they have their name, also after a loss of power.

A file gets its name only after its bytes are on disk, and `settle` returns only after the names are
there, too. Syncing each file and each folder takes two waits for the disk a file. Where the system
can flush a whole file system (`syncfs`), files are therefore gathered: written under temporary
names, flushed together, renamed together, and then the names are flushed together.

`syncfs` is trusted only where it is known to flush to the disk, and from the version of Linux on
that reports there what could not be written. Everywhere else, and where few files are new, each
is synced by itself.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

from git_theta_ext.core import files

_FEW_FILES = 4
_FEW_FOLDERS = 11
"""Up to here files and folders are synced each by itself, for a flush of the file system waits for
whatever other programs have written as well."""

_MOST_FILES = 4096
_MOST_BYTES = 512 << 20
"""More than this is not gathered: it is what a killed process leaves behind and has to do again."""

_STATFS_BYTES = 512
"""More than what any architecture's statfs has."""

_FLUSHED = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0xF2F52010: "f2fs",
    0x01021994: "tmpfs",
}
"""File systems whose `syncfs` writes all data and names, and reports what failed, by the number
that statfs gives them. Of others this is not known, or known to be otherwise: the call does not
reach the program behind a file system in user space, and an overlay does not pass on all errors."""

_REPORTING = (5, 8)
"""The Linux from which on `syncfs` fails if anything that was written since its descriptor was
opened did not reach the disk."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A file that is written and has only a temporary name yet."""

    temporary: str
    size: int


class Durable:
    """Writes files below a folder, one by one or gathered; safe to use from several threads."""

    def __init__(
        self,
        folder: str,
        above: Callable[[str], Iterable[str]],
        make: Callable[[str], object] | None = None,
        prefix: str = "",
    ) -> None:
        """Nothing is created before the first file.

        Args:
            folder: for temporary names; on the file system of the files, and only for this.
            above: the folders whose entries the name of a file needs, all of which may be new.
            make: makes a folder, if it is not there, right before a file gets a name in it; may
                refuse to.
            prefix: what temporary names begin with.
        """
        self._folder = folder
        self._above = above
        self._prefix = prefix
        self._make = make or make_folder
        self._lock = threading.Lock()
        self._settling = threading.RLock()
        self._waiting: dict[str, _Waiting] = {}
        self._bytes = 0
        self._folders: set[str] = set()
        self._named: set[str] = set()
        """Folders whose names, in the folders above them, were flushed by this process."""
        self._depth = 0
        self._tried = False
        self._whole: int | None = None
        """A descriptor of the file system while files are gathered. It is opened before anything
        is written, for `syncfs` reports no failures from before that."""
        self._failure: Exception | None = None

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Files that are written inside may wait for `settle`, or the end, to get their names.

        Where an exception ends the block, whole files get their names all the same, if they can:
        whoever tries again finds them.
        """
        with self._lock:
            self._depth += 1
        try:
            yield
            self.settle(names=False)
        except BaseException:
            with suppress(Exception):
                self.settle(names=False)
            raise
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._settling, self._lock:
            self._depth -= 1
            if self._depth == 0:
                whole, self._whole, self._tried = self._whole, None, False
                self._failure = None
                for one in self._waiting.values():  # written after a failure
                    files.remove_quietly(one.temporary)
                self._waiting.clear()
                self._bytes = 0
                if whole is not None:
                    os.close(whole)

    def waiting(self, target: str) -> tuple[str, int] | None:
        """Where a file is that has no name yet, and its size."""
        one = self._waiting.get(target)
        return None if one is None else (one.temporary, one.size)

    @contextmanager
    def writing(
        self, target: str, *, mode: int = 0o666, kept: int | None = None
    ) -> Iterator[BinaryIO]:
        """A new file that gets the name `target`, and vanishes if the block fails.

        Arguments and errors as of `files.replacing`.
        """
        gathers, temporary = self._gathers(), self._temporary()
        if gathers:
            with files.new_file(temporary, mode=mode, kept=kept) as file:
                yield file
                size = file.tell()
            self._wait(target, temporary, size)
            return
        with files.replacing(
            target, mode=mode, kept=kept, durable=True, temporary=temporary
        ) as file:
            yield file
            self._make(os.path.dirname(target))
        self.need(self._above(target))

    def write(
        self,
        target: str,
        pieces: Iterable[memoryview],
        *,
        mode: int = 0o666,
        kept: int | None = None,
    ) -> None:
        """As `writing`, of bytes that are at hand.

        Args:
            target: the file's name.
            pieces: its bytes, in flat views of one byte an item, one after the other.
            mode: the permissions of the new file, of which the umask takes some away.
            kept: permissions to have exactly instead; see `files.permissions`.

        Raises:
            OSError: it cannot be written.
        """
        if self._gathers():
            temporary = self._temporary()
            size = files.write_new(temporary, pieces, mode=mode, kept=kept)
            self._wait(target, temporary, size)
            return
        with self.writing(target, mode=mode, kept=kept) as file:
            for piece in pieces:
                file.write(piece)

    def take(self, source: str, target: str) -> None:
        """Have a file that is there, and that nobody else writes to, get the name `target`.

        Raises:
            OSError: it cannot be moved, or is a link; it is where it was.
        """
        if self._gathers():
            size, temporary = os.lstat(source).st_size, self._temporary()
            files.move(source, temporary)
            self._wait(target, temporary, size)
            return
        files.sync_file(source)
        self._make(os.path.dirname(target))
        files.move(source, target)
        self.need(self._above(target))

    def need(self, folders: Iterable[str]) -> None:
        """Have `settle` flush the entries of further folders, each in the next, as `above` gives.

        Above one whose own name was flushed there is nothing new.
        """
        with self._lock:
            for folder in folders:
                self._folders.add(folder)
                if folder in self._named:
                    return

    def settle(self, *, names: bool = True) -> None:
        """Give all files their names and, unless `names` is false, have the names on disk, too.

        Raises:
            OSError: the disk did not take something. What has no name then never gets one; and as
                long as files are gathered, further calls fail as well: these may be their files.
        """
        with self._settling:
            if self._failure is not None:
                raise self._failure
            with self._lock:
                waiting = dict(self._waiting)
            try:
                self._flush_bytes(waiting)
                for target, one in waiting.items():
                    self._make(os.path.dirname(target))
                    files.move(one.temporary, target)
                    self._forget(target)
                    self.need(self._above(target))
                if names:
                    self._flush_names()
            except BaseException as error:
                self._give_up(waiting, error)
                raise

    def _temporary(self) -> str:
        return f"{self._folder}{os.sep}{self._prefix}{os.getpid()}-{secrets.token_hex(8)}"

    def _gathers(self) -> bool:
        """Whether files wait now. The folder for temporary names is there afterwards."""
        with self._lock:
            if self._depth == 0:
                self._make(self._folder)
                return False
            if not self._tried:
                self._make(self._folder)
                self._whole, self._tried = _file_system(self._folder), True
            return self._whole is not None

    def _wait(self, target: str, temporary: str, size: int) -> None:
        with self._lock:
            twice = target in self._waiting
            if not twice:
                self._waiting[target] = _Waiting(temporary, size)
                self._bytes += size
            full = len(self._waiting) >= _MOST_FILES or self._bytes >= _MOST_BYTES
        if twice:  # two threads wrote the same
            files.remove_quietly(temporary)
        elif full:
            self.settle(names=False)

    def _forget(self, target: str) -> None:
        with self._lock:
            one = self._waiting.pop(target, None)
            self._bytes -= 0 if one is None else one.size

    def _flush_bytes(self, waiting: dict[str, _Waiting]) -> None:
        if len(waiting) > _FEW_FILES and self._whole is not None:
            _flush(self._whole)
            return
        for one in waiting.values():
            files.sync_file(one.temporary)

    def _flush_names(self) -> None:
        with self._lock:
            folders, self._folders = self._folders, set()
        if len(folders) <= _FEW_FOLDERS or not self._flush_whole():
            files.sync_folders(folders)
        with self._lock:
            self._named.update(one for one in folders if os.path.dirname(one) in folders)

    def _flush_whole(self) -> bool:
        """Flush the whole file system, where that can be relied on."""
        whole = self._whole if self._whole is not None else _file_system(self._folder)
        if whole is None:
            return False
        try:
            _flush(whole)
        finally:
            if whole != self._whole:
                os.close(whole)
        return True

    def _give_up(self, waiting: dict[str, _Waiting], error: BaseException) -> None:
        if self._depth:
            interrupted = OSError(errno.EINTR, "interrupted")
            self._failure = error if isinstance(error, Exception) else interrupted
        for target, one in waiting.items():
            if target in self._waiting:
                files.remove_quietly(one.temporary)
                self._forget(target)


def make_folder(folder: str) -> None:
    """Make a folder, and those above it, if it is not there."""
    with suppress(FileExistsError):
        try:
            os.mkdir(folder)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)


def _file_system(folder: str) -> int | None:
    """A descriptor to flush the file system of a folder with, where that can be relied on."""
    libc = _libc()
    if libc is None:
        return None
    try:
        descriptor = files.folder_to_sync(folder)
    except OSError:
        return None
    if _kind(libc, descriptor) in _FLUSHED:
        return descriptor
    os.close(descriptor)
    return None


def _kind(libc: ctypes.CDLL, descriptor: int) -> int | None:
    """The number of a file system's kind: the first field of what fstatfs answers."""
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if libc.fstatfs(descriptor, answer):
        return None
    width = 4 if sys.byteorder == "little" else ctypes.sizeof(ctypes.c_long)
    return int.from_bytes(answer.raw[:width], sys.byteorder)


def _flush(descriptor: int) -> None:
    """Have everything on disk that was written to a file system.

    Raises:
        OSError: something of it did not get there since the descriptor was opened.
    """
    libc = _libc()
    if libc is None or libc.syncfs(descriptor):
        number = ctypes.get_errno() or errno.EIO
        raise OSError(number, os.strerror(number))
    # ext2 leaves what it has written in the memory of the device; a sync of a folder does not.
    os.fsync(descriptor)


@functools.cache
def _libc() -> ctypes.CDLL | None:
    """The C library of a Linux whose `syncfs` says what failed."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    if sys.platform != "linux" or not found or (int(found[1]), int(found[2])) < _REPORTING:
        return None
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syncfs.argtypes = [ctypes.c_int]
        libc.fstatfs.argtypes = [ctypes.c_int, ctypes.c_void_p]
    except (AttributeError, OSError):
        return None
    return libc
