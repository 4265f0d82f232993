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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints.versions import FileSide
from git_theta_ext.core import files
from git_theta_ext.core.errors import ManifestError, ThetaError
from git_theta_ext.git.repository import Repository, git_hash
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.store.store import sha256_of
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, read_pointer
from git_theta_ext.packages.files import PackageFile

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


def is_file(repository: Repository, path: Path, file: PackageFile) -> bool:
    """Whether a file on disk has the very bytes of one of a package; no object is needed.

    A checkpoint is cut into blocks, whose hashes are compared with those of the manifest.

    Args:
        repository: that of the package; manifests and pointers are here.
        path: the file on disk.
        file: the one of the package.
    """
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            return False
        if file.kind == "raw":
            with files.plain(path) as source:
                return _git_id(source, found.st_size, len(file.blob)) == file.blob
        if file.kind == "lfs":
            pointer = read_pointer(repository.blob(file.blob)[: POINTER_BYTES + 1])
            right = pointer is not None and pointer.size == found.st_size
            return right and pointer is not None and sha256_of(path) == pointer.oid
        return _is_checkpoint(path, repository.blob(file.blob))
    except (OSError, ThetaError):
        return False


def _git_id(source: Any, length: int, digits: int) -> str:
    return git_hash(lambda offset, count: bytes(source.read(count)), length, digits)


def _is_checkpoint(path: Path, text: bytes) -> bool:
    try:
        manifest = parse_manifest(text)
    except ManifestError:
        return False
    side = FileSide(path)
    try:
        here = side.manifest
    finally:
        side.close()
    if (here.format, here.skeleton.sha256) != (manifest.format, manifest.skeleton.sha256):
        return False
    return _contents(here.by_name()) == _contents(manifest.by_name())


def _contents(entries: Mapping[str, Any]) -> dict[str, tuple[Any, tuple[str, ...]]]:
    return {
        name: (entry.tensor, tuple(block.sha256 for block in entry.blocks))
        for name, entry in entries.items()
    }
