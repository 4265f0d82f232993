"""Sorted string tables as LevelDB writes them: what TensorFlow's `.index` files are.

Source: LevelDB, doc/table_format.md, and TensorFlow's core/lib/io/table. Blocks are read only if
they are stored uncompressed, as TensorFlow writes them; every block's CRC is checked.
"""

from __future__ import annotations

from collections.abc import Iterator

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.base import Source
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.layout.window import Window
from git_theta_ext.formats.tensorflow.crc32c import crc32c, masked

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_BYTES = 5


def entries(source: Source) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values, in the order of the keys.

    Raises:
        FormatError: this is no such table, or it is damaged, compressed or past a limit.
    """
    if source.size < _FOOTER_BYTES:
        raise FormatError("table: too short")
    footer = Window(source, source.size - _FOOTER_BYTES)
    _handle(footer)
    index = _handle(footer)
    if int.from_bytes(source.read(source.size - 8, 8), "little") != _MAGIC:
        raise FormatError(f"table: no magic number at offset {source.size - 8}")
    total = 0
    for number, (_, value) in enumerate(_block(source, *index)):
        if number >= limits.TABLE_BLOCKS:
            raise BoundError(f"table: more than {limits.TABLE_BLOCKS} blocks")
        handle = _handle(Window(BytesSource(value)))
        # A block may be named again and again, and be long without holding anything.
        total += handle[1]
        if total > limits.TABLE_BYTES:
            raise BoundError(f"table: more than {limits.TABLE_BYTES} bytes of blocks")
        for key, content in _block(source, *handle):
            total += len(key) + len(content)
            if total > limits.TABLE_BYTES:
                raise BoundError(f"table: more than {limits.TABLE_BYTES} bytes of keys and values")
            yield key, content


def _handle(window: Window) -> tuple[int, int]:
    """Offset and length of a block."""
    return window.varint(), window.varint()


def _block(source: Source, offset: int, length: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of one block, in order, after its CRC-32C was found right."""
    if length > limits.TABLE_BLOCK_BYTES:
        raise BoundError(f"table: a block of {length} bytes at offset {offset}")
    trailer = source.read(offset + length, _TRAILER_BYTES)
    if trailer[0]:
        raise FormatError(f"table: the block at offset {offset} is compressed")
    found = masked(crc32c(source, offset, length + 1))
    if found != int.from_bytes(trailer[1:], "little"):
        raise FormatError(f"table: the block at offset {offset} does not have its CRC")
    data = BytesSource(source.read(offset, length))
    count = int.from_bytes(data.read(length - 4, 4), "little")
    window = Window(data, 0, length - 4 - 4 * count)
    key = b""
    while window.left > 0:
        shared, fresh, size = window.varint(), window.varint(), window.varint()
        if shared > len(key) or shared + fresh > limits.TABLE_KEY_BYTES:
            raise FormatError(f"table: a key in the block at offset {offset} is damaged")
        key = key[:shared] + window.take(fresh)
        yield key, window.take(size)
