"""Which files are known to hold the bytes that their name promises, so that each is hashed once.

A file is known by its device, inode, size and times. Of these nobody but the system's
administrator can set the time of the last change (ctime), so a file that was written to, replaced
or truncated after it was hashed is another one here, whatever time its owner gave it.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from git_theta_ext.core import files

_RACY_NS = 2_000_000_000
"""A file changed again within this time of its last change may have the same times."""
_MAX_BYTES = 64 << 20
"""A memory of half a million objects; a longer one is begun anew."""
_FIELDS = 6
_FEW_LINES = 4096


class Verified:
    """Files that were verified, in this process and, with a path, in those before it."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` must be where only this user writes; nothing is read before it is needed."""
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, str] | None = None
        self._new: list[str] = []
        self._outdated: list[str] = []
        """What is told by a file most lines of which say what a later one says otherwise."""

    def knows(self, oid: str, found: os.stat_result) -> bool:
        """Whether a file with these properties was verified to be object `oid`."""
        with self._lock:
            return self._loaded().get(oid) == _identity(found)

    def note(self, oid: str, found: os.stat_result, *, lasting: bool = True) -> None:
        """Remember that a file holds object `oid`.

        Args:
            oid: the object.
            found: the file's properties, from before it was read or after it was written.
            lasting: nobody else can write to the file; else it is told to later processes only if
                it was old enough when it was read that a change since then shows in its times.
        """
        identity = _identity(found)
        with self._lock:
            self._loaded()[oid] = identity
            if lasting or time.time_ns() - found.st_ctime_ns > _RACY_NS:
                self._new.append(f"{oid} {identity}\n")

    def keep(self) -> None:
        """Tell later processes. A cache: what cannot be written is hashed again."""
        with self._lock:
            lines, self._new = self._new, []
        if not lines or self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._outdated:  # most lines are of objects of which a later one tells
                last = {line.partition(" ")[0]: line for line in (*self._outdated, *lines)}
                self._outdated = []
                files.replace_file(self._path, "".join(last.values()).encode("ascii"), mode=0o600)
                return
            with suppress(FileNotFoundError):
                if self._path.stat().st_size > _MAX_BYTES:
                    self._path.unlink()
            with files.appending(self._path, mode=0o600) as file:
                file.write("".join(lines).encode("ascii"))

    def _loaded(self) -> dict[str, str]:
        if self._known is None:
            self._known = {}
            if self._path is not None:
                with suppress(OSError, ValueError), files.own(self._path) as file:
                    lines = file.read().decode("ascii").splitlines()
                    for line in lines:
                        oid, _, identity = line.partition(" ")
                        if identity.count(" ") == _FIELDS - 2:
                            self._known[oid] = identity
                    if len(lines) > 2 * len(self._known) + _FEW_LINES:
                        told = self._known.items()
                        self._outdated = [f"{oid} {identity}\n" for oid, identity in told]
        return self._known


def _identity(found: os.stat_result) -> str:
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def only_ours(found: os.stat_result) -> bool:
    """Whether no other user can write to a file or folder, as far as its owner and mode tell.

    Windows has neither; there the folder of a user is that user's.
    """
    if not hasattr(os, "geteuid"):
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022
