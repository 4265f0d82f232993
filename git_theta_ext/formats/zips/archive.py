"""Where everything lies in a zip archive: a structural reader that decompresses nothing.

After PKWARE's APPNOTE 6.3.10: end records (zip64 included), central directory, local headers and
data descriptors (12 to 24 bytes). Archives that leave room for doubt are refused: bytes before the
first entry, encrypted, split, overlapping or repeated entries, headers that disagree.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.base import Source

STORED = 0

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_LOCATOR_MAGIC, _END64_MAGIC, _DESCRIPTOR_MAGIC = b"PK\x06\x07", b"PK\x06\x06", b"PK\x07\x08"
_LOCAL_CRC, _CENTRAL_CRC = 14, 16
_ENCRYPTED = 1 | 1 << 6 | 1 << 13
_DESCRIPTOR = 1 << 3
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_MAX_COMMENT = 0xFFFF
_ZIP64_EXTRA = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: name, method, stored CRC-32, sizes in bytes, and offsets in the file.

    The data is `[data_offset, data_offset + compressed)`; `end` is past the data descriptor too.
    `crc_offsets` are the places where the CRC-32 stands.
    """

    name: str
    method: int
    crc: int
    compressed: int
    size: int
    header_offset: int
    data_offset: int
    end: int
    crc_offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Record:
    """An entry as the central directory has it."""

    name: bytes
    flags: int
    method: int
    crc: int
    compressed: int
    size: int
    header_offset: int
    crc_offset: int


def read_entries(source: Source) -> list[Entry]:
    """Every entry of the archive, in the order of the file.

    Raises:
        FormatError: not a zip archive, or one that cannot be split safely; names entry and offset.
    """
    start, size, count = _find_directory(source)
    if count > limits.ZIP_ENTRIES or size > limits.ZIP_DIRECTORY_BYTES:
        raise BoundError(f"zip: {count} entries in {size} bytes of directory are too many")
    records = _read_directory(source.read(start, size), start, count)
    records.sort(key=lambda record: record.header_offset)
    entries: list[Entry] = []
    seen: set[bytes] = set()
    position = 0
    for index, record in enumerate(records):
        last = index + 1 == len(records)
        limit = start if last else records[index + 1].header_offset
        if record.name in seen:
            raise FormatError(f"zip: a second entry named {record.name!r}")
        if index == 0 and record.header_offset:
            raise FormatError(f"zip: {record.header_offset} bytes lie before the first entry")
        seen.add(record.name)
        entry = _locate(source, record, min(limit, start))
        if entry.header_offset < position or entry.end > limit:
            raise FormatError(f"zip: entry {entry.name!r} overlaps its neighbour")
        position = entry.end
        entries.append(entry)
    return entries


def count_entries(source: Source) -> int:
    """How many entries an archive claims to have; quick.

    Raises:
        FormatError: it is no archive.
    """
    return _find_directory(source)[2]


def _find_directory(source: Source) -> tuple[int, int, int]:
    """Offset, size and number of entries of the central directory."""
    tail_start = max(0, source.size - _END.size - _MAX_COMMENT)
    tail = source.read(tail_start, source.size - tail_start)
    at = len(tail)
    while (at := tail.rfind(_END_MAGIC, 0, at)) >= 0:
        if at + _END.size <= len(tail):
            fields = _END.unpack_from(tail, at)
            if at + _END.size + fields[7] == len(tail):
                break
    else:
        raise FormatError("zip: no end of central directory")
    _, disk, first_disk, here, count, size, start, _ = fields
    end = tail_start + at
    locator = end - _END64_LOCATOR.size
    if locator >= 0 and source.read(locator, 4) == _LOCATOR_MAGIC:
        full = _read_end64(source, locator)
        wanted = ((here, _FULL16), (count, _FULL16), (size, _FULL32), (start, _FULL32))
        for (old, marker), new in zip(wanted, full[1:], strict=True):
            if old not in (marker, new):
                raise FormatError("zip: the two end records disagree")
        end, here, count, size, start = full
    if disk not in (0, _FULL16) or first_disk not in (0, _FULL16) or here != count:
        raise FormatError("zip: split over several files")
    if start + size != end:
        raise FormatError(
            f"zip: the central directory ends at offset {start + size}, its end record is at {end}"
        )
    return start, size, count


