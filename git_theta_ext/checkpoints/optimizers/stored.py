"""Where the second moment of a parameter lies in files, whole or in parts, and its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.optimizers.file import Shape
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.formats.tensors_file import TensorsFile

_BLOCKS = (256, 2048)
_CODES = ".state2"


class Stored(Protocol):
    """Numbers in one or several files."""

    def read(self) -> NDArray[Any]:
        """The numbers, as floats of whatever width, in any shape.

        Raises:
            UsageError: the file has no such numbers.
        """
        ...

    def refused(self, why: str) -> UsageError:
        """The error that these numbers cannot be used; `why` goes on with where they lie."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A tensor of a file, or what 8-bit codes of bitsandbytes stand for."""

    file: TensorsFile
    name: str

    def read(self) -> NDArray[Any]:
        """See `Stored`."""
        found = self.file.read(self.name)
        if self.name.endswith(_CODES) and found.dtype == np.uint8:
            return _dequantised(self.file, self.name.removesuffix("state2"), found)
        return _floats(found, self)

    def refused(self, why: str) -> UsageError:
        """See `Stored`."""
        return self.file.refused(f"{why} {printable(self.name)!r}")


@dataclass(frozen=True, slots=True)
class Run:
    """Some elements of a flat tensor of a file."""

    file: TensorsFile
    name: str
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of several files, one after another."""

    parts: tuple[Run, ...]

    def read(self) -> NDArray[Any]:
        """See `Stored`."""
        found = [one.file.run(one.name, one.start, one.start + one.count) for one in self.parts]
        return _floats(np.concatenate(found), self)

    def refused(self, why: str) -> UsageError:
        """See `Stored`."""
        return self.parts[0].file.refused(f"{why} {printable(self.parts[0].name)!r}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A box of a tensor, in an archive of its own that is a part of a file."""

    path: Path
    span: tuple[int, int]
    offsets: Shape
    sizes: Shape


@dataclass(frozen=True, slots=True)
class Chunks:
    """A tensor in boxes that do not overlap and fill it."""

    name: str
    shape: Shape
    parts: tuple[Chunk, ...]

    def read(self) -> NDArray[Any]:
        """See `Stored`."""
        result: NDArray[Any] | None = None
        for one in self.parts:
            found = lone(one.path, one.span)
            if found is None or found.shape != one.sizes:
                raise self.refused(f"has another shape than {list(one.sizes)} for")
            found = _floats(found, self)
            if result is None:
                result = np.zeros(self.shape, found.dtype)
            result[
                tuple(slice(at, at + n) for at, n in zip(one.offsets, one.sizes, strict=True))
            ] = found
        return np.zeros(self.shape, np.float32) if result is None else result

    def refused(self, why: str) -> UsageError:
        """See `Stored`."""
        place = self.parts[0].path if self.parts else Path("-")
        return UsageError(f"{printable(str(place))} {why} {printable(self.name)!r}")


def lone(path: Path, span: tuple[int, int]) -> NDArray[Any] | None:
    """The only tensor in a part of a file; None if there are several, or none.

    Raises:
        UsageError: the file has no such part, or it cannot be read.
    """
    with TensorsFile(path, span) as file:
        names = list(file)
        return file.read(names[0]) if len(names) == 1 else None


def tiled(shape: Shape, parts: Sequence[Chunk]) -> bool:
    """Whether boxes fill a tensor and none overlaps another one."""
    filled = 0
    for number, one in enumerate(parts):
        if len(one.offsets) != len(shape) or len(one.sizes) != len(shape):
            return False
        ends = zip(one.offsets, one.sizes, shape, strict=True)
        if any(at < 0 or n < 0 or at + n > whole for at, n, whole in ends):
            return False
        if any(_meet(one, other) for other in parts[:number]):
            return False
        filled += int(np.prod(one.sizes, dtype=object))
    return filled == int(np.prod(shape, dtype=object))


def _meet(one: Chunk, other: Chunk) -> bool:
    return all(
        at < there + m and there < at + n
        for at, n, there, m in zip(one.offsets, one.sizes, other.offsets, other.sizes, strict=True)
    )


def _floats(found: NDArray[Any], stored: Stored) -> NDArray[Any]:
    if found.dtype.kind not in "fV":
        raise stored.refused("has no floats in")
    return found


def _dequantised(file: TensorsFile, before: str, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """8-bit codes of bitsandbytes: a table of 256 numbers, times the maximum of each block."""
    for part in ("absmax2", "qmap2"):
        if file.find(before + part) is None:
            raise file.refused(f"has 8-bit codes without {printable(before + part)!r}")
    scales = file.read(before + "absmax2").astype(np.float32).reshape(-1)
    table = file.read(before + "qmap2").astype(np.float32).reshape(-1)
    length = next((one for one in _BLOCKS if -(-codes.size // one) == len(scales)), None)
    if length is None or len(table) != 256:
        raise file.refused(f"has {len(scales)} scales for {codes.size} codes ({printable(before)})")
    flat = table[codes.reshape(-1)] * np.repeat(scales, length)[: codes.size]
    return flat.reshape(codes.shape)
