"""New tensor files, written one tensor after the other, whole or not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.arrays import dtype_of
from git_theta_ext.core.errors import FormatError, UsageError
from git_theta_ext.core.tensors import DTYPES, DType, TensorInfo
from git_theta_ext.formats import build
from git_theta_ext.formats.base import Layout, Literal, Span
from git_theta_ext.git import outputs


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor to be written; its values are made when they are."""

    dtype: DType
    shape: tuple[int, ...]
    values: Callable[[], NDArray[Any]]

    def info(self, name: str) -> TensorInfo:
        """What it is, under a name."""
        return TensorInfo(name, self.dtype, self.shape)


def of_array(array: NDArray[Any]) -> Tensor:
    """A tensor of values that are there already."""
    return Tensor(DTYPES[dtype_of(array)], array.shape, lambda: array)


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    work_tree: Path | None,
) -> int:
    """Write a safetensors file; its length.

    Args:
        path: as the user named it.
        tensors: in the order in which they are to stand.
        metadata: the file's `__metadata__`.
        work_tree: the top of the repository's.

    Raises:
        StoreError: the file cannot be written, or not there.
        UsageError: safetensors has no such element type.
    """
    infos = {name: one.info(name) for name, one in tensors.items()}
    try:
        layout = build("safetensors", infos, None, metadata)
    except FormatError as error:
        raise UsageError(error.message) from error
    return write_layout(path, layout, tensors, work_tree)


def write_layout(
    path: Path, layout: Layout, tensors: Mapping[str, Tensor], work_tree: Path | None
) -> int:
    """Write a file of a layout of literal bytes and tensors; its length.

    Args:
        path: as the user named it.
        layout: what is written.
        tensors: those that it names.
        work_tree: the top of the repository's.

    Raises:
        StoreError: the file cannot be written, or not there.
    """
    length = 0
    with outputs.writing(path, work_tree) as file:
        for segment in layout.segments:
            data: memoryview | bytes = b""
            if isinstance(segment, Literal):
                data = segment.data
            elif isinstance(segment, Span):
                values = np.ascontiguousarray(tensors[segment.tensor.name].values())
                data = values.reshape(-1).view(np.uint8).data
            file.write(data)
            length += len(data)
    return length
