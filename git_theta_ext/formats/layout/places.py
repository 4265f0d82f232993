"""Where the segments of a file lie, and the blocks that its tensors are cut into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from git_theta_ext.core.tensors import DTYPES, BlockSpec, cut
from git_theta_ext.formats.base import Layout, Literal, Segment, Source, Span
from git_theta_ext.formats.layout.chunks import chunk_lengths
from git_theta_ext.formats.layout.derived import derived_length
from git_theta_ext.formats.layout.skeleton import SkeletonSegment, SpanRef


@dataclass(frozen=True, slots=True)
class Place:
    """One block of a file: which tensor's, which of its blocks, what it is, where it begins."""

    span: Span
    position: int
    spec: BlockSpec
    offset: int


def segment_length(segment: Segment) -> int:
    """Bytes that a segment of a layout takes in the file."""
    if isinstance(segment, Literal):
        return len(segment.data)
    return segment.tensor.nbytes if isinstance(segment, Span) else derived_length(segment)


def skeleton_length(segment: SkeletonSegment, tensors: Mapping[str, int]) -> int:
    """Bytes that a segment of a skeleton takes in the file.

    Args:
        segment: of a skeleton, which knows tensors by their names only.
        tensors: bytes of each tensor.

    Raises:
        KeyError: a tensor that is not among them.
    """
    if isinstance(segment, Literal):
        return len(segment.data)
    return tensors[segment.name] if isinstance(segment, SpanRef) else derived_length(segment)


def placed(layout: Layout) -> Iterator[tuple[int, Segment]]:
    """Every segment with its offset in bytes, in file order."""
    offset = 0
    for segment in layout.segments:
        yield offset, segment
        offset += segment_length(segment)


def blocks_of(layout: Layout, source: Source) -> Iterator[Place]:
    """Every block of a file, in file order; opaque bytes are read, to be cut by their content."""
    for offset, span in placed(layout):
        if not isinstance(span, Span):
            continue
        start = offset
        for position, spec in enumerate(_specs(span, source, offset)):
            yield Place(span, position, spec, start)
            start += spec.nbytes


def _specs(span: Span, source: Source, offset: int) -> Iterator[BlockSpec]:
    if not span.opaque or span.tensor.nbytes == 0:
        yield from cut(span.tensor)
        return
    lengths = chunk_lengths(
        lambda start, length: source.read(offset + start, length), span.tensor.nbytes
    )
    for length in lengths:
        yield BlockSpec(DTYPES["U8"], (length,))
