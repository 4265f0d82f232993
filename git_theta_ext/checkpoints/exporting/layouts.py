"""The layout of a file that is made of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from git_theta_ext import formats
from git_theta_ext.checkpoints.exporting.outgoing import Outgoing
from git_theta_ext.checkpoints.read import Checkpoint
from git_theta_ext.core.errors import FormatError, UsageError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.formats import npy, npz
from git_theta_ext.formats.base import Layout


def built(
    container: str,
    infos: Mapping[str, TensorInfo],
    model: Layout | None,
    metadata: Mapping[str, str],
) -> Layout:
    """A layout for these tensors, as `formats.build`.

    Args:
        container, model, metadata: as there.
        infos: the tensors by name, in the order in which they stand in the file.

    Raises:
        UsageError: the container cannot hold one of them.
    """
    try:
        return formats.build(container, infos, model, metadata)
    except FormatError as error:
        raise UsageError(error.message, hint="--to safetensors, or other tensors") from error


def remark_on(container: str, infos: Iterable[TensorInfo]) -> str | None:
    """What readers of a file of these tensors have to know, because the file does not say it."""
    if container != npz.NAME:
        return None
    found = sorted({info.dtype.name for info in infos} & npy.VOID.keys())
    if not found:
        return None
    views = ", ".join(f"array.view(ml_dtypes.{npy.VOID[name]})" for name in found)
    return (
        f"an .npz file has no name for {', '.join(found)}, and loads as bytes; to read it: {views}"
    )


def layout_of(checkpoint: Checkpoint, wanted: Mapping[str, Outgoing], container: str) -> Layout:
    """The layout of an export, with tensors as they lie in memory where the container can.

    Raises:
        UsageError: the container is unknown, or cannot hold one of them.
    """
    if container not in formats.BUILDERS:
        known = ", ".join(formats.BUILDERS)
        raise UsageError(f"unknown container {container!r}; known: {known}")
    infos = {name: _ordered(one.becomes, container) for name, one in wanted.items()}
    # Types and key-values of quantised tensors stand nowhere but in the file that they are from.
    model = checkpoint.structure() if checkpoint.format.startswith(container) else None
    changed = any(one.is_cast or one.source.name != name for name, one in wanted.items())
    if container == "gguf" and model is not None and changed:
        raise UsageError(
            "the tensors of a GGUF file keep their names and element types",
            hint="--to safetensors, or leave out --dtype and --strip-prefix",
        )
    return built(container, infos, model, checkpoint.metadata)


def _ordered(info: TensorInfo, container: str) -> TensorInfo:
    fortran = info.order == tuple(reversed(range(len(info.shape))))
    kept = container == "pt" or (container == "npz" and fortran)
    return info if kept else replace(info, order=None)
