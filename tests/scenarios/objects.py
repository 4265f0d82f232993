"""Objects in a store: put there, damaged, made old."""

from __future__ import annotations

import os
import time
from pathlib import Path

from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.store.where import store_of
from tests.scenarios.repositories import Repo


def grow_old(repo: Repo) -> None:
    """Make every object a month old."""
    store, then = Store(repo.path / ".git/theta"), time.time() - 30 * 86400
    for oid in store.oids():
        os.utime(store.path(oid), (then, then))


def put(repository: Repository, *contents: bytes) -> list[UpdateRef]:
    """Store some objects."""
    refs = []
    for content in contents:
        oid, size = store_of(repository).put([content])
        refs.append(UpdateRef("dense", oid, size))
    return refs


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
