"""The Python interface: read, compare and commit checkpoints at any revision, without a checkout.

    import git_theta_ext as theta

    with theta.open("v1.2:model.safetensors") as model:
        model["lm_head.weight"]                          # NumPy; reads and verifies only this
        model.select("layers.{0..3}.*", framework="torch")

A `repository` is a path inside one (default: the current folder); bare repositories and further
work trees do too. Every error is a `git_theta_ext.core.errors.ThetaError`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from git_theta_ext.api.handle import Framework, Handle
from git_theta_ext.checkpoints.read import Checkpoint, open_checkpoint
from git_theta_ext.git import libgit2  # noqa: F401  a first `open` is not to wait for it
from git_theta_ext.git.repository import Repository

if TYPE_CHECKING:
    from git_theta_ext.comparison.compare import Comparison

Folder = str | PathLike[str] | None


def _repository(folder: Folder) -> Repository:
    return Repository.discover_quickly(None if folder is None else str(folder))


def open(name: str | PathLike[str], *, repository: Folder = None) -> Checkpoint:
    """A version of a checkpoint, as a mapping of tensor names to NumPy arrays.

    Args:
        name: `REV:PATH` as Git writes it, `:PATH` for the index, `PATH` for HEAD. The index or a
            pattern of a sharded model stands for all its shards.
        repository: a folder inside the repository.

    Raises:
        UsageError: there is no such file, or it is not stored tensor by tensor.
    """
    return open_checkpoint(_repository(repository), fspath(name))


def safe_open(
    name: str | PathLike[str],
    framework: Framework = "np",
    device: Any = "cpu",
    *,
    repository: Folder = None,
) -> Handle:
    """A version of a checkpoint, with the methods of `safetensors.safe_open`.

    Args:
        name: as for `open`.
        framework: `np`, `pt`, `tf`, `jax`, `flax` or `mlx`: what tensors are returned as.
        device: where torch tensors are put.
        repository: a folder inside the repository.

    Raises:
        UsageError: there is no such file or framework, or it is not installed.
    """
    return Handle(open(name, repository=repository), framework, device)


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
    from git_theta_ext.comparison.compare import compare

    here = _repository(repository)
    before = open_checkpoint(here, f"{old}:{path}")
    after = open_checkpoint(here, f"{new}:{path}")
    return compare(before.side(), after.side())
