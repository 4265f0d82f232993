"""Git's packs, read within limits and written piece by piece.

A patch comes from anybody. Git itself would unpack a pack of any size, so a pack is looked through
here first: every object is inflated once, in pieces, hashed, and counted. Nothing is written, and
no program is started.

Source: gitformat-pack(5).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.packages.patches.deltas import apply_delta

Write = Callable[[bytes], object]
"""Takes the next bytes of a pack."""

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
_OFS_DELTA, _REF_DELTA = 6, 7
NAMES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
_PIECE = 1 << 20
_HEAD = 64
"""More than the longest head of an entry: its length, and the name of its base."""


@dataclass(slots=True)
class PackEntry:
    """One object of a pack: what it is, and where its deflated bytes lie in the file.

    `kind` is that of the object; `base` is the name of the object that it is stored as a delta of.
    `sha256` is that of the content of a blob that is stored whole, which is what our objects are.
    """

    kind: int
    start: int
    stop: int
    size: int
    base: str = ""
    sha256: str = ""
    depth: int = 0


class PackReader:
    """The objects of a pack, all hashed, none kept."""

    def __init__(self, file: IO[bytes], start: int, algorithm: str) -> None:
        """Look through a pack.

        Args:
            file: can be sought in; stays open as long as objects are read.
            start: where in the file the pack begins; it ends with the file.
            algorithm: `sha1` or `sha256`, by which Git names objects in it.

        Raises:
            FormatError: it is damaged, or past a limit.
        """
        self._file, self._start, self._algorithm = file, start, algorithm
        self._length = file.seek(0, 2)
        self._width = hashlib.new(algorithm, usedforsecurity=False).digest_size
        self._left = limits.PATCH_INFLATED + limits.PATCH_INFLATED_PER_BYTE * self._length
        self._at: dict[int, str] = {}
        self.entries: dict[str, PackEntry] = {}
        self.by_sha256: dict[str, PackEntry] = {}
        try:
            self._scan()
        except zlib.error as error:
            raise FormatError(f"an object cannot be inflated: {error}") from error

    def _scan(self) -> None:
        """Look through all objects, from the first to the last, and name them."""
        head = self._bytes(self._start, 12)
        count = int.from_bytes(head[8:], "big")
        if head[:4] != b"PACK" or head[4:8] != b"\0\0\0\2":
            raise FormatError("what follows its first lines is no pack of Git")
        most = limits.PATCH_OBJECTS
        if count > most:
            raise FormatError(f"it has {count:,} objects; at most {most:,} are read")
        position = self._start + 12
        waiting: list[tuple[int, PackEntry]] = []
        for _ in range(count):
            position = self._scan_entry(position, waiting)
        if position + self._width != self._length:
            raise FormatError("it does not end where its objects end")
        if self._checksum(position) != self._bytes(position, self._width):
            raise FormatError("its checksum is wrong: it was damaged on its way")
        self._resolve(waiting)

    def _bytes(self, start: int, length: int) -> bytes:
        self._file.seek(start)
        found = self._file.read(length)
        if len(found) != length:
            raise FormatError("it is cut short")
        return found

    def _checksum(self, stop: int) -> bytes:
        digest = hashlib.new(self._algorithm, usedforsecurity=False)
        self._file.seek(self._start)
        left = stop - self._start
        while left:
            piece = self._file.read(min(left, _PIECE))
            digest.update(piece)
            left -= len(piece)
        return digest.digest()

    def _scan_entry(self, position: int, waiting: list[tuple[int, PackEntry]]) -> int:
        """Note the entry at a position; where the next one begins."""
        self._file.seek(position)
        head = self._file.read(_HEAD)
        kind, size, used = _kind_and_size(head)
        base = ""
        if kind == _OFS_DELTA:
            distance, used = _distance(head, used)
            base = f"@{position - distance}"
        elif kind == _REF_DELTA:
            base, used = head[used : used + self._width].hex(), used + self._width
        elif kind not in NAMES:
            raise FormatError(f"an object of the unknown kind {kind}")
        entry = PackEntry(kind, position + used, 0, size, base)
        if base:
            if size > limits.PATCH_OBJECT_BYTES:
                raise FormatError(f"a delta of {size:,} bytes")
            for piece in self._inflated(entry, first=True):
                self._spend(len(piece))
            waiting.append((position, entry))
        else:
            self._at[position] = self._note(entry)
        return entry.stop

    def _note(self, entry: PackEntry) -> str:
        """Hash an object that is stored whole; its name."""
        digest = hashlib.new(self._algorithm, usedforsecurity=False)
        digest.update(b"%s %d\0" % (NAMES[entry.kind], entry.size))
        plain = hashlib.sha256()
        for piece in self._inflated(entry, first=True):
            self._spend(len(piece))
            digest.update(piece)
            if entry.kind == BLOB:
                plain.update(piece)
        name = digest.hexdigest()
        if entry.kind == BLOB:
            entry.sha256 = plain.hexdigest()
            self.by_sha256[entry.sha256] = entry
        self.entries[name] = entry
        return name

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise FormatError("it would unpack to far more than a patch holds")

    def _inflated(self, entry: PackEntry, *, first: bool = False) -> Iterator[bytes]:
        """The bytes of an entry as they are stored, in pieces; at first its end is found."""
        inflate = zlib.decompressobj()
        position, made = entry.start, 0
        step = min(_PIECE, max(256, entry.size + 64))
        data = b""
        while not inflate.eof:
            if not data:
                self._file.seek(position)
                data = self._file.read(step)
                if not data:
                    raise FormatError("it is cut short")
                position += len(data)
            piece = inflate.decompress(data, _PIECE)
            data = inflate.unconsumed_tail
            made += len(piece)
            if made > entry.size:
                raise FormatError("an object is longer than it says")
            if piece:
                yield piece
        if made != entry.size:
            raise FormatError("an object is shorter than it says")
        if first:
            entry.stop = position - len(inflate.unused_data)

    def _resolve(self, waiting: list[tuple[int, PackEntry]]) -> None:
        """Name every object that is stored as a delta: first those of whole ones, then of these.

        The content of a base is at hand while what is made of it is named, so that the work is in
        proportion to what comes out.
        """
        under: dict[int | str, list[tuple[int, PackEntry]]] = {}
        for position, entry in waiting:
            key = int(entry.base[1:]) if entry.base[0] == "@" else entry.base
            under.setdefault(key, []).append((position, entry))
        named = 0
        for position, root in list(self._at.items()):
            above = [*under.pop(position, ()), *under.pop(root, ())]
            if not above:
                continue
            content = self._content(self.entries[root])
            self._spend(len(content))
            ways = [(root, content, one) for one in above]
            while ways:
                base, content, (place, entry) = ways.pop()
                name, content = self._name_delta(entry, base, content)
                named += 1
                above = [*under.pop(place, ()), *under.pop(name, ())]
                ways += [(name, content, one) for one in above]
        if named < len(waiting):
            raise FormatError("an object is stored as a change of one that is not in it")

    def _name_delta(self, entry: PackEntry, base: str, content: bytes) -> tuple[str, bytes]:
        """Name an object whose base is known; its name and content."""
        below = self.entries[base]
        entry.kind, entry.base, entry.depth = below.kind, base, below.depth + 1
        if entry.depth > limits.PATCH_DELTAS:
            raise FormatError(f"more than {limits.PATCH_DELTAS} deltas on each other")
        made = apply_delta(content, b"".join(self._inflated(entry)))
        self._spend(len(made))
        head = b"%s %d\0" % (NAMES[entry.kind], len(made))
        name = hashlib.new(self._algorithm, head + made, usedforsecurity=False).hexdigest()
        self.entries[name] = entry
        return name, made

    def _content(self, entry: PackEntry) -> bytes:
        """The content of an object, however it is stored, as far as memory is meant for it."""
        deltas = []
        while entry.base:
            deltas.append(b"".join(self._inflated(entry)))
            entry = self.entries[entry.base]
        if entry.size > limits.PATCH_OBJECT_BYTES:
            raise FormatError(f"an object of {entry.size:,} bytes, where a small one is expected")
        content = b"".join(self._inflated(entry))
        for delta in reversed(deltas):
            content = apply_delta(content, delta)
        return content

    def read(self, name: str, kind: int) -> bytes:
        """The content of an object of a kind.

        Raises:
            FormatError: it is not there, of another kind, or too long to be held.
        """
        entry = self.entries.get(name)
        if entry is None or entry.kind != kind:
            raise FormatError(f"there is no {NAMES[kind].decode()} {name} in it")
        return self._content(entry)

    def pieces(self, entry: PackEntry) -> Iterator[bytes]:
        """The content of an object that is stored whole, in pieces."""
        if entry.base:
            raise FormatError("an object is stored as a delta, where it must be whole")
        yield from self._inflated(entry)

    def write_some(self, names: Iterable[str], write: Write) -> None:
        """Write a pack of some objects, as they are stored here; their bases go with them."""
        chosen: dict[str, PackEntry] = {}
        for name in names:
            while name and name not in chosen:
                chosen[name] = self.entries[name]
                name = chosen[name].base
        writer = PackWriter(write, len(chosen), self._algorithm)
        for entry in sorted(chosen.values(), key=lambda one: one.start):
            writer.put(entry, self._raw(entry))
        writer.finish()

    def _raw(self, entry: PackEntry) -> Iterator[bytes]:
        for start in range(entry.start, entry.stop, _PIECE):
            yield self._bytes(start, min(_PIECE, entry.stop - start))


class PackWriter:
    """Writes a pack, whose number of objects is known before."""

    def __init__(self, write: Write, count: int, algorithm: str) -> None:
        """`algorithm` is that of the names of its objects."""
        self._write, self._algorithm = write, algorithm
        self._digest: Any = hashlib.new(algorithm, usedforsecurity=False)
        self.raw(b"PACK" + (2).to_bytes(4, "big") + count.to_bytes(4, "big"))

    def raw(self, data: bytes) -> None:
        """Bytes that are part of it already."""
        self._digest.update(data)
        self._write(data)

    def add(self, kind: int, size: int, pieces: Iterable[bytes], level: int) -> str:
        """An object; its name.

        Args:
            kind: of the object.
            size: its length in bytes.
            pieces: its content, of that length.
            level: of zlib; 0 for what is compressed already.
        """
        name = hashlib.new(self._algorithm, usedforsecurity=False)
        name.update(b"%s %d\0" % (NAMES[kind], size))
        deflate = zlib.compressobj(level)
        self.raw(_head(kind, size))
        for piece in pieces:
            name.update(piece)
            self.raw(deflate.compress(piece))
        self.raw(deflate.flush())
        return name.hexdigest()

    def put(self, entry: PackEntry, raw: Iterable[bytes]) -> None:
        """An object of another pack, as it is stored there; a delta names its base."""
        self.raw(_head(_REF_DELTA if entry.base else entry.kind, entry.size))
        if entry.base:
            self.raw(bytes.fromhex(entry.base))
        for piece in raw:
            self.raw(piece)

    def finish(self) -> None:
        """Write the checksum."""
        self._write(self._digest.digest())


def _head(kind: int, size: int) -> bytes:
    """How an entry begins."""
    byte, size = kind << 4 | size & 15, size >> 4
    found = bytearray()
    while size:
        found.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    found.append(byte)
    return bytes(found)


def _kind_and_size(head: bytes) -> tuple[int, int, int]:
    """Kind and size of an entry, and how many bytes say so."""
    if not head:
        raise FormatError("it is cut short")
    kind, size, shift, used = head[0] >> 4 & 7, head[0] & 15, 4, 1
    while head[used - 1] & 0x80:
        if used >= min(len(head), 10):
            raise FormatError("the length of an object is damaged")
        size |= (head[used] & 0x7F) << shift
        shift, used = shift + 7, used + 1
    return kind, size, used


def _distance(head: bytes, used: int) -> tuple[int, int]:
    """How far back the base of a delta lies, and where what says so ends."""
    if used >= len(head):
        raise FormatError("it is cut short")
    found = head[used] & 0x7F
    while head[used] & 0x80:
        used += 1
        if used >= min(len(head), 24):
            raise FormatError("the place of the base of a delta is damaged")
        found = (found + 1) << 7 | head[used] & 0x7F
    return found, used + 1
