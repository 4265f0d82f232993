"""tar archives (ustar, pax, GNU) of checkpoints: NeMo's `.nemo`, and what people pack by hand.

Each member is split as it is alone. Sources: POSIX.1-2017, pax, "ustar Interchange Format" and
"pax Extended Header"; GNU tar's manual, "Basic Tar Format"; NeMo, save_restore_connector.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.archives.members import Members
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout.tiles import assemble, gaps

NAME = "tar"
_BLOCK = 512
_SUM = slice(148, 156)
_FILES = (b"0", b"\0", b"7")
_EMPTY = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Links, devices, folders, pipes: no data follows, whatever their size says."""
_NAME_OF_NEXT, _LINK_OF_NEXT, _PAX, _PAX_OF_ALL = b"L", b"K", b"x", b"g"


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its path, and where its bytes lie."""

    name: str
    offset: int
    length: int


def sniff(head: bytes, source: Source) -> bool:
    """A header of ustar, pax or GNU tar whose checksum is right."""
    return len(head) == _BLOCK and head[257:262] == b"ustar" and _sum_fits(head)


def layout(source: Source) -> Layout:
    """The layouts of all members that are containers; tensors are called `MEMBER/TENSOR`.

    Raises:
        FormatError: damaged, sparse, past a limit, or without such a member.
    """
    found = Members(source)
    # All headers first: past a limit, nothing of what is inside has been read.
    for member in list(members(source)):
        found.add(member.name, member.offset, member.length)
    found.pieces += list(gaps(source, found.pieces, found.names))
    return found.layout(NAME, assemble(source, found.pieces))


def members(source: Source) -> Iterator[Member]:
    """Every regular file of an archive, in order.

    Raises:
        FormatError: a header is damaged, a member ends after the file, or is sparse.
    """
    position = 0
    name: str | None = None
    size: int | None = None
    for _ in range(limits.TAR_MEMBERS):
        if position == source.size:
            return
        head = source.read(position, _BLOCK)
        if not any(head):
            return
        if not _sum_fits(head):
            raise FormatError(f"tar: the header at offset {position} is damaged")
        kind, start = head[156:157], position + _BLOCK
        length = _number(head[124:136])
        if kind in _EMPTY:
            length = 0
        elif size is not None and kind in _FILES:
            length = size
        if length > source.size - start:
            raise FormatError(f"tar: a member of {length} bytes at offset {start}")
        position = min(start + -(-length // _BLOCK) * _BLOCK, source.size)
        if kind == _NAME_OF_NEXT:
            name = _text(_short(source, start, length).rstrip(b"\0"))
        elif kind == _PAX:
            records = _records(_short(source, start, length))
            name = records.get("path", name)
            size = _decimal(records["size"]) if "size" in records else None
        elif kind == _PAX_OF_ALL:
            if {"size", "path"} & _records(_short(source, start, length)).keys():
                raise FormatError(f"tar: one name or size for all members at offset {start}")
        elif kind != _LINK_OF_NEXT:
            if kind in _FILES:
                yield Member(_own_name(head) if name is None else name, start, length)
            elif kind not in _EMPTY:
                raise FormatError(f"tar: a member of kind {kind!r} at offset {start}")
            name = size = None
    raise BoundError(f"tar: more than {limits.TAR_MEMBERS} members")


def _sum_fits(head: bytes) -> bool:
    """Whether the checksum is that of the header, its own bytes taken as spaces."""
    try:
        return _number(head[_SUM]) == sum(head) - sum(head[_SUM]) + 8 * 0x20
    except FormatError:
        return False


def _number(text: bytes) -> int:
    """An octal number; of GNU also a binary one, where the first bit is set."""
    if text[:1] == b"\x80":
        return int.from_bytes(text[1:], "big")
    digits = text.split(b"\0", 1)[0].strip(b" ")
    if not all(0x30 <= digit <= 0x37 for digit in digits):
        raise FormatError(f"tar: {text!r} is no number")
    return int(digits or b"0", 8)


def _own_name(head: bytes) -> str:
    name = head[:100].split(b"\0", 1)[0]
    # GNU's own format has times where ustar has the rest of a long path.
    folder = head[345:500].split(b"\0", 1)[0] if head[257:263] == b"ustar\0" else b""
    return _text(folder + b"/" + name if folder else name)


def _short(source: Source, start: int, length: int) -> bytes:
    if length > limits.TAR_HEADER_BYTES:
        raise BoundError(f"tar: a header of {length} bytes; at most {limits.TAR_HEADER_BYTES}")
    return source.read(start, length)


def _records(data: bytes) -> dict[str, str]:
    """What a pax header says: lines of `LENGTH KEY=VALUE`, their own length counted too."""
    found = {}
    while data:
        digits, space, _ = data[:24].partition(b" ")
        length = _decimal(_text(digits)) if space else 0
        line = data[len(digits) + 1 : length]
        if length > len(data) or not line.endswith(b"\n"):
            raise FormatError("tar: a pax header that cannot be read")
        key, _, value = line[:-1].partition(b"=")
        found[_text(key)] = _text(value)
        data = data[length:]
    return found


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise FormatError(f"tar: {text!r} is no number")
    return int(text)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
