"""TensorStore's OCDBT: a B+tree of keys and values in files, of which a manifest names the root.

Only the newest version is read, and only where everything lies, not the values. Nodes are believed
where their CRC-32C agrees. Source: TensorStore, tensorstore/kvstore/ocdbt/index.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.layout.window import Window
from git_theta_ext.formats.tensorflow.crc32c import crc32c

FILE = "manifest.ocdbt"
_MANIFEST, _VERSIONS, _NODE = 0x0CDB3A2A, 0x0CDB1234, 0x0CDB20DE
_HEAD_BYTES = 14
_CRC_BYTES = 4

Read = Callable[[str, int, int], bytes | None]
"""Gives the bytes of a file, by its path from the database, at an offset, of a length."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value: in the tree itself (`data`), or at an offset of a file, in bytes."""

    length: int
    data: bytes | None
    file: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    """A data file: the part of its path that nodes in it add to theirs, and the rest."""

    base: str
    rest: str


@dataclass(frozen=True, slots=True)
class _Node:
    """Where a node lies; what its keys begin with, and the paths of its files."""

    file: _File
    offset: int
    length: int
    height: int
    prefix: bytes = b""


def begins(head: bytes) -> bool:
    """Whether a file begins with a manifest or a node."""
    return int.from_bytes(head[:4], "big") in (_MANIFEST, _VERSIONS, _NODE)


def check_frames(data: bytes) -> None:
    """Check that bytes are a manifest, or nodes one after another, by their checksums.

    Raises:
        FormatError: they are not.
    """
    start = nodes = 0
    while start < len(data):
        nodes += 1
        if nodes > limits.OCDBT_NODES:
            raise BoundError(f"ocdbt: more than {limits.OCDBT_NODES} nodes")
        length = int.from_bytes(data[start + 4 : start + 12], "little")
        frame = data[start : start + length]
        if not begins(frame) or len(frame) != length:
            raise FormatError(f"ocdbt: no node at offset {start}")
        _check_frame(frame)
        start += length


def body_of(data: bytes) -> bytes:
    """The content of a manifest or of one node, decompressed.

    Raises:
        FormatError: it is none, damaged, or past a limit.
    """
    _check_frame(data)
    body = data[_HEAD_BYTES:-_CRC_BYTES]
    return _decompressed(body) if data[13] else body


def values(manifest: bytes, read: Read) -> Iterator[tuple[str, Value]]:
    """Keys and values of the newest version, in the order of the keys.

    Args:
        manifest: all bytes of a `manifest.ocdbt`.
        read: gives parts of the data files; None where one is not there.

    Raises:
        FormatError: damaged, of another version, past a limit, or a file is not there.
    """
    root = _root(_Body(manifest, _MANIFEST))
    pending = [root] if root is not None else []
    nodes = total = keys = 0
    while pending:
        node = pending.pop()
        nodes += 1
        if nodes + len(pending) > limits.OCDBT_NODES:
            raise BoundError(f"ocdbt: more than {limits.OCDBT_NODES} nodes")
        if node.length > limits.OCDBT_NODE_BYTES:
            raise BoundError(f"ocdbt: a node of {node.length} bytes")
        data = read(node.file.base + node.file.rest, node.offset, node.length)
        if data is None:
            raise FormatError("ocdbt: a file with a part of the tree is not there")
        body = _Body(data, _NODE)
        total += body.left
        if total > limits.OCDBT_BYTES:
            raise BoundError(f"ocdbt: more than {limits.OCDBT_BYTES} bytes of nodes")
        if body.number(1) != node.height:
            raise FormatError("ocdbt: a node of another height")
        files = _files(body, node.file.base)
        count = body.count()
        if node.height:
            pending += reversed(list(_children(body, files, count, node)))
            continue
        keys += count
        if keys > limits.OCDBT_KEYS:
            raise BoundError(f"ocdbt: more than {limits.OCDBT_KEYS} keys")
        yield from _entries(body, files, count, node.prefix)


class _Body(Window):
    """The content of a node or a manifest, decompressed; what it lists is no longer than it."""

    def __init__(self, data: bytes, magic: int) -> None:
        """Check the frame.

        Raises:
            FormatError: it is not of this kind, damaged, or past a limit.
        """
        if int.from_bytes(data[:4], "big") != magic:
            raise FormatError("ocdbt: no node")
        super().__init__(BytesSource(body_of(data)))

    def count(self) -> int:
        """A number of items; each takes a byte at least."""
        found = self.varint()
        if found > self.left:
            raise FormatError(f"ocdbt: {found} items in {self.left} bytes")
        if found > limits.OCDBT_KEYS:
            raise BoundError(f"ocdbt: a node of {found} keys or files")
        return found

    def varints(self, count: int) -> list[int]:
        """So many numbers."""
        return [self.varint() for _ in range(count)]


