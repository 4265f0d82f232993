"""Files and bytes as sources: random access that notices when a file changes."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from git_theta_ext.core.errors import ChangedWhileReadError, FormatError
from git_theta_ext.formats.base import Source


class Identity(NamedTuple):
    """What the file system says of a file; equal as long as nobody wrote to it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class FileSource:
    """A file that several threads may read at once.

    It is read, never mapped: a mapped file that someone truncates kills the process.
    """

    def __init__(self, path: Path) -> None:
        """Open a regular file.

        Raises:
            OSError: it is not there or cannot be read, or is no regular file: a pipe's reader
                would wait for ever.
        """
        self.path = path
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
        self._file = path.open("rb", buffering=0)
        self._identity = _identity(os.fstat(self._file.fileno()))
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Length in bytes when the file was opened."""
        return self._identity.size

    def identity(self) -> Identity:
        """Device, inode, size and times when the file was opened."""
        return self._identity

    def is_unchanged(self) -> bool:
        """Whether nobody has written to the file since it was opened."""
        return _identity(os.fstat(self._file.fileno())) == self._identity

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            FormatError: the range is not inside the file as it was opened.
            ChangedWhileReadError: the file has become shorter.
        """
        data = self._read_whole(offset, length)
        if data is not None:
            return data
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def _read_whole(self, offset: int, length: int) -> bytes | None:
        """The bytes by a single call, as they almost always come; else None."""
        check_range(offset, length, self.size)
        if not hasattr(os, "pread"):
            return None
        data = os.pread(self._file.fileno(), length, offset)
        return data if len(data) == length else None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`.

        Raises:
            FormatError, ChangedWhileReadError: see `read`.
        """
        check_range(offset, len(buffer), self.size)
        while len(buffer):
            count = self._read_some(offset, buffer)
            if not count:
                raise ChangedWhileReadError(
                    f"{self.path} became shorter while it was read: no byte at {offset}"
                )
            offset += count
            buffer = buffer[count:]

    def _read_some(self, offset: int, buffer: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [buffer], offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.readinto(buffer) or 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> FileSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_unchanged(path: Path, before: os.stat_result) -> None:
    """Check that a file is the one that it was, and that nobody has written to it since.

    Raises:
        ChangedWhileReadError: it is another one, somebody did, or it is gone.
    """
    try:
        now = os.stat(path)
    except OSError as error:
        raise ChangedWhileReadError(
            f"{path} vanished while it was read: {error.strerror}"
        ) from error
    if _identity(now) != _identity(before):
        raise ChangedWhileReadError(f"{path} was written to while it was read")


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        """`data` is not copied."""
        self._data = data

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            FormatError: the range is not inside the data.
        """
        check_range(offset, length, self.size)
        return self._data[offset : offset + length]


class PartSource:
    """A range of a source, as a source: one file within another."""

    def __init__(self, source: Source, start: int, stop: int) -> None:
        """The bytes from `start` to `stop` (not included)."""
        self._source, self._start, self._size = source, start, stop - start

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            FormatError: the range is not inside the part.
        """
        check_range(offset, length, self._size)
        return self._source.read(self._start + offset, length)


def check_range(offset: int, length: int, size: int) -> None:
    """Check that a range lies inside a file.

    Raises:
        FormatError: it does not.
    """
    if offset < 0 or length < 0 or offset + length > size:
        raise FormatError(f"{length} bytes at {offset} are not inside a file of {size} bytes")


def _identity(status: os.stat_result) -> Identity:
    return Identity(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )
