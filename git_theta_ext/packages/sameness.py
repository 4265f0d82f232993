"""Whether a file on disk is one of a package, byte for byte, told from hashes alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
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
