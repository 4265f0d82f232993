"""Tracked checkpoints of which the work tree has only git-lfs's pointer.

`git lfs pull` brings their files where git-lfs tracks them. From git-lfs 3.7 on it passes over what
`.gitattributes` gives to another filter, and says nothing (git-lfs issue 6156).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from git_theta_ext.core import files
from git_theta_ext.core.errors import MissingObjectError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, read_pointer


def in_work_tree(repository: Repository, paths: Iterable[str]) -> dict[str, UpdateRef]:
    """Which of some paths, from the top, hold a pointer of git-lfs, and what it stands for."""
    found: dict[str, UpdateRef] = {}
    for path in paths:
        try:
            with files.plain(repository.top / path) as file:
                ref = read_pointer(file.read(POINTER_BYTES + 1))
        except OSError:
            continue
        if ref is not None:
            found[path] = ref
    return found


def write_files(
    repository: Repository, found: Mapping[str, UpdateRef], remote: str | None = None
) -> None:
    """Write the files in the place of their pointers, fetched by git-lfs where they are not here.

    Raises:
        MissingObjectError: a file is nowhere; nothing was written then.
        CorruptObjectError: what is here is not what the pointer names.
        StoreError: a file cannot be written.
    """
    here = LfsFiles(repository)
    said = here.fetch(found.values(), remote)
    lacking = [path for path, ref in found.items() if here.find(ref) is None]
    if lacking:
        raise MissingObjectError(
            f"{plural(len(lacking), 'file')} of git-lfs could not be fetched, such as"
            f" {printable(lacking[0])}:\n"
            + "\n".join(f"  {line}" for line in said or ["this repository has no remote"])
        )
    tree = WorkTree(repository.top)
    for path, ref in found.items():
        place = here.find(ref)
        assert place is not None
        Store(here.folder).verify(ref.oid, ref.size)
        with tree.replacing(path) as file, files.plain(place) as source:
            while data := source.read(1 << 20):
                file.write(data)
