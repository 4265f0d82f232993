"""What a quantised weight is: its kind, bits and groups, its tensors, and the numbers they mean.

A weight is named only where names, element types, shapes and what the file itself states say all of
this, and no other kind could look so. What is uncertain has no name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.arrays import numpy_dtype
from git_theta_ext.core.errors import BoundError
from git_theta_ext.core.tensors import TensorInfo

Numbers = NDArray[np.float32]
Read = Callable[[str, int, int], NDArray[Any]]
"""Raw bits of a tensor's values from one number to before another, by its name."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a weight was quantised.

    `bits` are those of a code, a fraction where they differ; `group` is how many codes share a
    scale, along a row, where that is one number; `groups` says so in words.
    """

    kind: str
    bits: float
    group: int | None = None
    groups: str = ""

    @property
    def words(self) -> str:
        """`GPTQ, 4-bit, groups of 128`."""
        groups = self.groups or (f"groups of {self.group}" if self.group else "")
        return ", ".join(filter(None, (self.kind, f"{self.bits:.3g}-bit", groups)))


class Parts:
    """The tensors of a weight, read by ranges of their values."""

    def __init__(self, tensors: Mapping[str, TensorInfo], read: Read) -> None:
        """Nothing is read before it is asked for."""
        self._tensors = tensors
        self._read = read
        self._held: dict[str, NDArray[Any]] = {}
        self._room = limits.QUANTISED_HELD_BYTES

    def raw(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Values from `start` to `stop` (not included), flat, as unsigned integers."""
        return self._read(name, start, stop)

    def numbers(self, name: str, start: int, stop: int) -> Numbers:
        """The same as float32, of floats and of signed integers too."""
        return self._as_numbers(name, self._read(name, start, stop))

    def whole(self, name: str) -> NDArray[Any]:
        """All values, as unsigned integers, in the tensor's shape; held until the weight is done.

        Raises:
            BoundError: those that are held together are too large.
        """
        if name not in self._held:
            tensor = self._tensors[name]
            self._room -= tensor.nbytes
            if self._room < 0:
                raise BoundError(f"{name}: more than {limits.QUANTISED_HELD_BYTES} bytes at once")
            self._held[name] = self._read(name, 0, tensor.count).reshape(tensor.shape)
        return self._held[name]

    def all_numbers(self, name: str) -> Numbers:
        """As `whole`, as float32."""
        return self._as_numbers(name, self.whole(name))

    def _as_numbers(self, name: str, values: NDArray[Any]) -> Numbers:
        dtype = numpy_dtype(self._tensors[name].dtype)
        if dtype is None:
            raise ValueError(f"{name} has no numbers")
        with np.errstate(over="ignore", invalid="ignore"):
            return values.view(dtype).astype(np.float32)


Decode = Callable[[Parts, int, int], Numbers]
"""Rows of a weight from one to before another: float32, [rows, columns]."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A quantised weight.

    `name` is that of the weight it stands for, as a version that is not quantised has it, and
    `shape` what that has; None where that is not stated. `parts` are its tensors, the codes first.
    `rows` and `columns` cut the numbers in their order as it suits `decode`, which is None where
    only the kind is known.
    """

    name: str
    scheme: Scheme
    parts: tuple[str, ...]
    shape: tuple[int, ...] | None = None
    rows: int = 0
    columns: int = 0
    decode: Decode | None = None

    @property
    def count(self) -> int:
        """How many numbers the weight has; 0 where that is not known."""
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Table:
    """What is asked about a version: its tensors, and what stands beside them.

    `stated` reads its `config.json`; `metadata` are the text pairs of a safetensors file; `types`
    GGUF's types by tensor; `small` gives the bytes of a tensor of a few, None where that has more.
    """

    tensors: Mapping[str, TensorInfo]
    stated: Callable[[], Mapping[str, Any]]
    metadata: Mapping[str, str]
    types: Mapping[str, str]
    small: Callable[[str], bytes | None]

    @property
    def config(self) -> Mapping[str, Any]:
        """What `config.json` says; empty where there is none."""
        return self.stated()

    def of(
        self, name: str, kinds: str | Sequence[str], axes: int | None = None
    ) -> TensorInfo | None:
        """The tensor of a name, if it is of one of some element types and of so many axes."""
        found = self.tensors.get(name)
        kinds = kinds.split() if isinstance(kinds, str) else kinds
        if found is None or found.dtype.name not in kinds or found.order is not None:
            return None
        return found if axes is None or len(found.shape) == axes else None

    def floats(self, name: str, axes: int | None = None) -> TensorInfo | None:
        """The tensor of a name, if it is of ordinary floats."""
        return self.of(name, "F16 BF16 F32", axes)

    def integers(self, name: str, most: int = 4) -> tuple[int, ...] | None:
        """The few integers that a tensor holds."""
        found = self.of(name, "I32 I64 U8")
        if found is None or found.count > most:
            return None
        data = self.small(name)
        if data is None:
            return None
        return tuple(map(int, np.frombuffer(data, numpy_dtype(found.dtype))))


def whole(number: float) -> int | None:
    """A number as an integer, if it is one that is positive."""
    return int(number) if number == math.floor(number) and number > 0 else None


def divided(number: int, by: int) -> int | None:
    """A quotient, if it is an integer and positive."""
    return number // by if by > 0 and number > 0 and number % by == 0 else None
