"""Single tensors of somebody's model, read through the cache."""

from __future__ import annotations

from git_theta_ext.checkpoints.read import Checkpoint, open_checkpoint
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.fetched import fetch
from git_theta_ext.packages.sources import FORM, Source


def open_source(cache: Cache, source: Source, *, offline: bool = False) -> Checkpoint:
    """A checkpoint of another repository; what is read of it is fetched, unless `offline`.

    Raises:
        UsageError: it names no checkpoint, or one that is not stored tensor by tensor.
        TransferError: the remote does not answer.
    """
    if source.path is None:
        raise UsageError(
            f"{printable(str(source))} names no checkpoint in that repository", hint=f"write {FORM}"
        )
    package = fetch(cache, source.url, source.version, offline=offline)
    return open_checkpoint(package.repository, f"{package.commit}:{source.path}")
