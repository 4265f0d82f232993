"""Locks between processes, of the operating system's own kind: many may share one, or one owns it.

Whoever adds to a store shares its lock, so any number of writers work at once; whoever removes from
it owns the lock alone. The system lets go of a lock when its process ends, in whatever way, so
a killed process never blocks another one. The lock's file is empty and stays.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError, ThetaError

_POLL_SECONDS = 0.05
_SLOTS = 1024
"""Windows only has locks for one owner: who shares takes one byte of these, who owns takes all."""
_SHARERS = 256
"""How many of them are tried, for each that a process shares already is one that it cannot have."""

_BUSY = {errno.EACCES, errno.EAGAIN, getattr(errno, "EDEADLK", errno.EAGAIN)}


class Busy(Exception):
    """Another process holds the lock, and went on holding it for as long as was waited."""


class Lock:
    """A lock that this process holds until `release`, or until it ends."""

    def __init__(self, path: Path, *, alone: bool, timeout: float | None = None) -> None:
        """Take the lock whose file is `path`, made if need be.

        Args:
            path: the lock's file; its folder must be there.
            alone: own the lock; else share it.
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            Busy: it was not to be had in that time.
            OSError: the file cannot be opened, or the file system knows no locks.
        """
        self._descriptor: int | None = None
        descriptor = files.lock_file(path)
        limit = None if timeout is None else time.monotonic() + timeout
        try:
            while not _try(descriptor, alone):
                if limit is not None and time.monotonic() >= limit:
                    raise Busy
                time.sleep(_POLL_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of the lock; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def release_for_all(self) -> None:
        """As `release`, also for processes that this one has forked: they have the lock with it.

        Not for those to call, which would take it away from this one.
        """
        if self._descriptor is not None:
            _unlock(self._descriptor)
        self.release()

    def __del__(self) -> None:
        """A store that nobody uses any more shares its lock no longer."""
        self.release()


@contextmanager
def holding(
    path: Path, busy: ThetaError, *, alone: bool, timeout: float | None = None
) -> Iterator[None]:
    """Hold a lock meanwhile.

    Args:
        path, alone, timeout: as for `Lock`.
        busy: what is raised where it was not to be had in that time.

    Raises:
        StoreError: there can be no lock here.
    """
    try:
        lock = Lock(path, alone=alone, timeout=timeout)
    except Busy:
        raise busy from None
    except OSError as error:
        raise StoreError(f"cannot lock {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


if sys.platform == "win32":
    import msvcrt

    def _try(descriptor: int, alone: bool) -> bool:
        for attempt in range(1 if alone else _SHARERS):
            slot = 0 if alone else (os.getpid() * 31 + attempt * 97) % _SLOTS
            os.lseek(descriptor, slot, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, _SLOTS if alone else 1)
                return True
            except OSError as error:
                if error.errno not in _BUSY:
                    raise
        return False

    def _unlock(descriptor: int) -> None:
        """Nothing is to be done: here a lock is one process's."""

else:
    import fcntl

    def _unlock(descriptor: int) -> None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _try(descriptor: int, alone: bool) -> bool:
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            return False
        return True
