"""Where a repository keeps its objects."""

from __future__ import annotations

import os
from pathlib import Path
from weakref import WeakKeyDictionary

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.store.store import Store

_STORES: WeakKeyDictionary[Repository, Store] = WeakKeyDictionary()
"""A store remembers what it has found sound, so that each repository has one."""


def store_of(repository: Repository) -> Store:
    """The object store of a repository; `theta.storage` may name another folder.

    Raises:
        UsageError: it names the folder of a user who is not there.
    """
    if repository not in _STORES:
        _STORES[repository] = _open(repository)
    return _STORES[repository]


def _open(repository: Repository) -> Store:
    root = repository.common_dir / "theta"
    configured = repository.quick_setting("theta.storage", root)
    if configured:
        try:
            root = repository.common_dir / Path(configured).expanduser()
        except RuntimeError as error:
            raise UsageError(
                f"theta.storage is {printable(configured)}: there is no such user"
            ) from error
    verified = repository.common_dir / "theta" / "verified"
    return Store(root, _alternates(repository), verified=verified)


def _alternates(repository: Repository) -> list[Path]:
    """`theta` folders of the repositories that this one borrows Git objects from."""
    folders: list[str] = []
    try:
        text = (repository.common_dir / "objects/info/alternates").read_text("utf-8")
        folders += [line for line in text.splitlines() if line and not line.startswith("#")]
    except (OSError, UnicodeDecodeError):
        pass
    folders += os.environ.get("GIT_ALTERNATE_OBJECT_DIRECTORIES", "").split(os.pathsep)
    base = repository.common_dir / "objects"
    return [(base / folder).resolve().parent / "theta" for folder in folders if folder]
