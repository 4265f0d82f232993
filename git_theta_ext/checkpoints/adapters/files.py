"""The tensors of an adapter file, of any container, read one by one. Nothing in it is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import refuse
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.core.text import printable
from git_theta_ext.core.values import values_dtype
from git_theta_ext.formats.tensors_file import TensorsFile


class TensorFile(TensorsFile):
    """The tensors of an adapter; each can be read, and none is another one too."""

    def __init__(self, path: Path) -> None:
        """Find the tensors; none is read.

        Raises:
            UsageError: the file cannot be read, or is of no container that is known.
        """
        super().__init__(path)
        if len(self) and (self.opaque or self.aliases):
            self.close()
            raise _unreadable(path, self.opaque, self.aliases)
        if not len(self):
            self.close()
            raise refuse(
                path,
                "holds no tensors that can be read",
                "an adapter is a safetensors file, or a PyTorch file (adapter_model.bin)",
            )

    def floats(self, name: str) -> NDArray[np.float32]:
        """A tensor of floats of up to 32 bits, as float32, exactly.

        Raises:
            UsageError: it has other elements.
        """
        info = self.info(name)
        if info.dtype.kind != "float" or info.dtype.bits > 32:
            raise refuse(
                self.path, f"tensor {name!r} is {info.dtype.name}, not floats of up to 32 bits"
            )
        with np.errstate(invalid="ignore"):
            return np.ascontiguousarray(self.read(name).astype(np.float32))


def _unreadable(path: Path, opaque: list[str], aliases: Mapping[str, str]) -> UsageError:
    """The error of a file with tensors that cannot be told apart, or read at all."""
    reason = f"has {printable(opaque[0])!r}, which is no tensor that can be read" if opaque else ""
    for name, other in aliases.items():
        reason = f"has {printable(name)!r}, which shares its memory with {printable(other)!r}"
        break
    return refuse(path, reason, "save the adapter as safetensors (safe_serialization=True)")


def to_values(file: TensorFile, stored: str, tensor: TensorInfo) -> Any:
    """An adapter's tensor as raw bits of the checkpoint's dtype and memory order.

    Raises:
        UsageError: its elements are no numbers of the checkpoint's kind.
    """
    info = file.info(stored)
    array = file.read(stored)
    target = values_dtype(tensor.dtype)
    if info.dtype != tensor.dtype:
        if info.dtype.kind != "float" or tensor.dtype.kind != "float":
            raise refuse(
                file.path,
                f"tensor {stored!r} is {info.dtype.name}; {tensor.name!r} is {tensor.dtype.name}",
            )
        from git_theta_ext.updates.cast import convert

        raw = np.ascontiguousarray(array).reshape(-1).view(values_dtype(info.dtype))
        bits = convert(info.dtype, tensor.dtype, raw, saturate=False)
        array = bits.reshape(array.shape)
    if tensor.order is not None:
        array = array.transpose(tensor.order)
    return np.ascontiguousarray(array).reshape(-1).view(target)
