"""Tracked checkpoints that are not stored by tensor yet: as plain blobs, or by git-lfs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from git_theta_ext.core import advice, files
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.paths import advise
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, lfs_sizes, read_pointer

PLAIN, LFS = "plain blob", "stored by git-lfs"
"""How such a checkpoint is stored, in `git theta status`."""


def is_pointer(path: str | os.PathLike[str]) -> bool:
    """Whether a file of the work tree is a pointer of git-lfs; the file itself was not fetched."""
    try:
        with files.plain(path) as file:
            return read_pointer(file.read(POINTER_BYTES + 1)) is not None
    except OSError:
        return False


def how_to_store(repository: Repository, paths: Sequence[str]) -> str:
    """What stores some paths, from the top, tensor by tensor."""
    command = advise(repository, advice.STORE_BY_TENSOR, paths[0])
    waiting = any(is_pointer(repository.top / path) for path in paths)
    return f"git theta pull, then: {command}" if waiting else command


def sentences(repository: Repository, found: Mapping[str, str]) -> Iterator[str]:
    """What `git theta track` says of checkpoints that were committed before.

    Args:
        repository: the one that is looked at.
        found: path, from the top, and blob of each.
    """
    pointers = lfs_sizes(repository, list(found.values()))
    for kept in (False, True):
        paths = [path for path, oid in found.items() if (oid in pointers) == kept]
        if not paths:
            continue
        how = "stored by git-lfs" if kept else "committed as a plain blob"
        count = plural(len(paths), "checkpoint")
        yield f"{count} already {how}, such as {printable(paths[0])}."
        yield f"To store them tensor by tensor: {how_to_store(repository, paths)}"
