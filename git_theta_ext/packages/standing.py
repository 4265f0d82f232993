"""What a folder has of a package: which files are as they were written, which somebody changed.

For each folder and each thing that was got into it, the cache remembers what was written: from
what, and how the system knows the file since. So a second get looks at no byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from git_theta_ext.core import files
from git_theta_ext.packages.values import Written

_TICK_NS = 20_000_000
"""The system's clock for times of files moves on at least this often. A file that is changed within
one tick of being written could not be told from one that was not."""

_RECORD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Placed:
    """A file that was written: what it is of, its length, its SHA-256, and what the system says."""

    identity: str
    size: int
    sha256: str
    state: tuple[int, ...]


@dataclass(slots=True)
class Record:
    """What was written into a folder; `commit` is that of the last version which is whole there."""

    path: Path
    commit: str = ""
    files: dict[str, Placed] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path, into: Path, what: str) -> Record:
        """The record of a folder; an empty one where there is none that can be read.

        Args:
            root: the folder of the cache.
            into: the folder that was written to.
            what: names what was got, whatever its version.
        """
        key = f"{os.path.realpath(into)}\0{what}".encode("utf-8", "surrogateescape")
        found = cls(root / "placed" / f"{hashlib.sha256(key).hexdigest()[:32]}.json")
        with suppress(OSError, ValueError, KeyError, TypeError), files.own(found.path) as file:
            data = json.loads(file.read(_RECORD_BYTES))
            rows = {name: _placed(row) for name, row in data["files"].items()}
            found.commit, found.files = str(data["commit"]), rows
        return found

    def keep(self) -> None:
        """Keep the record, once a change of one of its files could be told."""
        latest = max((one.state[-1] for one in self.files.values()), default=0)
        left = latest + _TICK_NS - time.time_ns()
        if 0 < left <= _TICK_NS:
            time.sleep(left / 1e9)
        rows = {
            name: [one.identity, one.size, one.sha256, *one.state]
            for name, one in self.files.items()
        }
        text = json.dumps({"commit": self.commit, "files": rows})
        with suppress(OSError):  # then the next get looks at the files
            self.path.parent.mkdir(exist_ok=True)
            files.replace_file(self.path, text.encode("ascii"))

    def listed(self) -> tuple[Written, ...]:
        """What was written, in the order of the names."""
        rows = sorted(self.files.items())
        return tuple(Written(name, one.size, one.sha256) for name, one in rows)

    def unchanged(self, into: Path, name: str) -> bool:
        """Whether a file is there as it was written."""
        known = self.files.get(name)
        return known is not None and state_of(into, name) == known.state


def _placed(row: Sequence[Any]) -> Placed:
    identity, size, sha256, *state = row
    return Placed(str(identity), int(size), str(sha256), tuple(map(int, state)))


def state_of(into: Path, name: str) -> tuple[int, ...] | None:
    """What the system knows a regular file by; None where there is none."""
    try:
        found = os.lstat(into.joinpath(*name.split("/")))
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
