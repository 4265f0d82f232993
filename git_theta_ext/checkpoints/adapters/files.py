"""The tensors of an adapter file, of any container, read one by one. Nothing in it is executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import refuse
from git_theta_ext.core import limits
from git_theta_ext.core.arrays import as_array
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.core.text import printable
from git_theta_ext.core.values import values_dtype
from git_theta_ext.formats import read_layout, safetensors
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.layout.places import placed
from git_theta_ext.formats.layout.source import FileSource


class TensorFile:
    """A mapping of names to tensors in an open file; a context manager."""

    def __init__(self, path: Path) -> None:
        """Find the tensors; none is read.

        Raises:
            UsageError: the file cannot be read, or is of no container that is known.
        """
        self.path = path
        try:
            self._source = FileSource(path)
        except OSError as error:
            raise refuse(path, f"cannot be read: {error.strerror or error}") from error
        layout = read_layout(self._source)
        self._places: dict[str, tuple[int, TensorInfo]] = {}
        opaque: list[str] = []
        for offset, segment in placed(layout):
            if isinstance(segment, Span):
                if not segment.opaque:
                    self._places[segment.tensor.name] = (offset, segment.tensor)
                elif segment.tensor.nbytes:
                    opaque.append(segment.tensor.name)
        self.metadata: dict[str, str] = {}
        if layout.format == safetensors.NAME:
            self.metadata = safetensors.metadata(layout)
        if self._places and (opaque or layout.aliases):
            self._source.close()
            raise _unreadable(path, opaque, layout.aliases)
        if not self._places:
            self._source.close()
            raise refuse(
                path,
                "holds no tensors that can be read",
                "an adapter is a safetensors file, or a PyTorch file (adapter_model.bin)",
            )

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._source.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def info(self, name: str) -> TensorInfo:
        """What a tensor is."""
        return self._places[name][1]

    def read(self, name: str) -> NDArray[Any]:
        """A tensor as an array of its own dtype.

        Raises:
            UsageError: it is larger than an adapter's tensors are.
        """
        offset, info = self._places[name]
        if info.nbytes > limits.ADAPTER_TENSOR_BYTES:
            raise refuse(self.path, f"tensor {name!r} has {info.nbytes} bytes")
        data = np.frombuffer(self._source.read(offset, info.nbytes), np.uint8)
        return as_array(info, data)

    def run(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Some elements of a tensor, flat, as they lie in memory.

        Args:
            name: of a tensor whose elements are whole bytes.
            start, stop: the first element, and the one behind the last.
        """
        offset, info = self._places[name]
        itemsize = info.dtype.itemsize
        data = self._source.read(offset + start * itemsize, (stop - start) * itemsize)
        run = TensorInfo(name, info.dtype, (stop - start,))
        return as_array(run, np.frombuffer(data, np.uint8))

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
