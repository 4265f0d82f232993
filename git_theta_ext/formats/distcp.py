"""PyTorch's distributed checkpoints: `torch.save` archives, one after another, in a `.distcp`.

Which item is what stands in the `.metadata` beside it, which is not read: items are called by
their position. Source: torch/distributed/checkpoint/filesystem.py (`_write_item`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.base import Crc32, Layout, Segment, SerializationId, Source, Span
from git_theta_ext.formats.layout.source import PartSource
from git_theta_ext.formats.torch import zipped
from git_theta_ext.formats.torch.names import LONE_NAME
from git_theta_ext.formats.zips.archive import count_entries

NAME = "distcp"
_END_MAGIC = b"PK\x05\x06"
_END_BYTES = 22
_WINDOW_BYTES = 4 << 20


def sniff(head: bytes, source: Source) -> bool:
    """The beginning of an archive by `torch.save`."""
    return zipped.sniff(head, source)


def layout(source: Source) -> Layout:
    """The layouts of all archives, one after another; tensors are called `item.N`.

    Raises:
        FormatError: an archive is damaged, or there are more than 65,536.
    """
    segments: list[Segment] = []
    aliases: dict[str, str] = {}
    start = misses = lost = items = 0
    remark = ""
    for end in _ends(source):
        try:
            found = zipped.layout(PartSource(source, start, end))
        except FormatError:
            # Whatever was read of it was read in vain, and may be read again from here.
            misses += 1
            lost += _entries(PartSource(source, start, end))
            if misses > limits.DISTCP_MISSES or lost > limits.DISTCP_ENTRIES_MISSED:
                raise
            continue
        remark = remark or found.remark
        first, prefix = len(segments), f"item.{items}"
        segments += [_moved(segment, first, prefix) for segment in found.segments]
        aliases |= {_name(prefix, key): _name(prefix, of) for key, of in found.aliases.items()}
        start, items = end, items + 1
        if items > limits.DISTCP_ITEMS:
            raise BoundError(f"distcp: more than {limits.DISTCP_ITEMS} items")
    if start != source.size:
        raise FormatError(f"distcp, offset {start}: not an archive of torch.save")
    return Layout(NAME, tuple(segments), aliases, remark)


def _ends(source: Source) -> Iterator[int]:
    """Offsets right after what may be the end record of an archive."""
    overlap = len(_END_MAGIC) - 1
    for start in range(0, source.size, _WINDOW_BYTES):
        window = source.read(start, min(_WINDOW_BYTES + overlap, source.size - start))
        at = -1
        while (at := window.find(_END_MAGIC, at + 1)) >= 0:
            if start + at + _END_BYTES <= source.size:
                yield start + at + _END_BYTES


def _entries(source: Source) -> int:
    try:
        return count_entries(source)
    except FormatError:
        return 0


def _name(prefix: str, name: str) -> str:
    return prefix if name == LONE_NAME else f"{prefix}.{name}"


def _moved(segment: Segment, first: int, prefix: str) -> Segment:
    """A segment of an archive whose segments now begin at number `first`."""
    if isinstance(segment, Span):
        tensor = replace(segment.tensor, name=_name(prefix, segment.tensor.name))
        return Span(tensor, segment.opaque)
    if isinstance(segment, Crc32):
        return Crc32(segment.first + first, segment.stop + first)
    if isinstance(segment, SerializationId):
        return SerializationId(
            tuple(c if isinstance(c, int) else (c[0] + first, c[1] + first) for c in segment.crcs)
        )
    return segment
