"""HDF5's newer groups of more than eight links: a version 2 B-tree of places in a fractal heap.

Source: "HDF5 File Format Specification Version 3.0", sections III.A.2, III.G and IV.A.2.c. Only
what links need is read: records of type 5, managed objects, heaps without filters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.layout.window import Window

Open = Callable[[int], Window]
"""Gives a window that stands at an address."""
Spend = Callable[[int], None]
"""Counts a step and the bytes read for it; raises FormatError past the budget."""

_NAMES = 5
_HASH_BYTES = 4
_NODE_BYTES = 10
_STEP_BYTES, _ROWS_A_STEP = 64, 16
"""What a level of a heap counts for: a step, and one more for each sixteen rows looked at."""


def _width(limit: int) -> int:
    """Bytes that a number up to `limit` is written in."""
    return (max(1, limit).bit_length() - 1) // 8 + 1


class NameTree:
    """A version 2 B-tree whose records are hashes of names and places in a heap."""

    def __init__(self, opened: Open, spend: Spend, address: int, offset: int, length: int) -> None:
        """Read the header; `offset` and `length` are the sizes of addresses and lengths.

        Raises:
            FormatError: it is damaged, or of another type.
        """
        self._open, self._spend, self._offset = opened, spend, offset
        window = opened(address)
        if window.take(4) != b"BTHD" or window.number(1) or window.number(1) != _NAMES:
            raise FormatError(f"hdf5: no tree of names at offset {address}")
        self._node, self._record = window.number(4), window.number(2)
        self._depth = window.number(2)
        window.skip(2)
        self._root = window.number(offset), window.number(2)
        window.skip(length)
        if self._record <= _HASH_BYTES or self._depth > limits.HDF5_DENSE_DEPTH:
            raise FormatError(f"hdf5: the tree of names at offset {address} is damaged")
        self._sizes = self._subtree_widths()
        self._visited: set[int] = set()

    def _subtree_widths(self) -> list[int]:
        """Bytes of the number of records below a child, by the child's level; none for leaves."""
        most = (self._node - _NODE_BYTES) // self._record
        self._count = _width(most)
        widths, total = [0], most
        for _ in range(self._depth):
            pointer = self._offset + self._count + widths[-1]
            most = max(0, self._node - _NODE_BYTES - pointer) // (self._record + pointer)
            total = (most + 1) * total + most
            widths.append(_width(total))
        return widths

    def places(self) -> Iterator[bytes]:
        """The places in the heap, in no order that means anything.

        Raises:
            FormatError: a node is damaged or comes twice.
        """
        pending = [(*self._root, self._depth)]
        while pending:
            address, count, level = pending.pop()
            if address in self._visited:
                raise FormatError(f"hdf5: the B-tree node at offset {address} is reached twice")
            self._visited.add(address)
            window = self._open(address)
            if window.take(4) != (b"BTIN" if level else b"BTLF"):
                raise FormatError(f"hdf5: no B-tree node at offset {address}")
            window.skip(2)
            self._spend(64 * count)
            for _ in range(count):
                yield window.take(self._record)[_HASH_BYTES:]
            for _ in range(count + 1 if level else 0):
                child, below = window.number(self._offset), window.number(self._count)
                window.skip(self._sizes[level - 1])
                pending.append((child, below, level - 1))


class Heap:
    """A fractal heap: a doubling table of blocks that hold the objects."""

    def __init__(self, opened: Open, spend: Spend, address: int, offset: int, length: int) -> None:
        """Read the header; `offset` and `length` are the sizes of addresses and lengths.

        Raises:
            FormatError: it is damaged, or its blocks are compressed.
        """
        self._open, self._spend, self._offset = opened, spend, offset
        window = opened(address)
        if window.take(4) != b"FRHP" or window.number(1):
            raise FormatError(f"hdf5: no fractal heap at offset {address}")
        window.skip(2)
        filters = window.number(2)
        window.skip(1)
        managed = window.number(4)
        window.skip(10 * length + 2 * offset)
        self._columns = window.number(2)
        self._first, largest = window.number(length), window.number(length)
        bits = window.number(2)
        window.skip(2)
        self._root, self._rows = window.number(offset), window.number(2)
        sound = 0 < self._first <= largest and self._columns and 0 < bits <= 64
        if filters or not sound:
            raise FormatError(f"hdf5: the fractal heap at offset {address} cannot be read")
        self._place = (bits + 7) // 8
        self._length = _width(min(largest, managed))
        self._direct = (largest // self._first).bit_length() + 1

    def read(self, place: bytes) -> bytes:
        """The object at a place that a tree gave.

        Raises:
            FormatError: there is none.
        """
        if not place or place[0] & 0xF0 or len(place) < 1 + self._place + self._length:
            raise FormatError("hdf5: an object that is not in a block of its heap")
        offset = int.from_bytes(place[1 : 1 + self._place], "little")
        rest = place[1 + self._place : 1 + self._place + self._length]
        window = self._open(self._address(offset))
        return window.take(int.from_bytes(rest, "little"))

    def _address(self, offset: int) -> int:
        """Where a byte of the heap lies in the file."""
        block, rows = self._root, self._rows
        for _ in range(limits.HDF5_DENSE_DEPTH):
            if not rows:
                return block + offset
            row, column, offset = self._cell(offset, rows)
            self._spend(_STEP_BYTES * (1 + row // _ROWS_A_STEP))
            window = self._open(block)
            if window.take(4) != b"FHIB":
                raise FormatError(f"hdf5: no block of a heap at offset {block}")
            at = 1 + self._offset + self._place + (row * self._columns + column) * self._offset
            window.skip(at)
            block, rows = window.number(self._offset), 0
            if row >= self._direct:
                size = self._first << row - 1
                rows = (size // (self._first * self._columns)).bit_length()
        raise BoundError(f"hdf5: blocks of a heap nested deeper than {limits.HDF5_DENSE_DEPTH}")

    def _cell(self, offset: int, rows: int) -> tuple[int, int, int]:
        """Row and column of the block that has a byte, and where in it."""
        for row in range(min(rows, 64)):
            size = self._first << max(0, row - 1)
            if offset < size * self._columns:
                return row, offset // size, offset % size
            offset -= size * self._columns
        raise FormatError("hdf5: an object beyond its heap")
