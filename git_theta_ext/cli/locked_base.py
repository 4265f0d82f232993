"""`--adapter NAME[@VERSION]`: the base of an adapter as `theta.lock` has it."""

from __future__ import annotations

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.packages.locking.project import Project
from git_theta_ext.packages.locking.requirements import FILE, LOCK
from git_theta_ext.packages.release.base import Pinned


def locked_base(repository: Repository, text: str) -> Pinned | None:
    """The model that `theta.lock`, here or at the top, has under a name; None if there is none.

    Args:
        repository: that of the adapter.
        text: `NAME`, or `NAME@VERSION`.

    Raises:
        UsageError: the lock cannot be read, or has another version of it.
    """
    name, at, version = text.partition("@")
    folders = [repository.cwd, *([] if repository.work_tree is None else [repository.work_tree])]
    folder = next((one for one in folders if (one / LOCK).is_file()), None)
    if folder is None or not (folder / FILE).is_file():
        return None
    project = Project.read(folder)
    row = project.locked.get(name)
    if row is None:
        return None
    if at and version not in (row.label, row.commit, row.version):
        raise UsageError(
            f"{printable(name)} is locked at {row.label}, not {printable(version)}",
            hint=f"--adapter {name}@{row.label}",
        )
    return Pinned(project.url(row), row.label, row.commit, row.path)
