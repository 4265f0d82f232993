"""Single tensors of somebody's model, read through the cache."""

from __future__ import annotations

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.read import Checkpoint, open_checkpoint
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.fetched import fetch, fetch_blobs
from git_theta_ext.packages.files import files_of
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
    if shards.names_model(source.path):
        found = package.repository.tree(package.commit, source.path, ok=(0, 128))
        blobs = [one.oid for one in found]  # the index is a file like any other, so far not fetched
        fetch_blobs(package.repository, package.url, blobs, [package.commit])
    elif package.repository.blob_at(package.commit, source.path) is None:
        files_of(package, source.path)  # says what there is instead
        raise UsageError(f"{printable(source.path)} of {package} is a folder, not a checkpoint")
    try:
        return open_checkpoint(package.repository, f"{package.commit}:{source.path}")
    except UsageError as error:
        files = [one for one in files_of(package, source.path) if one.kind != "checkpoint"]
        if len(files) != 1 or shards.names_model(source.path):
            raise
        how = "by git-lfs" if files[0].kind == "lfs" else "whole"
        raise UsageError(
            f"{printable(source.path)} of {package} is stored {how}, not tensor by tensor",
            hint="git theta get URL@VERSION:PATH   has the file as it is",
        ) from error
