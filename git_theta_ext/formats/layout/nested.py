"""Layouts inside layouts: a file that lies in another one, as the segments of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from git_theta_ext.formats.base import Crc32, Segment, SerializationId, Span


def moved(segment: Segment, first: int, rename: Callable[[str], str]) -> Segment:
    """A segment of an inner layout whose segments begin at number `first` of the outer one."""
    if isinstance(segment, Span):
        return Span(replace(segment.tensor, name=rename(segment.tensor.name)), segment.opaque)
    return _renumbered(segment, lambda number: number + first)


def unfolded(segments: Sequence[Segment], inner: Mapping[str, Sequence[Segment]]) -> list[Segment]:
    """The segments, each span of a name in `inner` replaced by the segments that lie in it.

    Derived fields of both cover the same bytes as before. Names are taken as they are.
    """
    starts: list[int] = []
    count = 0
    for segment in segments:
        starts.append(count)
        within = _within(segment, inner)
        count += 1 if within is None else len(within)
    starts.append(count)
    made: list[Segment] = []
    for segment in segments:
        within = _within(segment, inner)
        if within is None:
            made.append(_renumbered(segment, starts.__getitem__))
        else:
            first = len(made)
            made += [moved(one, first, lambda name: name) for one in within]
    return made


def _within(segment: Segment, inner: Mapping[str, Sequence[Segment]]) -> Sequence[Segment] | None:
    return inner.get(segment.tensor.name) if isinstance(segment, Span) else None


def _renumbered(segment: Segment, number: Callable[[int], int]) -> Segment:
    """The segment, the numbers of what it covers changed."""
    if isinstance(segment, Crc32):
        return Crc32(number(segment.first), number(segment.stop))
    if isinstance(segment, SerializationId):
        return SerializationId(
            tuple(c if isinstance(c, int) else (number(c[0]), number(c[1])) for c in segment.crcs)
        )
    return segment
