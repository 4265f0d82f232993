"""Frozen value types for tensors: dtype, shape, memory order, and how a tensor is cut into blocks.

Nothing here touches a file or imports NumPy: this module is loaded by every command.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["float", "int", "uint", "bool", "complex", "bits"]

BLOCK_BYTES = 32 << 20
BLOCK_VALUES = 8 << 20
"""Largest block, in bytes and in elements: the unit of hashing, deduplication, encoding and
transfer (decision 0002). Elements of up to four bytes are cut in the same places whatever their
dtype, so a cast of a large tensor is a cast of each of its blocks."""

INLINE_BYTES = 64
"""Blocks up to this size stand in the manifest itself; a pointer to them would be longer."""


@dataclass(frozen=True, slots=True)
class DType:
    """An element type, named as safetensors names it; `bits` may be under 8 (F4, I4)."""

    name: str
    bits: int
    kind: Kind

    @property
    def itemsize(self) -> int:
        """Bytes of one element; sub-byte types count as one byte of packed elements."""
        return max(1, self.bits // 8)


def _table() -> dict[str, DType]:
    rows: list[tuple[str, int, Kind]] = [
        ("BOOL", 8, "bool"),
        ("U8", 8, "uint"), ("U16", 16, "uint"), ("U32", 32, "uint"), ("U64", 64, "uint"),
        ("I8", 8, "int"), ("I16", 16, "int"), ("I32", 32, "int"), ("I64", 64, "int"),
        ("F16", 16, "float"), ("BF16", 16, "float"), ("F32", 32, "float"), ("F64", 64, "float"),
        ("F8_E4M3", 8, "float"), ("F8_E5M2", 8, "float"),
        ("F8_E4M3FNUZ", 8, "float"), ("F8_E5M2FNUZ", 8, "float"), ("F8_E8M0", 8, "bits"),
        ("F4", 4, "bits"), ("F6_E2M3", 6, "bits"), ("F6_E3M2", 6, "bits"),
        ("C32", 32, "complex"), ("C64", 64, "complex"), ("C128", 128, "complex"),
        ("QI8", 8, "int"), ("QU8", 8, "uint"), ("QI32", 32, "int"),
        ("QU4X2", 8, "bits"), ("QU2X4", 8, "bits"),
    ]  # fmt: skip
    return {name: DType(name, bits, kind) for name, bits, kind in rows}


DTYPES: dict[str, DType] = _table()
"""Every dtype that a manifest may name."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, dtype and logical shape of one tensor and the order of its axes in memory.

    `order` lists the axes from the slowest to the fastest in memory, or is None for row-major
    (C) order: a Fortran-ordered matrix has `order == (1, 0)`. The tensor is always dense: its
    `nbytes` bytes hold exactly its elements.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    order: tuple[int, ...] | None = None

    @property
    def count(self) -> int:
        """Number of elements (1 for a scalar, 0 if any axis is empty)."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor in the file; sub-byte elements are packed."""
        return (self.count * self.dtype.bits + 7) // 8

    @property
    def memory_shape(self) -> tuple[int, ...]:
        """The shape with axes in memory order: row-major for the bytes as they lie in the file."""
        return self.shape if self.order is None else tuple(self.shape[axis] for axis in self.order)


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """What the bytes of one block are: a run of whole rows (or, failing that, of elements).

    `shape` is in memory order; its product times the dtype's bits is the block's length.
    """

    dtype: DType
    shape: tuple[int, ...]
    count: int = field(init=False, repr=False, compare=False)
    """Number of elements in the block."""
    nbytes: int = field(init=False, repr=False, compare=False)
    """Length of the block in bytes."""

    def __post_init__(self) -> None:
        """Compute once what is asked for again and again."""
        count = math.prod(self.shape)
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "nbytes", (count * self.dtype.bits + 7) // 8)


def cut(info: TensorInfo) -> Iterator[BlockSpec]:
    """Cut a tensor into blocks, in file order.

    Cuts fall between rows of the first axis in memory where a row fits into a block, so that a
    block is itself a small matrix; between elements of the flattened tensor where it does not. The
    number of rows is a power of two: rows that grow a little are cut in the same places. Packed
    sub-byte elements are cut as plain bytes. A tensor without elements has one empty block.
    """
    dtype, shape = info.dtype, info.memory_shape
    if dtype.bits % 8:
        dtype, shape = DTYPES["U8"], (info.nbytes,)
    count = math.prod(shape)
    limit = min(BLOCK_BYTES // dtype.itemsize, BLOCK_VALUES)
    if count <= limit:
        yield BlockSpec(dtype, shape)
        return
    if count // shape[0] > limit:
        shape = (count,)
    rows = 1 << (limit // (count // shape[0])).bit_length() - 1
    for start in range(0, shape[0], rows):
        yield BlockSpec(dtype, (min(rows, shape[0] - start), *shape[1:]))


def is_one_block(info: TensorInfo) -> bool:
    """Whether `cut` leaves a tensor whole."""
    if info.dtype.bits % 8:
        return info.nbytes <= BLOCK_VALUES
    return info.count <= min(BLOCK_BYTES // info.dtype.itemsize, BLOCK_VALUES)
