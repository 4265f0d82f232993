"""Pickles that joblib compressed: recognised by their first bytes, to say what they cost.

Source: joblib/compressor.py (zlib, gzip, bz2, xz, lzma of Python's own modules; lz4 frames).
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable

_PICKLE = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
HEAD_BYTES = 64 << 10
"""Enough of a file to tell."""
_LZ4 = b"\x04\x22\x4d\x18"
_LZ4_HEAD = 40
"""A frame's header has up to 19 bytes, and a block's first four; its first bytes are literal."""
_LZMA_BYTES = 128 << 20
_READERS: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (b"\x78", "zlib", lambda head: zlib.decompressobj().decompress(head, 2)),
    (b"\x1f\x8b", "gzip", lambda head: zlib.decompressobj(31).decompress(head, 2)),
    (b"BZh", "bz2", lambda head: bz2.BZ2Decompressor().decompress(head, 2)),
    (
        b"\xfd7zXZ\0",
        "xz",
        lambda head: lzma.LZMADecompressor(memlimit=_LZMA_BYTES).decompress(head, 2),
    ),
    (
        b"\x5d\0\0",
        "lzma",
        lambda head: lzma.LZMADecompressor(memlimit=_LZMA_BYTES).decompress(head, 2),
    ),
)


def pickle_within(head: bytes) -> str:
    """How the pickle is compressed that a file begins with; empty where it does not, or in doubt.

    Args:
        head: its first bytes; no more than two bytes are unpacked. Of a file whose first block is
            longer than `head` bz2 tells nothing.
    """
    if head.startswith(_LZ4):
        return "lz4" if any(mark in head[4:_LZ4_HEAD] for mark in _PICKLE) else ""
    for magic, name, first_bytes in _READERS:
        if head.startswith(magic):
            try:
                return name if first_bytes(head).startswith(_PICKLE) else ""
            except (zlib.error, lzma.LZMAError, OSError, EOFError, MemoryError):
                return ""
    return ""
