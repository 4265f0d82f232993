"""A lock that writers of a store share and that `git theta prune` has alone.

It is the operating system's lock on a file, so it ends with the process that holds it, however
that ends. Where the system has no such locks (some network file systems) writers go on without,
and pruning is refused.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from git_theta_ext.errors import StoreError

_PLACES = 1 << 20
"""Windows locks single bytes: writers take one of these by chance, pruning takes all of them."""


class StoreLock:
    """The lock of the store at `root`; one object for each process and store."""

    def __init__(self, root: Path) -> None:
        """Nothing is opened before a lock is asked for."""
        self._path = root / "lock"
        self._descriptor: int | None = None

    def share(self) -> None:
        """Keep pruning away for as long as this process lives; waits while pruning is under way.

        Does nothing where there is no store yet.
        """
        if self._descriptor is not None:
            return
        try:
            descriptor = self._open()
            _lock_shared(descriptor)
        except OSError:
            return  # no locks here: pruning cannot be under way, for it is refused
        self._descriptor = descriptor

    def exclude(self) -> None:
        """Keep writers away until `release`.

        Raises:
            StoreError: one is at work, there can be no locks, or the file cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = self._open()
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror or error}") from error
        try:
            _lock_alone(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise StoreError(
                f"another command is writing to {self._path.parent}",
                hint="wait until it has ended, then try again",
            ) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; does nothing if nothing is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        # Others of a shared repository lock the same file, so the umask alone decides.
        return os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOINHERIT", 0), 0o666)


if sys.platform == "win32":
    import msvcrt

    def _lock_shared(descriptor: int) -> None:
        os.lseek(descriptor, secrets.randbelow(_PLACES), os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)

    def _lock_alone(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, _PLACES)

else:
    import fcntl

    def _lock_shared(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    def _lock_alone(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
