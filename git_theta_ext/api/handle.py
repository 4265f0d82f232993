"""A reader with the habits of `safetensors.safe_open`, for any version of any container.

with theta.safe_open("v1.2:model.safetensors", framework="pt") as file:
    for name in file.keys():
        tensor = file.get_tensor(name)
    rows = file.get_slice("embed.weight")[:100]
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np

from git_theta_ext.checkpoints.read import Checkpoint
from git_theta_ext.core.frameworks.convert import Framework, converter


class Handle:
    """An open version of a checkpoint; what it returns is of the framework that it was opened for.

    Several threads may read at once.
    """

    def __init__(self, checkpoint: Checkpoint, framework: Framework, device: Any = "cpu") -> None:
        """Use `git_theta_ext.safe_open`.

        Raises:
            UsageError: the framework is none of those known, or is not installed.
        """
        self._convert = converter(framework, device)
        self._checkpoint = checkpoint

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held open; the context manager is for symmetry with other readers."""

    def keys(self) -> list[str]:
        """The tensors' names, in the order of their characters, as safetensors gives them."""
        return sorted(self._checkpoint)

    def offset_keys(self) -> list[str]:
        """The tensors' names, in the order in which they lie in the file."""
        return self._checkpoint.file_order()

    def metadata(self) -> dict[str, str] | None:
        """The `__metadata__` of a safetensors file; None where there is none."""
        return self._checkpoint.metadata or None

    def get_tensor(self, name: str) -> Any:
        """A tensor.

        Raises:
            KeyError: there is none of that name.
            MissingObjectError, TransferError, CorruptObjectError: it cannot be had.
        """
        return self._converted(name, self._checkpoint[name])

    def get_tensors(self) -> dict[str, Any]:
        """All tensors by name, in the order of the file; what is missing is fetched in one batch.

        Raises:
            MissingObjectError, TransferError, CorruptObjectError: one cannot be had.
        """
        stream = self._checkpoint.stream(self.offset_keys())
        return {name: self._converted(name, array) for name, array in stream}

    def get_slice(self, name: str) -> Slice:
        """A tensor to be read in part.

        Raises:
            KeyError: there is none of that name.
        """
        self._checkpoint.info(name)
        return Slice(self, name)

    def _converted(self, name: str, array: Any) -> Any:
        array = np.asarray(array)  # an index of every axis gives a number, not an array
        return self._convert(self._checkpoint.info(name), array)

    def _part(self, name: str, index: Any) -> Any:
        """The values at an index; only the blocks that hold some of them are read."""
        index = index if isinstance(index, tuple) else (index,)
        return self._converted(name, self._checkpoint[(name, *index)])


class Slice:
    """A tensor of which parts are read: `slice[10:20]`, `slice[:, 5]`, `slice[3, ..., 0]`."""

    def __init__(self, handle: Handle, name: str) -> None:
        """Use `Handle.get_slice`."""
        self._handle = handle
        self._name = name

    def get_shape(self) -> list[int]:
        """The shape of the whole tensor."""
        return list(self._handle._checkpoint.info(self._name).shape)

    def get_dtype(self) -> str:
        """The element type, as safetensors names it, such as `BF16`."""
        return self._handle._checkpoint.info(self._name).dtype.name

    def __getitem__(self, index: Any) -> Any:
        """The values at an index, as NumPy understands it.

        Raises:
            IndexError: it is out of range.
        """
        return self._handle._part(self._name, index)
