"""Files that are compressed: recognised by their first bytes, to say what they cost.

Sources: joblib/compressor.py (zlib, gzip, bz2, xz, lzma of Python's own modules; lz4 frames); RFC
1952 (gzip), RFC 8878 (Zstandard), the .xz file format, and bzip2's own magic numbers.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable

from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.arrays import orbax
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.zips.archive import STORED, read_entries

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


_STREAMS = (
    (b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (_LZ4, "lz4"),
    *((b"BZh%d1AY&SY" % level, "bzip2") for level in range(1, 10)),
)  # fmt: skip
"""What the files of these programs begin with; each writes what is inside with `-dc`."""
_ZIP = b"PK\x03\x04"
_ZIPS = ("opaque", "npz", "keras", "zip")
"""Containers that a zip archive whose entries are deflated may be here."""

_CHUNKS = (
    "its arrays are compressed: one that changed is stored whole; saved without "
    "(Orbax: PyTreeCheckpointHandler(use_compression=False)) what changed in it is"
)


def sentence(source: Source, layout: Layout) -> str:
    """Why a file costs as much again with every version, and what to do; empty where it does not.

    Args:
        source: the file.
        layout: what it was recognised as.
    """
    container = layout.format
    if orbax.is_compressed(layout):
        return _CHUNKS
    head = source.read(0, min(HEAD_BYTES, source.size))
    if container in _ZIPS and head.startswith(_ZIP):
        return _deflated(source, container)
    if container != "opaque":
        return ""
    if how := pickle_within(head):
        return (
            f"stored as opaque bytes, for it is compressed ({how}); saved without "
            "(joblib.dump(model, file), no compress=) it is split by array, and what did not "
            "change is stored once"
        )
    program = next((name for magic, name in _STREAMS if head.startswith(magic)), "")
    if not program:
        return ""
    return (
        f"stored as opaque bytes, for it is compressed ({program}): every version costs as much "
        f"again; track what is inside instead, which this writes: {program} -dc FILE"
    )


def _deflated(source: Source, container: str) -> str:
    """The same of a zip archive of which most is deflated."""
    try:
        entries = read_entries(source)
    except FormatError:
        return ""
    size = sum(entry.compressed for entry in entries if entry.method != STORED)
    if 2 * size < source.size:
        return ""
    how = "numpy.savez" if container == "npz" else "zip -0"
    kept = "stored as opaque bytes" if container == "opaque" else "stored in opaque parts"
    return (
        f"{kept}, for its members are compressed: every version of them costs as much again; made "
        f"without compression ({how}) it is split by tensor"
    )
