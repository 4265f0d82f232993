"""Content-defined chunks: cut points move with the content, so an insertion changes few of them.

FastCDC (Xia and others, "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data
Deduplication", USENIX ATC 2016). The parameters are frozen by the manifest's specification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from git_theta_ext.manifest.rules import CHUNK_BYTES

MIN_BYTES = 128 << 10
AVERAGE_BYTES = 512 << 10
_NORMALISATION: Final = 1
_WINDOW_BYTES = 16 << 20


def chunk_lengths(read: Callable[[int, int], bytes], size: int) -> Iterator[int]:
    """The lengths of the chunks of `size` bytes, in order; a few megabytes are held at once.

    Args:
        read: gives the bytes at (offset, length).
        size: length of the content; the chunks' lengths add up to it.
    """
    from pyfastcdc import FastCDC

    cutter = FastCDC(
        avg_size=AVERAGE_BYTES,
        min_size=MIN_BYTES,
        max_size=CHUNK_BYTES,
        normalized_chunking=_NORMALISATION,
        seed=0,
    )
    position = 0
    while position < size:
        window = read(position, min(_WINDOW_BYTES, size - position))
        last = position + len(window) == size
        start = position
        for chunk in cutter.cut_buf(window):
            # A cut within CHUNK_BYTES of the window's end may be the window's, not the content's.
            if not last and start + len(window) - position < CHUNK_BYTES:
                break
            yield chunk.length
            position += chunk.length