def _read_end64(source: Source, locator: int) -> tuple[int, int, int, int, int]:
    """Offset of the zip64 end record, then its counts, size and start of the directory."""
    _, disk, offset, disks = _END64_LOCATOR.unpack(source.read(locator, _END64_LOCATOR.size))
    if disk or disks > 1 or offset + _END64.size > locator:
        raise FormatError(f"zip: the zip64 locator at offset {locator} is damaged")
    fields = _END64.unpack(source.read(offset, _END64.size))
    magic, length, _, _, disk, first_disk, here, count, size, start = fields
    if magic != _END64_MAGIC or disk or first_disk or offset + 12 + length != locator:
        raise FormatError(f"zip: the zip64 end record at offset {offset} is damaged")
    return offset, here, count, size, start


def _read_directory(data: bytes, start: int, count: int) -> list[_Record]:
    """The entries of a central directory, which has to end with the last of `count` entries."""
    records: list[_Record] = []
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(data):
            raise FormatError(f"zip: the central directory ends inside entry {len(records)}")
        fields = _CENTRAL.unpack_from(data, position)
        magic, _, _, flags, method, _, _, crc, compressed, size, names, extras, comment = fields[
            :13
        ]
        name_at = position + _CENTRAL.size
        stop = name_at + names + extras + comment
        if magic != _CENTRAL_MAGIC or stop > len(data):
            raise FormatError(f"zip: directory entry at offset {start + position} is damaged")
        name = data[name_at : name_at + names]
        if flags & _ENCRYPTED:
            raise FormatError(f"zip: entry {name!r} is encrypted")
        extra = data[name_at + names : name_at + names + extras]
        size, compressed, offset = _widen(extra, (size, compressed, fields[16]), name)
        crc_offset = start + position + _CENTRAL_CRC
        records.append(_Record(name, flags, method, crc, compressed, size, offset, crc_offset))
        position = stop
    if position != len(data):
        raise FormatError(f"zip: {len(data) - position} bytes follow the last directory entry")
    return records


def _widen(extra: bytes, values: tuple[int, ...], name: bytes) -> list[int]:
    """Replace 32-bit fields that are full by their 64-bit values from the zip64 extra field."""
    wide = b""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == _ZIP64_EXTRA:
            wide = extra[position + 4 : position + 4 + length]
            break
        position += 4 + length
    result = []
    for value in values:
        if value == _FULL32:
            if len(wide) < 8:
                raise FormatError(f"zip: entry {name!r} lacks its zip64 field")
            value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        result.append(value)
    return result


def _locate(source: Source, record: _Record, limit: int) -> Entry:
    """Check the local header of an entry against the directory; nothing may reach past `limit`."""
    at = record.header_offset
    if at + _LOCAL.size > limit:
        raise FormatError(f"zip: entry {record.name!r} begins at offset {at}, too late")
    fields = _LOCAL.unpack(source.read(at, _LOCAL.size))
    magic, _, flags, method, _, _, crc, _, _, names, extras = fields
    data_offset = at + _LOCAL.size + names + extras
    end = data_offset + record.compressed
    if magic != _LOCAL_MAGIC or flags & _ENCRYPTED or method != record.method or end > limit:
        raise FormatError(f"zip: the local header at offset {at} does not fit {record.name!r}")
    if source.read(at + _LOCAL.size, names) != record.name:
        raise FormatError(f"zip: the local header at offset {at} is not that of {record.name!r}")
    if method == STORED and record.size != record.compressed:
        raise FormatError(f"zip: stored entry {record.name!r} has two different sizes")
    crc_offsets = [record.crc_offset]
    if crc == record.crc:
        crc_offsets.append(at + _LOCAL_CRC)
    if flags & _DESCRIPTOR:
        crc_at, end = _descriptor(source, record, end, limit)
        crc_offsets += crc_at
    return Entry(
        record.name.decode("utf-8", "backslashreplace"), method, record.crc,
        record.compressed, record.size, at, data_offset, end, tuple(sorted(crc_offsets)),
    )  # fmt: skip


def _descriptor(source: Source, record: _Record, at: int, limit: int) -> tuple[list[int], int]:
    """Where the data descriptor at `at` has its CRC, and where it ends; some writers leave it out.

    It comes with or without a signature and with sizes of 32 or 64 bits.
    """
    data = source.read(at, min(24, limit - at))
    crc = record.crc.to_bytes(4, "little")
    for magic in (_DESCRIPTOR_MAGIC, b""):
        for width in (4, 8):
            if max(record.compressed, record.size) >= 1 << 8 * width:
                continue
            sizes = (
                record.compressed.to_bytes(width, "little"),
                record.size.to_bytes(width, "little"),
            )
            expected = b"".join((magic, crc, *sizes))
            if data.startswith(expected):
                return [at + len(magic)], at + len(expected)
    return [], at
