"""Merged values that are kept for a moment, so that they need not be computed twice.

A block that is stored as the recipe of its merge takes as long to rebuild as the merge took. Git
has the result written to the work tree as soon as all drivers are done, by another process. So the
driver leaves the bits in files beside the store, as many as fit into memory that nobody needs, and
the filter takes them, once. They are no part of the store, and believed in nothing: what does not
have the SHA-256 that the manifest promises is rebuilt. What nobody takes goes with the other
temporary files of the store.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from contextlib import suppress

import numpy as np

from git_theta_ext.core import files
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values, raw_bytes, values_dtype
from git_theta_ext.objects.memory import memory
from git_theta_ext.objects.store.store import Store

_SMALLEST_BYTES = 64 << 10
_SHARE = 4
"""At most a fourth of the memory that is free: the files are to be read before they are on disk."""
_STALE_SECONDS = 3600
_DISK_BYTES = 1 << 30
"""What is left free on the disk at least."""


class Kept:
    """The values that one process leaves to another; safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        """They lie beside this store."""
        self._folder = store.root / "tmp"
        self._lock = threading.Lock()
        self._room: int | None = None

    def keep(self, digest: str, values: Values) -> None:
        """Leave values, if there is room; `digest` is the SHA-256 of their bytes."""
        if values.nbytes < _SMALLEST_BYTES or not self._has_room(values.nbytes):
            return
        try:
            with files.new_file(self._folder / f"kept-{digest}", mode=0o600) as file:
                file.write(raw_bytes(values))
        except OSError:
            return  # they are left already, or cannot be

    def take(self, spec: BlockSpec, digest: str) -> Values | None:
        """The values of a block that were left, verified; a fresh writable array, or None."""
        if spec.nbytes < _SMALLEST_BYTES:
            return None
        path = self._folder / f"kept-{digest}"
        try:
            with files.own(path) as file:
                dtype = values_dtype(spec.dtype)
                found: Values = np.empty(spec.nbytes // dtype.itemsize, dtype)
                whole = file.readinto(raw_bytes(found)) == found.nbytes
        except OSError:
            return None
        files.remove_quietly(path)
        same = whole and hashlib.sha256(raw_bytes(found)).hexdigest() == digest
        return found if same else None

    def _left_before(self) -> int:
        """Bytes that others left a moment ago; what they left long ago is removed."""
        total = 0
        for path in self._folder.glob("kept-*"):
            with suppress(OSError):
                found = path.lstat()
                if found.st_mtime < time.time() - _STALE_SECONDS:
                    files.remove_quietly(path)
                else:
                    total += found.st_size
        return total

    def _has_room(self, nbytes: int) -> bool:
        with self._lock:
            if self._room is None:
                try:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    disk = shutil.disk_usage(self._folder).free - _DISK_BYTES
                    self._room = min((memory()[0] or 0) // _SHARE, disk) - self._left_before()
                except OSError:
                    self._room = 0
            if nbytes > self._room:
                return False
            self._room -= nbytes
            return True
