"""Protocol buffers, field by field: where what lies, without a schema and without a copy.

Source: the specification of the wire format ("Encoding" of protobuf.dev).
"""

from __future__ import annotations

from collections.abc import Iterator

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.base import Source
from git_theta_ext.formats.layout.window import Window

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIELDS_OF_TENSOR = 8
"""What a tensor counts for beside its fields."""


class Messages:
    """A file of messages; `count` has the fields that were read so far, of all of them."""

    def __init__(self, source: Source, container: str) -> None:
        """`container` is what errors name."""
        self._source = source
        self._container = container
        self.count = 0

    def walk(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Number, wire type, offset and length of each field of a message.

        Args:
            start, stop: byte offsets of the message in the file.

        Raises:
            FormatError: a byte belongs to no field, or the file has too many fields.
        """
        window = Window(self._source, start, stop)
        while window.left:
            self.count += 1
            if self.count > limits.MESSAGE_FIELDS:
                raise BoundError(f"{self._container}: more than {limits.MESSAGE_FIELDS} fields")
            tag = window.varint()
            number, wire = tag >> 3, tag & 7
            if not number:
                raise self.error("field 0", window.position)
            if wire == VARINT:
                at = window.position
                window.varint()
                yield number, wire, at, window.position - at
                continue
            if wire not in (FIXED64, BYTES, FIXED32):
                raise self.error(f"wire type {wire}", window.position)
            length = window.varint() if wire == BYTES else 8 if wire == FIXED64 else 4
            at = window.position
            window.skip(length)
            yield number, wire, at, length

    def number(self, at: int, length: int) -> int:
        """A field of wire type VARINT."""
        return Window(self._source, at, at + length).varint()

    def shape(self, wire: int, at: int, length: int) -> list[int]:
        """Axes of a tensor: one of them, or all that are packed into a field.

        Raises:
            FormatError: no numbers, or far too many.
        """
        window = Window(self._source, at, at + length)
        if wire not in (VARINT, BYTES) or length > 16 * limits.AXES:
            raise self.error("a shape that cannot be read", at)
        found = []
        while window.left:
            found.append(window.varint())
        return found

    def text(self, at: int, length: int) -> str:
        """A field of wire type BYTES as text.

        Raises:
            FormatError: it is too long.
        """
        if length > limits.MESSAGE_TEXT_BYTES:
            raise self.error(f"a text of {length} bytes", at)
        return self._source.read(at, length).decode("utf-8", "backslashreplace")

    def error(self, what: str, at: int) -> FormatError:
        """What is wrong at an offset of the file."""
        return FormatError(f"{self._container}: {what} at offset {at}")
