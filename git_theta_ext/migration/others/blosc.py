"""Chunks that Blosc 1 wrote, as Zarr has them: unpacked within limits, without the library.

Sources: c-blosc 1.21, README_HEADER.rst and blosc.c (`blosc_d`); lz4_Block_format.md.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import zstandard

from git_theta_ext.core.errors import FormatError

_HEADER = struct.Struct("<BBBBIII")
_SHUFFLED, _COPIED, _BIT_SHUFFLED, _WHOLE = 1, 2, 4, 16
_LZ4, _ZLIB, _ZSTD = 1, 3, 4
_MOST_SPLITS, _LEAST_SPLIT = 16, 128


def unpacked(data: bytes, most: int) -> bytes:
    """What a chunk holds.

    Args:
        data: the chunk.
        most: how many bytes it may hold.

    Raises:
        FormatError: it is damaged, holds more, or is of a codec that is not read (BloscLZ, Snappy).
    """
    if len(data) < _HEADER.size:
        raise FormatError("a chunk of Blosc is cut short")
    _, _, flags, width, nbytes, block, length = _HEADER.unpack_from(data)
    if nbytes > most or length != len(data) or not width:
        raise FormatError("a chunk of Blosc is not of the size that it says")
    if flags & _COPIED:
        found = data[_HEADER.size :]
        if len(found) != nbytes:
            raise FormatError("a chunk of Blosc is cut short")
        return found
    if not nbytes:
        return b""
    if not block:
        raise FormatError("a chunk of Blosc has blocks of no bytes")
    starts = -(-nbytes // block)
    if _HEADER.size + 4 * starts > len(data):
        raise FormatError("a chunk of Blosc is cut short")
    made = []
    for number, at in enumerate(struct.unpack_from(f"<{starts}I", data, _HEADER.size)):
        size = min(block, nbytes - number * block)
        splits = width if _is_split(flags, width, block, size) else 1
        part = _block(data, at, size, splits, flags >> 5)
        made.append(_in_order(part, width, flags))
    return b"".join(made)


def _is_split(flags: int, width: int, block: int, size: int) -> bool:
    """Whether each byte of the elements of a block was packed by itself."""
    wide = width > _MOST_SPLITS or block // width < _LEAST_SPLIT
    return not (flags & _WHOLE or wide or size != block)


def _block(data: bytes, at: int, size: int, splits: int, codec: int) -> bytes:
    each, parts = size // splits, []
    for _ in range(splits):
        if at + 4 > len(data):
            raise FormatError("a chunk of Blosc is cut short")
        (count,) = struct.unpack_from("<I", data, at)
        packed = data[at + 4 : at + 4 + count]
        if len(packed) != count:
            raise FormatError("a chunk of Blosc is cut short")
        parts.append(packed if count == each else _decoded(packed, each, codec))
        at += 4 + count
    return b"".join(parts)


def _decoded(packed: bytes, size: int, codec: int) -> bytes:
    try:
        if codec == _LZ4:
            found = lz4(packed, size)
        elif codec == _ZLIB:
            found = zlib.decompressobj().decompress(packed, size)
        elif codec == _ZSTD:
            found = zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
        else:
            raise FormatError("a chunk of Blosc is of a codec that is not read: BloscLZ or Snappy")
    except (zlib.error, zstandard.ZstdError) as error:
        raise FormatError(f"a chunk of Blosc is damaged: {error}") from error
    if len(found) != size:
        raise FormatError("a chunk of Blosc does not hold what it says")
    return found


def lz4(packed: bytes, size: int) -> bytes:
    """A block of LZ4 that holds `size` bytes.

    Raises:
        FormatError: it is damaged, or holds more.
    """
    made = bytearray()
    at, end = 0, len(packed)
    try:
        while at < end:
            token = packed[at]
            at += 1
            count = token >> 4
            if count == 15:
                count, at = _longer(packed, at, count)
            if at + count > end or len(made) + count > size:
                raise FormatError("a block of LZ4 is damaged")
            made += packed[at : at + count]
            at += count
            if at == end:
                break
            back = packed[at] | packed[at + 1] << 8
            at += 2
            count = token & 15
            if count == 15:
                count, at = _longer(packed, at, count)
            count += 4
            start = len(made) - back
            if not back or start < 0 or len(made) + count > size:
                raise FormatError("a block of LZ4 is damaged")
            if back >= count:
                made += made[start : start + count]
            else:  # it repeats itself
                made += (bytes(made[start:]) * (count // back + 1))[:count]
    except IndexError as error:
        raise FormatError("a block of LZ4 is cut short") from error
    return bytes(made)


def _longer(packed: bytes, at: int, count: int) -> tuple[int, int]:
    while True:
        byte = packed[at]
        at += 1
        count += byte
        if byte != 255:
            return count, at


def _in_order(part: bytes, width: int, flags: int) -> bytes:
    """The bytes of a block as they were before they were shuffled."""
    if flags & _BIT_SHUFFLED:
        count = len(part) // width // 8 * 8
        planes = np.frombuffer(part, np.uint8, count * width).reshape(width * 8, count // 8)
        bits = np.unpackbits(planes, axis=1, bitorder="little").T
        return np.packbits(bits, axis=1, bitorder="little").tobytes() + part[count * width :]
    if flags & _SHUFFLED and width > 1:
        count = len(part) // width
        body = np.frombuffer(part, np.uint8, count * width).reshape(width, count)
        return np.ascontiguousarray(body.T).tobytes() + part[count * width :]
    return part
