"""The structure of an HDF5 file: which datasets it holds, and what their object headers say.

Source: "HDF5 File Format Specification Version 3.0". Superblocks 0 to 3, object headers 1 and 2,
groups as symbol tables (B-tree version 1, local heap), link messages and fractal heaps. Only
structure is read, within fixed bounds. A group reached twice is entered once; a B-tree node reached
twice is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.base import Source
from git_theta_ext.formats.hdf5.dense import Heap, NameTree
from git_theta_ext.formats.layout.window import Window

MAGIC = b"\x89HDF\r\n\x1a\n"
LINK_INFO, LINK, CONTINUATION, SYMBOL_TABLE = 0x02, 0x06, 0x10, 0x11
_AHEAD = 512
_GROUP_NODE = 0


@dataclass(frozen=True, slots=True)
class Message:
    """A message of an object header: its type's number, whether it stands elsewhere, its bytes."""

    kind: int
    shared: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a version 1 B-tree: its level, and each child's key and address."""

    level: int
    children: tuple[tuple[bytes, int], ...]


class Hdf5File:
    """Reads the objects of a file."""

    def __init__(self, source: Source) -> None:
        """Read the superblock.

        Raises:
            FormatError: it is damaged, or of a version or with a user block not known here.
        """
        self.source = source
        self._steps = 0
        self._visited: set[int] = set()
        window = Window(source)
        if window.take(8) != MAGIC:
            raise FormatError("hdf5: no signature at offset 0")
        version = window.number(1)
        if version in (0, 1):
            window.skip(4)
            self.offset_size, self.length_size = window.number(1), window.number(1)
            window.skip(9 if version == 0 else 13)
        elif version in (2, 3):
            self.offset_size, self.length_size = window.number(1), window.number(1)
            window.skip(1)
        else:
            raise FormatError(f"hdf5: superblock version {version} at offset 8; known are 0 to 3")
        if self.offset_size not in (4, 8) or self.length_size not in (4, 8):
            raise FormatError(f"hdf5: offsets of {self.offset_size} bytes; expected 4 or 8")
        self.undefined = (1 << 8 * self.offset_size) - 1
        if window.number(self.offset_size):
            raise FormatError("hdf5: addresses that do not count from the start of the file")
        window.skip(3 * self.offset_size if version < 2 else 2 * self.offset_size)
        if version < 2:
            window.skip(self.offset_size)
        self._root = window.number(self.offset_size)

    def datasets(self) -> Iterator[tuple[str, int, list[Message]]]:
        """Path, address and messages of every object that is no group, in the order of names.

        An object of several names comes once for each, without being entered again.

        Raises:
            FormatError: a structure is damaged, or past a limit.
        """
        pending: list[tuple[str, int, int]] = [("", self._root, 0)]
        entered: set[int] = set()
        while pending:
            path, address, depth = pending.pop()
            self._spend()
            if depth > limits.HDF5_DEPTH:
                raise BoundError(
                    f"hdf5: more than {limits.HDF5_DEPTH} groups deep, at {path[:200]!r}"
                )
            messages = self.messages(address)
            if not {message.kind for message in messages} & {SYMBOL_TABLE, LINK_INFO, LINK}:
                yield path, address, messages
                continue
            if address in entered:
                continue
            entered.add(address)
            prefix = f"{path}/" if path else ""
            for name, target in sorted(self._links(messages), reverse=True):
                # Groups inside each other would else multiply what their names take.
                self._spend(2 * len(prefix + name))
                pending.append((prefix + name, target, depth + 1))

    def _spend(self, length: int = 0) -> None:
        """Count one more step, and `length` bytes that were read for it."""
        self._steps += 1 + (length >> 6)
        if self._steps > limits.HDF5_STEPS:
            raise BoundError(f"hdf5: more than {limits.HDF5_STEPS} steps to read the structure")

    def _window(self, start: int, stop: int | None = None) -> Window:
        return Window(self.source, start, stop, _AHEAD)

    # -- object headers ----------------------------------------------------------------------------

    def messages(self, address: int) -> list[Message]:
        """The messages of the object header at an address.

        Raises:
            FormatError: it is damaged.
        """
        window = self._window(address)
        start = window.take(4)
        found: list[Message] = []
        if start == b"OHDR":
            window.skip(1)
            flags = window.number(1)
            window.skip((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
            size = window.number(1 << (flags & 3))
            blocks = [(window.position, size)]
            self._collect(blocks, found, 2, flags)
            return found
        if start[0] != 1:
            raise FormatError(f"hdf5: no object header at offset {address}")
        window.skip(4)
        size = window.number(4)
        window.skip(4)
        self._collect([(window.position, size)], found, 1, 0)
        return found

    def _collect(
        self, blocks: list[tuple[int, int]], found: list[Message], version: int, flags: int
    ) -> None:
        """Read the blocks of a header, which are continued by others."""
        at = 0
        while at < len(blocks):
            start, size = blocks[at]
            at += 1
            if at > limits.HDF5_HEADER_BLOCKS:
                raise BoundError(
                    f"hdf5: an object header of more than {limits.HDF5_HEADER_BLOCKS} blocks"
                )
            if size > self.source.size - start:
                raise FormatError(f"hdf5: an object header of {size} bytes at offset {start}")
            window = self._window(start, start + size)
            if version == 2 and at > 1:
                if window.take(4) != b"OCHK":
                    raise FormatError(f"hdf5: no continued object header at offset {start}")
                window = self._window(start + 4, start + size - 4)
            head = 8 if version == 1 else 6 if flags & 4 else 4
            while window.left >= head:
                kind, length, mark = self._message_head(window, version, flags)
                self._spend(length)
                message = Message(kind, bool(mark & 2), window.take(length))
                if kind == CONTINUATION:
                    blocks.append(self._pair(message.data))
                elif kind:
                    found.append(message)

    @staticmethod
    def _message_head(window: Window, version: int, flags: int) -> tuple[int, int, int]:
        """Type, length and flags of the next message."""
        if version == 1:
            kind, length, mark = window.number(2), window.number(2), window.number(1)
            window.skip(3)
            return kind, length, mark
        kind, length, mark = window.number(1), window.number(2), window.number(1)
        window.skip(2 if flags & 4 else 0)
        return kind, length, mark

    def _pair(self, data: bytes) -> tuple[int, int]:
        """An address and a length."""
        if len(data) < self.offset_size + self.length_size:
            raise FormatError("hdf5: an address and a length are cut short")
        return self.address(data), int.from_bytes(
            data[self.offset_size : self.offset_size + self.length_size], "little"
        )

    def address(self, data: bytes, at: int = 0) -> int:
        """The address that stands in some bytes."""
        return int.from_bytes(data[at : at + self.offset_size], "little")

    # -- groups ------------------------------------------------------------------------------------

    def _links(self, messages: list[Message]) -> Iterator[tuple[str, int]]:
        """Names and addresses of a group's hard links."""
        for message in messages:
            if message.kind == SYMBOL_TABLE:
                if len(message.data) < 2 * self.offset_size:
                    raise FormatError("hdf5: a symbol table message is cut short")
                tree, heap = (
                    self.address(message.data),
                    self.address(message.data, self.offset_size),
                )
                yield from self._symbols(tree, self._heap(heap))
            elif message.kind == LINK:
                yield from self._link(message.data)
            elif message.kind == LINK_INFO:
                yield from self._dense(message.data)

    def _dense(self, data: bytes) -> Iterator[tuple[str, int]]:
        """The links of a group that has many."""
        at = 10 if len(data) > 1 and data[1] & 1 else 2
        if len(data) < at + 2 * self.offset_size:
            raise FormatError("hdf5: a link info message is cut short")
        heap, tree = self.address(data, at), self.address(data, at + self.offset_size)
        if self.undefined in (heap, tree):
            return
        sizes = (self.offset_size, self.length_size)
        names = NameTree(self._window, self._spend, tree, *sizes)
        store = Heap(self._window, self._spend, heap, *sizes)
        for place in names.places():
            message = store.read(place)
            self._spend(len(message))
            yield from self._link(message)

    def _link(self, data: bytes) -> Iterator[tuple[str, int]]:
        if len(data) < 2 or data[0] != 1:
            raise FormatError("hdf5: a link message of an unknown version")
        flags, at, kind = data[1], 2, 0
        if flags & 8:
            kind, at = data[at] if at < len(data) else 0, at + 1
        at += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        length, at = int.from_bytes(data[at : at + width], "little"), at + width
        if at + length + self.offset_size > len(data) and kind == 0:
            raise FormatError("hdf5: a link message is cut short")
        if kind == 0:
            name = data[at : at + length].decode("utf-8", "backslashreplace")
            yield name, self.address(data, at + length)

    def _heap(self, address: int) -> bytes:
        """The texts of a local heap."""
        window = self._window(address)
        if window.take(4) != b"HEAP":
            raise FormatError(f"hdf5: no local heap at offset {address}")
        window.skip(4)
        size = window.number(self.length_size)
        window.skip(self.length_size)
        start = window.number(self.offset_size)
        self._spend(size)
        return self.source.read(start, size)

    def _symbols(self, tree: int, heap: bytes) -> Iterator[tuple[str, int]]:
        """The names in an old-style group, with addresses; symbolic links are left out."""
        for address in self.leaves(tree, _GROUP_NODE, self.length_size):
            window = self._window(address[1])
            if window.take(4) != b"SNOD":
                raise FormatError(f"hdf5: no symbol table node at offset {address[1]}")
            window.skip(2)
            for _ in range(window.number(2)):
                self._spend()
                at, target = window.number(self.offset_size), window.number(self.offset_size)
                kind = window.number(4)
                window.skip(20)
                if kind == 2:  # a symbolic link, which leads to an object with a name of its own
                    continue
                end = heap.find(b"\0", at)
                if not at <= end <= at + limits.HDF5_NAME_BYTES:
                    raise FormatError(f"hdf5: a name at {at} of a heap of {len(heap)} bytes")
                self._spend(end - at)
                yield heap[at:end].decode("utf-8", "backslashreplace"), target

    # -- B-trees -----------------------------------------------------------------------------------

    def leaves(self, address: int, kind: int, key_size: int) -> Iterator[tuple[bytes, int]]:
        """Key and address of everything that a version 1 B-tree leads to, in its order.

        Raises:
            FormatError: it is damaged, a node comes twice, or it is past a limit.
        """
        pending = [(b"", address, -1)]
        while pending:
            key, place, level = pending.pop()
            if level == 0:
                yield key, place
                continue
            node = self._node(place, kind, key_size)
            if level not in (-1, node.level + 1):
                raise FormatError(f"hdf5: a B-tree node at offset {place} is of the wrong level")
            pending += [(key, child, node.level) for key, child in reversed(node.children)]

    def _node(self, address: int, kind: int, key_size: int) -> Node:
        """The B-tree node at an address, which no other node may lead to, too."""
        if address in self._visited:
            raise FormatError(f"hdf5: the B-tree node at offset {address} is reached twice")
        self._visited.add(address)
        window = self._window(address)
        if window.take(4) != b"TREE" or window.number(1) != kind:
            raise FormatError(f"hdf5: no B-tree node of type {kind} at offset {address}")
        level, count = window.number(1), window.number(2)
        if level > limits.HDF5_DEPTH:
            raise BoundError(f"hdf5: a B-tree of {level} levels at offset {address}")
        window.skip(2 * self.offset_size)
        self._spend(64 * count)
        children = tuple(
            (window.take(key_size), window.number(self.offset_size)) for _ in range(count)
        )
        return Node(level, children)
