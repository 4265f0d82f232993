"""A source read from front to back: small fields, without a system call for each."""

from __future__ import annotations

from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.base import Source

_BYTES = 64 << 10


class Window:
    """A position in a source, with the bytes after it at hand; nothing is read past `stop`."""

    def __init__(
        self, source: Source, position: int = 0, stop: int | None = None, ahead: int = _BYTES
    ) -> None:
        """Stand at `position`; the end is `stop`, by default that of the file.

        `ahead` bytes are read at once, for a format whose records lie scattered: fewer.
        """
        self._source = source
        self._ahead = ahead
        self._stop = source.size if stop is None else stop
        self._start = position
        self._data = b""
        self.position = position

    @property
    def left(self) -> int:
        """Bytes up to the end."""
        return self._stop - self.position

    def take(self, length: int) -> bytes:
        """The next bytes.

        Raises:
            FormatError: fewer are left.
        """
        if not 0 <= length <= self.left:
            raise FormatError(
                f"{length} bytes expected at offset {self.position}, {self.left} are left"
            )
        at = self.position - self._start
        if at < 0 or at + length > len(self._data):
            size = min(max(length, self._ahead), self.left)
            self._start, self._data = self.position, self._source.read(self.position, size)
            at = 0
        self.position += length
        return self._data[at : at + length]

    def skip(self, length: int) -> None:
        """Step over bytes.

        Raises:
            FormatError: fewer are left.
        """
        if not 0 <= length <= self.left:
            raise FormatError(
                f"{length} bytes expected at offset {self.position}, {self.left} are left"
            )
        self.position += length

    def number(self, size: int) -> int:
        """The next `size` bytes as an unsigned little-endian number."""
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        """The next number as protocol buffers write it: seven bits to a byte, at most 64.

        Raises:
            FormatError: it does not end within ten bytes.
        """
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (1 << 64) - 1
        raise FormatError(f"a number of more than ten bytes at offset {self.position}")
