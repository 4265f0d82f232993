"""The tensors of an adapter file, of any container, read one by one. Nothing in it is executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext import limits
from git_theta_ext.adapters.base import refuse
from git_theta_ext.arrays import as_array
from git_theta_ext.formats import read_layout, safetensors
from git_theta_ext.formats.base import Literal, Span
from git_theta_ext.formats.derived import derived_length
from git_theta_ext.formats.source import FileSource
from git_theta_ext.tensors import TensorInfo


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
        offset = 0
        for segment in layout.segments:
            if isinstance(segment, Span):
                if not segment.opaque:
                    self._places[segment.tensor.name] = (offset, segment.tensor)
                offset += segment.tensor.nbytes
            elif isinstance(segment, Literal):
                offset += len(segment.data)
            else:
                offset += derived_length(segment)
        self.metadata: dict[str, str] = {}
        if layout.format == safetensors.NAME:
            self.metadata = safetensors.metadata(layout)
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
