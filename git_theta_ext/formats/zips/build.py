"""Layouts of new zip archives: stored entries, CRC-32s derived, zip64 where sizes need it.

After PKWARE's APPNOTE 6.3.10, dated 1980-01-01, so that the same tensors make the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from git_theta_ext.formats.base import Crc32, Literal, Segment, Span

_LOCAL, _CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
_END, _END64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_UTF8 = 1 << 11
_VERSION, _VERSION64 = 20, 45
_DATE = 0x21  # 1980-01-01
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_PADDING = b"FB"
"""The extra field with which PyTorch pads; any reader steps over it."""


@dataclass(frozen=True, slots=True)
class Member:
    """An entry to be: its name, and the literals and spans that are its content."""

    name: str
    content: Sequence[Literal | Span]

    @property
    def size(self) -> int:
        """Length of the content in bytes."""
        return sum(
            len(part.data) if isinstance(part, Literal) else part.tensor.nbytes
            for part in self.content
        )


def archive(members: Sequence[Member], alignment: int = 1) -> tuple[Segment, ...]:
    """The segments of an archive whose entries' contents begin at multiples of `alignment`."""
    segments: list[Segment] = []
    directory: list[Segment] = []
    position = length = 0
    for member in members:
        name, size = member.name.encode("utf-8"), member.size
        wide = size >= _FULL32
        extra = struct.pack("<HHQQ", 1, 16, size, size) if wide else b""
        head = struct.pack("<4s5H", _LOCAL, _VERSION64 if wide else _VERSION, _UTF8, 0, 0, _DATE)
        extra += _pad(position + 30 + len(name) + len(extra), alignment)
        small = _FULL32 if wide else size
        rest = struct.pack("<2I2H", small, small, len(name), len(extra)) + name + extra
        number = len(segments)
        first = number + 3
        parts = [part for part in member.content if not isinstance(part, Literal) or part.data]
        crc: Segment = Crc32(first, first + len(parts)) if parts else Literal(bytes(4))
        segments += [Literal(head), crc, Literal(rest), *parts]
        entry = _central(name, size, position)
        directory += [Literal(entry[:16]), crc, Literal(entry[20:])]
        length += len(entry)
        position += len(head) + 4 + len(rest) + size
    return (*segments, *directory, Literal(_ends(len(members), length, position)))


def _pad(start: int, alignment: int) -> bytes:
    """An extra field that ends where the content may begin."""
    if start % alignment == 0:
        return b""
    room = -(start + 4) % alignment
    return _PADDING + struct.pack("<H", room) + bytes(room)


def _central(name: bytes, size: int, offset: int) -> bytes:
    wide = b"".join(struct.pack("<Q", n) for n in (size, size, offset) if n >= _FULL32)
    extra = struct.pack("<HH", 1, len(wide)) + wide if wide else b""
    version = _VERSION64 if wide else _VERSION
    small, where = min(size, _FULL32), min(offset, _FULL32)
    return struct.pack(
        "<4s6H3I5H2I", _CENTRAL, version, version, _UTF8, 0, 0, _DATE, 0, small, small, len(name),
        len(extra), 0, 0, 0, 0, where,
    ) + name + extra  # fmt: skip


def _ends(count: int, length: int, start: int) -> bytes:
    """The end records; those of zip64 too where a number does not fit."""
    found = b""
    if count >= _FULL16 or length >= _FULL32 or start >= _FULL32:
        found = struct.pack(
            "<4sQ2H2I4Q", _END64, 44, _VERSION64, _VERSION64, 0, 0, count, count, length, start
        )
        found += struct.pack("<4sIQI", _LOCATOR, 0, start + length, 1)
    few = min(count, _FULL16)
    return found + struct.pack(
        "<4s4H2IH", _END, 0, 0, few, few, min(length, _FULL32), min(start, _FULL32), 0
    )
