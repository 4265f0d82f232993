"""An array that is cut into chunks: what each chunk holds, and how it is called.

A chunk is called by the slice of the array that it is, as parts of PyTorch's distributed tensors
are: `w[:4]`, `w[4:8]`, `w[8:]`. So runs of rows are put together for whoever only reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DTYPES, DType, TensorInfo
from git_theta_ext.formats.torch.distributed import part_name

CHECKSUM_BYTES = 4


@dataclass(frozen=True, slots=True)
class Array:
    """An array and how the values of a chunk are written.

    `dtype` is None where this package has no such element type (big-endian numbers, records): then
    an element is as many bytes as it takes, and one more axis has them. `order` lists the axes from
    the slowest to the fastest. `checksum` is a CRC-32C of four bytes after the values. `compressed`
    chunks are bytes of unknown meaning. `inner` says how the chunks are written that lie in this
    one, a shard; `index_first` and `index_checksum` are of the index that tells where.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: DType | None
    order: tuple[int, ...] | None = None
    checksum: bool = False
    compressed: bool = False
    inner: Array | None = None
    index_first: bool = False
    index_checksum: bool = True

    def __post_init__(self) -> None:
        """Refuse what no array can be.

        Raises:
            FormatError: the chunks have other axes than the array, or are empty.
        """
        if len(self.shape) != len(self.chunk) or not all(self.chunk):
            raise FormatError(f"an array of shape {self.shape} in chunks of {self.chunk}")

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks along each axis."""
        return tuple(-(-size // step) for size, step in zip(self.shape, self.chunk, strict=True))

    def has(self, at: Sequence[int]) -> bool:
        """Whether there is a chunk at a place of the grid."""
        return len(at) == len(self.shape) and all(
            place < count for place, count in zip(at, self.grid, strict=True)
        )


def is_shape(value: object) -> bool:
    """Whether a value read from JSON is a shape."""
    return (
        isinstance(value, list)
        and len(value) < limits.AXES
        and all(type(axis) is int and 0 <= axis < 1 << 63 for axis in value)
    )


def tensors(
    name: str, array: Array, at: Sequence[int], length: int
) -> Iterator[tuple[int, TensorInfo]]:
    """The tensors in the values of one chunk, each with its offset in bytes.

    It is one, but for the last rows of an array: a chunk is as long as all others, and the rows
    that are beyond the array are a tensor of their own, `PART.padding`.

    Args:
        name: the array's.
        array: it; not compressed, and no shard.
        at: the chunk's place in the grid.
        length: bytes of the chunk.

    Raises:
        FormatError: the chunk has another length than its values, or lies outside the array.
    """
    body = length - CHECKSUM_BYTES * array.checksum
    count = math.prod(array.chunk)
    if not array.has(at) or body <= 0 or body % count:
        raise FormatError(f"{name!r}: no chunk of {length} bytes lies at {tuple(at)}")
    dtype, extra = array.dtype, tuple[int, ...]()
    if dtype is None:
        dtype, extra = DTYPES["U8"], (body // count,)
    elif body != count * dtype.itemsize:
        raise FormatError(f"{name!r}: a chunk of {length} bytes, not of {array.chunk}")
    order = array.order
    if order is not None and extra:
        order = (*order, len(array.chunk))
    if len(name) > limits.NAME_CHARS // 2:
        raise FormatError(f"the name {name[:40]!r}… is too long")
    _, kept = _extent(array, at)
    called = name_of(name, array, at)
    if order is None and kept and kept[0] < array.chunk[0] and kept[1:] == list(array.chunk[1:]):
        rest = (array.chunk[0] - kept[0], *array.chunk[1:], *extra)
        info = TensorInfo(called, dtype, (*kept, *extra))
        yield 0, info
        yield info.nbytes, TensorInfo(f"{called}.padding", dtype, rest)
    else:
        yield 0, TensorInfo(called, dtype, (*array.chunk, *extra), order)


def name_of(name: str, array: Array, at: Sequence[int]) -> str:
    """How a chunk is called: `w[:4]` where it is a run of rows, else with each axis.

    A chunk that reaches beyond the array in other axes than the first says all its axes, so that it
    is never taken for a run of the array's rows.
    """
    starts, sizes = _extent(array, at)
    if sizes[1:] == list(array.chunk[1:]):
        return part_name(name, array.shape, starts, sizes)
    slices = (f"{start}:{start + size}" for start, size in zip(starts, sizes, strict=True))
    return f"{name}[{', '.join(slices)}]"


def extent(name: str, array: Array, at: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """Name and shape of a chunk that ends where the array does."""
    starts, sizes = _extent(array, at)
    return part_name(name, array.shape, starts, sizes), tuple(sizes)


def _extent(array: Array, at: Sequence[int]) -> tuple[list[int], list[int]]:
    """Where a chunk begins along each axis, and how far the array reaches in it."""
    starts = [place * size for place, size in zip(at, array.chunk, strict=True)]
    sizes = [
        min(size, total - start)
        for size, total, start in zip(array.chunk, array.shape, starts, strict=True)
    ]
    return starts, sizes