def _check_frame(data: bytes) -> None:
    """Check the length, the version and the checksum of a node or a manifest."""
    if len(data) < _HEAD_BYTES + _CRC_BYTES or int.from_bytes(data[4:12], "little") != len(data):
        raise FormatError("ocdbt: a node of another length")
    if data[12] or data[13] > 1:
        raise FormatError("ocdbt: a node of another version")
    stop = len(data) - _CRC_BYTES
    if crc32c(BytesSource(data), 0, stop) != int.from_bytes(data[stop:], "little"):
        raise FormatError("ocdbt: a node does not have its checksum")


def _decompressed(data: bytes) -> bytes:
    import zstandard

    reader = zstandard.ZstdDecompressor(max_window_size=limits.ZSTD_WINDOW_BYTES)
    try:
        with reader.stream_reader(data) as stream:
            found: bytes = stream.read(limits.OCDBT_NODE_BYTES + 1)
    except zstandard.ZstdError as error:
        raise FormatError("ocdbt: a node cannot be decompressed") from error
    if len(found) > limits.OCDBT_NODE_BYTES:
        raise BoundError(f"ocdbt: a node of more than {limits.OCDBT_NODE_BYTES} bytes")
    return found


def _root(body: _Body) -> _Node | None:
    """The root of the newest version; None where nothing was written."""
    body.skip(16)  # the database's id
    if body.varint():
        raise FormatError("ocdbt: several manifests")
    body.varints(2)
    body.skip(1)
    method = body.varint()
    if method > 1:
        raise FormatError("ocdbt: a compression that is not known")
    body.skip(4 * method)
    files = _files(body, "")
    count = body.count()
    if not count:
        return None
    body.varints(count)
    heights = body.take(count)
    chosen, offsets, lengths = body.varints(count), body.varints(count), body.varints(count)
    if lengths[-1] == 0 or offsets[-1] == (1 << 64) - 1:
        return None
    return _Node(_file(files, chosen[-1]), offsets[-1], lengths[-1], heights[-1])


def _files(body: _Body, above: str) -> list[_File]:
    """The table of data files of a node whose own file lies in the folder `above`."""
    count = body.count()
    shared = [0, *body.varints(count - 1)] if count else []
    lengths, bases = body.varints(count), body.varints(count)
    found: list[_File] = []
    path = b""
    total = 0
    for common, length, base in zip(shared, lengths, bases, strict=True):
        if common > len(path):
            raise FormatError("ocdbt: a path without its beginning")
        path = path[:common] + body.take(length)
        total += len(path) + len(above)
        if base > len(path) or total > limits.OCDBT_BYTES:
            raise FormatError("ocdbt: a path without an end")
        found.append(_File(above + _text(path[:base]), _text(path[base:])))
    return found


def _file(files: Sequence[_File], number: int) -> _File:
    if number >= len(files):
        raise FormatError("ocdbt: a file that is not in the table")
    return files[number]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _keys(
    body: _Body, count: int, prefix: bytes, *, subtrees: bool
) -> tuple[list[bytes], list[int]]:
    """The keys of a node, and of each how much all keys below share."""
    if not count:
        raise FormatError("ocdbt: a node without entries")
    shared, lengths = [0, *body.varints(count - 1)], body.varints(count)
    common = body.varints(count) if subtrees else []
    found: list[bytes] = []
    key = b""
    total = 0
    for start, length in zip(shared, lengths, strict=True):
        if start > len(key):
            raise FormatError("ocdbt: a key without its beginning")
        key = key[:start] + body.take(length)
        total += len(prefix) + len(key)
        if total > limits.OCDBT_BYTES:
            raise BoundError(f"ocdbt: more than {limits.OCDBT_BYTES} bytes of keys")
        found.append(prefix + key)
    return found, common


def _children(body: _Body, files: Sequence[_File], count: int, node: _Node) -> Iterator[_Node]:
    keys, common = _keys(body, count, node.prefix, subtrees=True)
    chosen, offsets, lengths = body.varints(count), body.varints(count), body.varints(count)
    for key, shared, file, offset, length in zip(
        keys, common, chosen, offsets, lengths, strict=True
    ):
        prefix = key[: len(node.prefix) + shared]
        yield _Node(_file(files, file), offset, length, node.height - 1, prefix)


def _entries(
    body: _Body, files: Sequence[_File], count: int, prefix: bytes
) -> Iterator[tuple[str, Value]]:
    keys, _ = _keys(body, count, prefix, subtrees=False)
    lengths, kinds = body.varints(count), body.varints(count)
    if any(kind > 1 for kind in kinds):
        raise FormatError("ocdbt: a value of a kind that is not known")
    outside = sum(kinds)
    chosen, offsets = iter(body.varints(outside)), iter(body.varints(outside))
    for key, length, kind in zip(keys, lengths, kinds, strict=True):
        if kind:
            file = _file(files, next(chosen))
            yield _text(key), Value(length, None, file.base + file.rest, next(offsets))
        else:
            yield _text(key), Value(length, body.take(length))
