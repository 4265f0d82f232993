"""Which objects a remote really has, asked now and without transferring any.

A folder is looked at, and each object there read, for the copy here may be about to be removed: a
link to that very copy is none. Of a server git-lfs asks for a batch, as it would for a download.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store.store import sha256_of
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import endpoints, lfs
from git_theta_ext.objects.transfer.endpoints import Endpoint
from git_theta_ext.objects.transfer.folders import object_path
from git_theta_ext.objects.transfer.transport import Progress


def endpoint_of(repository: Repository, remote: str) -> Endpoint:
    """The endpoint that objects would be fetched from, were they asked of `remote`.

    Raises:
        UsageError: `remote` is this very repository.
        TransferError: `.lfsconfig` names a server that the user has not chosen.
    """
    endpoint = endpoints.for_check(repository, remote)
    if endpoint.folder is not None:
        there = endpoints.common_dir_of(endpoint.folder)
        if there.resolve() == repository.common_dir.resolve():
            raise UsageError(f"{remote} is this repository itself: it keeps no second copy")
    return endpoint


def present(
    repository: Repository,
    endpoint: Endpoint,
    objects: Iterable[UpdateRef],
    advance: Progress | None = None,
) -> set[str]:
    """The ids of those objects that an endpoint has, at this moment.

    Args:
        repository: whose settings and credentials count.
        endpoint: the one that is asked.
        objects: what is asked about.
        advance: called with the bytes of objects asked about since the last call.

    Raises:
        TransferError: the remote does not answer; nothing is then known of it.
    """
    items = list({item.oid: item for item in objects}.values())
    if not items:
        return set()
    if endpoint.folder is not None:
        folder = endpoints.lfs_folder(repository, endpoints.common_dir_of(endpoint.folder))

        def look(item: UpdateRef) -> tuple[UpdateRef, bool]:
            path = object_path(folder, item.oid)
            try:
                return item, _is_second_copy(repository, path, item) and (
                    sha256_of(path) == item.oid
                )
            except OSError:
                return item, False

        found = set()
        for item, there in ordered_map(look, items, lambda item: item.size):
            if there:
                found.add(item.oid)
            if advance is not None:
                advance(item.size)
        return found
    found = lfs.ask(repository, endpoint, items)
    if advance is not None:
        advance(sum(item.size for item in items))
    return found


def _is_second_copy(repository: Repository, path: Path, item: UpdateRef) -> bool:
    """Whether a file has an object's size and is not the one in the store here."""
    there = path.stat()
    here = store_of(repository).path(item.oid)
    same = here.exists() and os.path.samestat(there, here.stat())
    return not same and stat.S_ISREG(there.st_mode) and there.st_size == item.size
