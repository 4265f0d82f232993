"""HDF5 files made by hand, out of object headers of version 1 and links in them."""

from __future__ import annotations

import struct
from collections.abc import Iterable

_MAGIC = b"\x89HDF\r\n\x1a\n"
_UNDEFINED = (1 << 64) - 1
_LINK, _SPACE, _TYPE, _LAYOUT = 6, 1, 3, 8


class Hdf5:
    """A file that grows at its end; addresses are offsets."""

    def __init__(self) -> None:
        self.data = bytearray(48)

    def put(self, data: bytes) -> int:
        """Bytes; where they are."""
        at = len(self.data)
        self.data += data
        return at

    def object(self, messages: Iterable[tuple[int, bytes]]) -> int:
        """An object of some messages; its address."""
        body = b"".join(struct.pack("<2HB3x", kind, len(data), 0) + data for kind, data in messages)
        return self.put(struct.pack("<BxHIII", 1, 1, 1, len(body), 0) + body)

    def group(self, links: Iterable[tuple[bytes, int]]) -> int:
        """A group of links to addresses."""
        return self.object((_LINK, self.link(name, to)) for name, to in links)

    @staticmethod
    def link(name: bytes, to: int) -> bytes:
        """A hard link."""
        return struct.pack("<2BI", 1, 2, len(name)) + name + struct.pack("<Q", to)

    def dataset(self, count: int) -> int:
        """A contiguous dataset of bytes."""
        where = self.put(bytes(count))
        return self.object(
            [
                (_SPACE, struct.pack("<4B4xQ", 1, 1, 0, 0, count)),
                (_TYPE, struct.pack("<4BI2H", 0x10, 0, 0, 0, 1, 0, 8)),
                (_LAYOUT, struct.pack("<2B2Q", 3, 1, where, count)),
            ]
        )

    def finish(self, root: int) -> bytes:
        """The file."""
        head = _MAGIC + bytes([2, 8, 8, 0])
        head += struct.pack("<4QI", 0, _UNDEFINED, len(self.data), root, 0)
        self.data[:48] = head
        return bytes(self.data)
