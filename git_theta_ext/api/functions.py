"""The Python interface: read, compare and commit checkpoints at any revision, without a checkout.

    import git_theta_ext as theta

    with theta.open("v1.2:model.safetensors") as model:
        model["lm_head.weight"]                          # NumPy; reads and verifies only this
        model.select("layers.{0..3}.*", framework="torch")

    # Of other repositories, without a clone:
    theta.open("https://host/org/model@v1.2:model.safetensors")["lm_head.weight"]
    path = theta.get("https://host/org/model@v1.2")

A `repository` is a path inside one (default: the current folder); bare repositories and further
work trees do too. Every error is a `git_theta_ext.core.errors.ThetaError`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from git_theta_ext.api.handle import Handle
from git_theta_ext.checkpoints.read import Checkpoint, open_checkpoint
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.frameworks.convert import Framework
from git_theta_ext.git import libgit2  # noqa: F401  a first `open` is not to wait for it
from git_theta_ext.git.repository import Repository
from git_theta_ext.packages import sources
from git_theta_ext.packages.cache import Cache

if TYPE_CHECKING:
    from git_theta_ext.comparison.compare import Comparison

Folder = str | PathLike[str] | None


def _repository(folder: Folder) -> Repository:
    return Repository.discover_quickly(None if folder is None else str(folder))


def open(
    name: str | PathLike[str], *, repository: Folder = None, offline: bool = False
) -> Checkpoint:
    """A version of a checkpoint, as a mapping of tensor names to NumPy arrays.

    Args:
        name: `REV:PATH` as Git writes it, `:PATH` for the index, `PATH` for HEAD. The index or a
            pattern of a sharded model stands for all its shards. Or `URL@VERSION:PATH` of another
            repository, which is read through the cache: only what is asked for is fetched. A path
            of this machine begins with a slash, `./` or `../` then, and `HOST:PATH` with a user.
        repository: a folder inside the repository.
        offline: of a URL: ask no remote, so that only what is in the cache can be read.

    Raises:
        UsageError: there is no such file, or it is not stored tensor by tensor.
        TransferError: the remote of a URL does not answer.
    """
    text = fspath(name)
    if repository is None and sources.is_source(text):
        from git_theta_ext.packages.reading import open_source

        return open_source(Cache.open(), sources.parse(text), offline=offline)
    try:
        return open_checkpoint(_repository(repository), text)
    except (UsageError, RepositoryError) as error:
        url = sources.parse(text).url if text.startswith(("./", "../")) and "@" in text else None
        if repository is not None or url is None or os.path.exists(url):
            raise
        raise UsageError(f"there is no repository {url}", hint=f"write {sources.FORM}") from error


def get(
    source: str,
    into: str | PathLike[str] | None = None,
    *,
    tensors: Sequence[str] = (),
    to: str | None = None,
    dtype: str | None = None,
    force: bool = False,
    offline: bool = False,
    refresh: bool = False,
    public_key: str | PathLike[str] | None = None,
) -> Path:
    """Have a version of somebody's model in a folder, without a clone; that folder.

    What is there as it is stays as it is; what is not in the cache is fetched once, for all
    folders. `AutoModel.from_pretrained` reads what comes back.

    Args:
        source: `URL[@VERSION][:PATH]`.
        into: the folder, or the file where the path is one; by default a folder of the last name of
            the URL in the current one.
        tensors: patterns; of checkpoints only these tensors.
        to: what checkpoints are written as: `safetensors`, `pt`, `npz` or `gguf`.
        dtype: what floats are cast to: `bf16`, `f16`, `f32` or `f64`.
        force: replace files there that somebody changed.
        offline: ask no remote.
        refresh: ask the remote for a tag, too, that is here.
        public_key: a PEM file; nothing is written that was not signed by it.

    Raises:
        UsageError: there is no such version or path, or files there are others.
        SignatureError: something was not signed, or by another key.
        TransferError, MissingObjectError: it cannot be had.
        StoreError: the disk is full.
    """
    from git_theta_ext.checkpoints.exporting.outgoing import dtype_named
    from git_theta_ext.packages import getting
    from git_theta_ext.packages.release.signing import Trust
    from git_theta_ext.packages.trimming import trim_to_limit
    from git_theta_ext.packages.values import How, Wanted

    kind = None if dtype is None else dtype_named(dtype)
    trust = None if public_key is None else Trust(Path(public_key))
    how = How(Wanted(tuple(tensors), to, kind), force, offline, refresh, trust)
    cache = Cache.open()
    got = getting.get(cache, sources.parse(source), None if into is None else Path(into), how)
    if got.written:
        trim_to_limit(cache)
    for remark in got.remarks:
        warnings.warn(remark, stacklevel=2)
    return got.place


def sync(
    folder: str | PathLike[str] = ".",
    *,
    locked: bool = False,
    offline: bool = False,
    force: bool = False,
) -> dict[str, Path]:
    """Have the models of a `models.toml` as its `theta.lock` says; the folder of each, by name.

    Args:
        folder: where `models.toml` is; else it is looked for at the top of its repository.
        locked: change no lock, and take no tag that was moved.
        offline: ask no remote.
        force: replace and remove what was changed by hand, too.

    Raises:
        UsageError: there is no `models.toml`, or it cannot be used.
        TransferError, MissingObjectError: a model cannot be had.
        StoreError: the disk is full.
        ThetaError: a file was changed by hand, and kept; no version is what is asked for; an
            adapter was made on another base.
    """
    from git_theta_ext.packages.locking import project
    from git_theta_ext.packages.locking import sync as locking

    top = project.find(Path(folder))
    done = locking.sync(top, locking.Options(locked, offline, force))
    done.require_as_locked()
    return {one.name: top / one.into for one in done.models}


def safe_open(
    name: str | PathLike[str],
    framework: Framework = "np",
    device: Any = "cpu",
    *,
    repository: Folder = None,
    offline: bool = False,
) -> Handle:
    """A version of a checkpoint, with the methods of `safetensors.safe_open`.

    Args:
        name: as for `open`.
        framework: `np`, `pt`, `tf`, `jax`, `flax` or `mlx`: what tensors are returned as.
        device: where torch tensors are put.
        repository: a folder inside the repository.
        offline: as for `open`.

    Raises:
        UsageError: there is no such file or framework, or it is not installed.
    """
    return Handle(open(name, repository=repository, offline=offline), framework, device)


def load_into(
    module: Any,
    name: str,
    *,
    strict: bool = True,
    prefix: str = "",
    repository: Folder = None,
) -> list[str]:
    """Copy a checkpoint into a torch module, tensor by tensor; the names that it lacked.

    Everything is checked before the first value is copied. Tied weights may stand under one of
    their names. Tensors on the meta device get memory on the CPU. `torch.compile`, `DataParallel`
    and `DistributedDataParallel` are looked through, and of DTensors (FSDP2) every process fills
    its part.

    Args:
        module: a `torch.nn.Module`.
        name: as for `open`.
        strict: every name must be on both sides; if false, one of them at least.
        prefix: only names that begin so are looked at, without it, such as `model.` of a training
            checkpoint.
        repository: a folder inside the repository.

    Raises:
        UsageError: names, shapes or dtypes do not fit, the module cannot be filled (PEFT, FSDP1,
            quantised parameters), or torch is not installed.
    """
    from git_theta_ext.api.loading import stream_into

    checkpoint = open(name, repository=repository)
    return stream_into(module, checkpoint, strict=strict, prefix=prefix)


def commit(
    tensors: Mapping[str, Any],
    path: str,
    *,
    message: str,
    parent: str = "HEAD",
    metadata: Mapping[str, str] | None = None,
    executor: str | None = None,
    repository: Folder = None,
) -> str:
    """Commit tensors as a file, without a work tree; the commit's object id.

    A path that ends in `.pt`, `.pth`, `.npz` or `.gguf` is a file of that container, any other a
    safetensors file. Where `parent` is a branch, it moves. The work tree and the index stay.
    So where that branch is checked out, `git status` shows the commit as undone, and the next
    `git commit -a` would undo it: `git restore --staged --worktree -- PATH` takes it over.

    Args:
        tensors: NumPy arrays or torch tensors by name, in the order in which they are to stand in
            the file.
        path: from the top of the repository.
        message: of the commit.
        parent: a branch or another revision.
        metadata: the file's `__metadata__`.
        executor: where blocks are encoded: `dask://HOST:PORT` of the scheduler of a Dask cluster
            that sees the same files, or `here`; by default as `theta.executor` in git config says.
        repository: a folder inside the repository.

    Raises:
        UsageError: a tensor cannot be stored, there is no such parent, or the path is not tracked.
        RepositoryError: the branch moved meanwhile, or there is no identity to commit with.
        ClusterError: the cluster is not there, or cannot do the work.
    """
    from git_theta_ext.checkpoints import write
    from git_theta_ext.objects.cluster import choice

    here = _repository(repository)
    chosen = choice.executor_at(here, choice.chosen(here, executor, os.environ))
    with closing(chosen):
        return write.commit(
            here, tensors, path, message=message, parent=parent, metadata=metadata, executor=chosen
        )


def diff(old: str, new: str, path: str, *, repository: Folder = None) -> Comparison:
    """What changed in a checkpoint between two revisions, tensor by tensor.

    Args:
        old, new: revisions.
        path: from the top of the repository; of a sharded model, its index or a pattern.
        repository: a folder inside the repository.

    Raises:
        UsageError: a revision has no such checkpoint.
    """
    from git_theta_ext.checkpoints.coupled.beside import in_revision
    from git_theta_ext.comparison.files import Pair

    here = _repository(repository)
    before = open_checkpoint(here, f"{old}:{path}")
    after = open_checkpoint(here, f"{new}:{path}")
    configs = partial(in_revision, here, old, path), partial(in_revision, here, new, path)
    return Pair(path, before.side(), after.side(), configs=configs).compare()
