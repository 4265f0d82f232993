"""What was written into a project's folder, so that it can be told from what somebody changed.

It lies in `.theta-sync` beside `models.toml`, on this machine alone (the folder ignores itself).
It is a help and no authority: `theta.lock` says what is to be there, and this who put it there.
"""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import StoreError
from git_theta_ext.core.text import printable
from git_theta_ext.git.work_tree import WorkTree, parts_of
from git_theta_ext.objects.store.store import sha256_of
from git_theta_ext.packages.locking.requirements import STATE

WRITTEN = f"{STATE}/written.json"
_VERSION = 1
_RACY_NS = 2_000_000_000
"""A file that changed so shortly before it was read may change again without its times telling."""

Times = tuple[int, ...]
"""Size, inode, and times of change, of content and of anything else, in ns."""


@dataclass(slots=True)
class _Row:
    """What was written, and what is about to be: whoever is killed in between leaves either."""

    sha256: str
    times: Times | None = None
    coming: str | None = None


Key = tuple[str, str]
"""The folder of a model, and a path in it, both with slashes."""


@dataclass(slots=True)
class State:
    """The files that were written, by the folders of their models, and their paths in these.

    `checked` is what was found right: `base:NAME` of an adapter, `signature:NAME` of a model.
    """

    folder: Path
    rows: dict[Key, _Row] = field(default_factory=dict)
    checked: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> State:
        """That of a folder; empty where there is none, or one that is not understood."""
        state = cls(folder)
        tree = WorkTree(folder)
        with suppress(OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError,
                      StoreError):  # fmt: skip
            if not tree.has_file(WRITTEN):
                return state
            with files.own(folder / WRITTEN) as file:
                state._take(json.loads(file.read(limits.LOCK_BYTES)))
        return state

    def _take(self, found: Any) -> None:
        """Take over what is well formed: paths inside the folder, and their hashes."""
        if found["version"] != _VERSION:
            return
        for into, rows in found["files"].items():
            for path, (sha256, times, coming) in rows.items():
                parts_of(f"{into}/{path}")
                taken = None if times is None else tuple(int(one) for one in times)
                self.rows[into, path] = _Row(str(sha256), taken, coming and str(coming))
        self.checked = {str(name): str(value) for name, value in found["checked"].items()}

    def flush(self) -> None:
        """Write it down.

        Raises:
            StoreError: it cannot be written.
        """
        rows: dict[str, dict[str, Any]] = {}
        for (into, path), row in sorted(self.rows.items()):
            rows.setdefault(into, {})[path] = [row.sha256, row.times, row.coming]
        record = {"version": _VERSION, "files": rows, "checked": self.checked}
        WorkTree(self.folder).replace(WRITTEN, json.dumps(record).encode("ascii"))

    def is_ours(self, key: Key, sha256: str) -> bool:
        """Whether it is what was written to a place."""
        row = self.rows.get(key)
        return row is not None and sha256 in (row.sha256, row.coming)

    def expect(self, key: Key, sha256: str) -> None:
        """A file is about to be written; to be flushed before it is."""
        row = self.rows.setdefault(key, _Row(sha256))
        row.coming = sha256

    def note(self, key: Key, sha256: str) -> None:
        """A file was written here, or is as if it had been."""
        row = self.rows.get(key)
        if row is None or (row.sha256, row.coming) != (sha256, None):
            self.rows[key] = _Row(sha256)

    def found(self, key: Key) -> str | None:
        """The SHA-256 of what is at a place now; None: no regular file, reached without a link.

        A file whose size, inode and times are as they were when it was hashed is not read again.

        Raises:
            StoreError: it cannot be read.
        """
        top = self.folder / key[0]
        place = top / key[1]
        try:
            before = _times(place) if WorkTree(top).has_file(key[1]) else None
            if before is None:
                return None
            row = self.rows.get(key)
            if row is not None and row.times == before:
                return row.sha256
            started = time.time_ns()
            sha256 = sha256_of(place)
            after = _times(place)
        except OSError as error:
            raise StoreError(f"cannot read {printable(str(place))}: {error.strerror}") from error
        settled = max(before[2:]) + _RACY_NS < started and before == after
        if row is not None and row.sha256 == sha256:
            row.times = before if settled else None
        return sha256


def _times(path: Path) -> Times | None:
    """What tells whether a file was changed; None where it is no regular file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
