"""PyTorch's distributed checkpoints: `torch.save` archives, one after another, in a `.distcp`.

Which item is what stands in the `.metadata` beside it. Where that fits, tensors have their names;
otherwise items are called by their position. Source: torch/distributed/checkpoint/filesystem.py
(`_write_item`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from functools import partial

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Segment, Source, Span
from git_theta_ext.formats.layout.nested import moved
from git_theta_ext.formats.layout.skeleton import Skeleton
from git_theta_ext.formats.layout.source import PartSource
from git_theta_ext.formats.pickles.contents import Contents, DescribedFile, Leaves, contents_of
from git_theta_ext.formats.torch import distributed, zipped
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
        first, rename = len(segments), partial(_name, f"item.{items}")
        segments += [moved(segment, first, rename) for segment in found.segments]
        aliases |= {rename(name): rename(of) for name, of in found.aliases.items()}
        start, items = end, items + 1
        if items > limits.DISTCP_ITEMS:
            raise BoundError(f"distcp: more than {limits.DISTCP_ITEMS} items")
    if start != source.size:
        raise FormatError(f"distcp, offset {start}: not an archive of torch.save")
    return Layout(NAME, tuple(segments), aliases, remark)


def layout_beside(source: Source, path: str, metadata: Source) -> Layout:
    """The layout of a data file whose items a `.metadata` names.

    Raises:
        FormatError: the `.metadata` is damaged, or of another file: its items do not cover this
            one, or a tensor has another shape.
    """
    segments: list[Segment] = []
    aliases: dict[str, str] = {}
    position, remark = 0, ""
    for item in distributed.items_of(metadata, posixpath.basename(path)):
        stop = position + item.length
        if item.offset != position or stop > source.size:
            raise FormatError(f"distcp: item {item.name!r} is not where the .metadata has it")
        found = _told(PartSource(source, position, stop), item)
        first, position, rename = len(segments), stop, partial(_name, item.name)
        segments += [moved(segment, first, rename) for segment in found.segments]
        aliases |= {rename(name): rename(of) for name, of in found.aliases.items()}
        remark = remark or found.remark
    if position != source.size:
        raise FormatError("distcp: the .metadata says nothing of the end of the file")
    return Layout(NAME, tuple(segments), aliases, remark)


def _told(source: Source, item: distributed.Item) -> Layout:
    """The layout of one item; what is no archive of torch.save is bytes."""
    try:
        found = zipped.layout(source)
    except FormatError:
        if item.shape is not None or not source.size:
            raise
        info = TensorInfo(LONE_NAME, DTYPES["U8"], (source.size,))
        return Layout(NAME, (Span(info, opaque=True),))
    shapes = [one.tensor.shape for one in found.segments if isinstance(one, Span)]
    if item.shape is not None and item.shape not in shapes:
        raise FormatError(f"distcp: {item.name!r} has the shape {shapes}, not {item.shape}")
    return found


def archives(source: Source) -> Iterator[Source]:
    """Each archive of a file that has a layout, in order.

    Raises:
        FormatError: bytes are left over.
    """
    start = 0
    for end in _ends(source):
        part = PartSource(source, start, end)
        if _entries(part):
            yield part
            start = end
    if start != source.size:
        raise FormatError(f"distcp, offset {start}: not an archive of torch.save")


def contents(skeleton: Skeleton, lengths: Mapping[str, int]) -> Contents:
    """What the archives of a data file say besides their tensors, by their numbers.

    Args:
        skeleton: the structure of the file.
        lengths: bytes of each tensor, by name.

    Raises:
        FormatError: one cannot be read, or is past the pickle machine's limits.
    """
    leaves: Leaves = {}
    files: dict[str, bytes] = {}
    for number, part in enumerate(archives(DescribedFile(skeleton, lengths))):
        found, label = contents_of(part), f"item {number}"
        leaves |= {(f"{label}, {path[0]}", *path[1:]): leaf for path, leaf in found.leaves.items()}
        files |= {f"{label}, {name}": data for name, data in found.files.items()}
    return Contents(leaves, files)


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
