"""What an exported adapter says of its base: by content, and by the name that the lock has."""

from __future__ import annotations

from git_theta_ext.git.repository import Repository
from git_theta_ext.packages.adapter.ends import Ends
from git_theta_ext.packages.base_file import BaseRecord
from git_theta_ext.packages.identity import identity_of, tensors_of
from git_theta_ext.packages.locking.lock_file import parse_lock
from git_theta_ext.packages.locking.requirements import LOCK
from git_theta_ext.packages.remote import without_secret


def record_of(repository: Repository, ends: Ends) -> BaseRecord:
    """The old version, as `theta_base.json` names it."""
    url = repository.setting("remote.origin.url")
    tags = repository.git("tag", "--points-at", ends.first).decode("utf-8", "replace").split("\n")
    blob = repository.blob_at(ends.first, ends.path)
    return BaseRecord(
        None if url is None else without_secret(url),
        tags[0] or None,
        ends.first,
        ends.path,
        identity_of([ends.old.manifest]),
        {} if blob is None else {ends.path: blob},
        tensors_of([ends.old.manifest]),
    )


def locked_as(repository: Repository, ends: Ends) -> str | None:
    """The folder in which `theta.lock` has a model of the old version's tensors; None where none.

    Raises:
        UsageError: the lock is damaged.
    """
    wanted = identity_of([ends.old.manifest])
    for commit in (ends.last, ends.first):
        oid = repository.blob_at(commit, LOCK)
        if oid is None:
            continue
        for model in parse_lock(repository.blob(oid)).values():
            if wanted in dict(model.content).values():
                return model.into
    return None
