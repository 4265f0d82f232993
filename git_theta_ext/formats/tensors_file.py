"""The tensors of a file of any container, read one by one. Nothing in it is executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.arrays import as_array
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.core.text import printable, size
from git_theta_ext.formats import read_layout, safetensors
from git_theta_ext.formats.base import Source, Span
from git_theta_ext.formats.layout.places import placed
from git_theta_ext.formats.layout.source import FileSource, PartSource


class TensorsFile:
    """A mapping of names to tensors in an open file; a context manager.

    `aliases` are further names of tensors; `opaque` is what is no tensor that can be read, though
    it has a name; `metadata` is that of a safetensors file.
    """

    def __init__(self, path: Path, part: tuple[int, int] | None = None) -> None:
        """Find the tensors; none is read.

        Args:
            path: the file.
            part: where what is looked at begins and ends in it; else all of it.

        Raises:
            UsageError: the file cannot be read, or has no such part.
        """
        self.path = path
        try:
            self._file = FileSource(path)
        except OSError as error:
            raise self.refused(f"cannot be read: {error.strerror or error}") from error
        self.source: Source = self._file
        try:
            if part is not None:
                if not 0 <= part[0] <= part[1] <= self._file.size:
                    raise self.refused(f"has no bytes {part[0]} to {part[1]}")
                self.source = PartSource(self._file, *part)
            layout = read_layout(self.source)
        except BaseException:
            self._file.close()
            raise
        self.format = layout.format
        self.aliases = dict(layout.aliases)
        self.metadata = safetensors.metadata(layout) if self.format == safetensors.NAME else {}
        self.opaque: list[str] = []
        self._places: dict[str, tuple[int, TensorInfo]] = {}
        for offset, segment in placed(layout):
            if isinstance(segment, Span):
                if not segment.opaque:
                    self._places[segment.tensor.name] = (offset, segment.tensor)
                elif segment.tensor.nbytes:
                    self.opaque.append(segment.tensor.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def refused(self, why: str, hint: str | None = None) -> UsageError:
        """The error that this file cannot be used."""
        return UsageError(f"{printable(str(self.path))} {why}", hint=hint)

    def find(self, name: str) -> TensorInfo | None:
        """What a tensor is, in its own bytes; None if there is none of that name."""
        found = self._places.get(self.aliases.get(name, name))
        return found[1] if found else None

    def info(self, name: str) -> TensorInfo:
        """What a tensor is, in its own bytes.

        Raises:
            UsageError: there is none of that name.
        """
        return self._place(name)[1]

    def read(self, name: str) -> NDArray[Any]:
        """A tensor as an array of its own dtype.

        Raises:
            UsageError: there is none, it is too large, or its elements are packed.
        """
        offset, info = self._place(name)
        self._check_size(info.nbytes, name)
        array = as_array(info, np.frombuffer(self.source.read(offset, info.nbytes), np.uint8))
        if array.shape != info.shape:
            raise self.refused(f"has packed elements in tensor {printable(name)!r}")
        return array

    def run(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Some elements of a tensor, flat, as they lie in memory.

        Args:
            name: of a tensor whose elements are whole bytes.
            start, stop: the first element, and the one behind the last.

        Raises:
            UsageError: there is no such tensor, it has no such elements, or they are too many.
        """
        offset, info = self._place(name)
        if not 0 <= start <= stop <= info.count:
            raise self.refused(f"has no elements {start} to {stop} in tensor {printable(name)!r}")
        itemsize = info.dtype.itemsize
        self._check_size((stop - start) * itemsize, name)
        data = self.source.read(offset + start * itemsize, (stop - start) * itemsize)
        run = TensorInfo(name, info.dtype, (stop - start,))
        return as_array(run, np.frombuffer(data, np.uint8))

    def _place(self, name: str) -> tuple[int, TensorInfo]:
        place = self._places.get(self.aliases.get(name, name))
        if place is None:
            raise self.refused(f"has no tensor {printable(name)!r} that can be read")
        return place

    def _check_size(self, nbytes: int, name: str) -> None:
        if nbytes > limits.ADAPTER_TENSOR_BYTES:
            raise self.refused(f"has {size(nbytes)} in tensor {printable(name)!r}")
