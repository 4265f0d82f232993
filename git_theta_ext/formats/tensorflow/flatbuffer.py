"""FlatBuffers: tables, vectors and texts by their offsets, each within the file.

Source: flatbuffers, docs/source/Internals.md. Read page by page, within a budget of steps.
"""

from __future__ import annotations

from collections.abc import Iterator

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.base import Source
from git_theta_ext.formats.layout.source import check_range

_PAGE_BYTES = 1 << 14
_STEPS_OF_PAGE = 4
"""What reading a page counts for: offsets may lead to and fro."""


class FlatBuffer:
    """Numbers, tables and vectors of one buffer."""

    def __init__(self, source: Source) -> None:
        """Nothing is read yet."""
        self._source = source
        self._pages: dict[int, bytes] = {}
        self._steps = 0

    @property
    def root(self) -> int:
        """Where the root table lies."""
        return self.follow(0)

    def number(self, at: int, size: int, signed: bool = False) -> int:
        """A little-endian number.

        Raises:
            FormatError: it is not inside the file, or the budget is spent.
        """
        self._steps += 1
        if self._steps > limits.FLATBUFFER_STEPS:
            raise BoundError(f"flatbuffer: more than {limits.FLATBUFFER_STEPS} steps")
        check_range(at, size, self._source.size)
        page, start = divmod(at, _PAGE_BYTES)
        if start + size > _PAGE_BYTES:
            return int.from_bytes(self._source.read(at, size), "little", signed=signed)
        if page not in self._pages:
            if len(self._pages) >= limits.FLATBUFFER_PAGES:
                self._pages.clear()
            length = min(_PAGE_BYTES, self._source.size - page * _PAGE_BYTES)
            self._steps += _STEPS_OF_PAGE
            self._pages[page] = self._source.read(page * _PAGE_BYTES, length)
        return int.from_bytes(self._pages[page][start : start + size], "little", signed=signed)

    def follow(self, at: int) -> int:
        """Where an offset that stands at `at` leads."""
        return at + self.number(at, 4)

    def field(self, table: int, number: int) -> int | None:
        """Where a table's field lies; None if it has its default."""
        fields = table - self.number(table, 4, signed=True)
        place = 4 + 2 * number
        if place + 2 > self.number(fields, 2):
            return None
        offset = self.number(fields + place, 2)
        return table + offset if offset else None

    def scalar(self, table: int, number: int, size: int) -> int:
        """An unsigned number of a table; 0 where it has its default."""
        at = self.field(table, number)
        return 0 if at is None else self.number(at, size)

    def table(self, table: int, number: int) -> int | None:
        """Where a table within a table lies."""
        at = self.field(table, number)
        return None if at is None else self.follow(at)

    def vector(self, table: int, number: int) -> tuple[int, int]:
        """Where a vector's items begin, and how many it has; none where it is not there."""
        at = self.field(table, number)
        if at is None:
            return 0, 0
        start = self.follow(at)
        return start + 4, self.number(start, 4)

    def tables(self, table: int, number: int) -> Iterator[int]:
        """Where the tables of a vector lie."""
        start, count = self.vector(table, number)
        for index in range(count):
            yield self.follow(start + 4 * index)

    def numbers(self, table: int, number: int, limit: int) -> tuple[int, ...]:
        """A vector of signed 32-bit numbers.

        Raises:
            FormatError: it has more than `limit`.
        """
        start, count = self.vector(table, number)
        if count > limit:
            raise FormatError(f"flatbuffer: {count} numbers at offset {start}; at most {limit}")
        return tuple(self.number(start + 4 * index, 4, signed=True) for index in range(count))

    def text(self, table: int, number: int) -> str:
        """A text; empty where it is not there."""
        start, count = self.vector(table, number)
        if count > limits.FLATBUFFER_TEXT_BYTES:
            raise BoundError(f"flatbuffer: a text of {count} bytes at offset {start}")
        self._steps += count >> 4  # a byte that is no UTF-8 becomes four characters
        return self._source.read(start, count).decode("utf-8", "backslashreplace")
