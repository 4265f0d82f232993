"""Derived fields are claims until checked: those that disagree with the file become literals."""

from __future__ import annotations

from dataclasses import replace

from git_theta_ext.formats.base import Crc32, Layout, Literal, SerializationId, Source
from git_theta_ext.formats.layout.derived import Checksums
from git_theta_ext.formats.layout.places import segment_length

_SLICE_BYTES = 4 << 20


def settle(layout: Layout, source: Source) -> Layout:
    """The layout, with every derived field that does not give the file's bytes made literal.

    A format may so claim that a field is a CRC-32 without reading what it covers; that is read
    here, once, slice by slice, and only where a derived field needs it. A field that covers
    another is checked against the bytes of that in the file: be it then derived or literal,
    those are what it covers.
    """
    lengths = [segment_length(segment) for segment in layout.segments]
    sums = Checksums(layout.segments, lengths)
    fields: list[tuple[int, int]] = []
    offset = 0
    for number, (segment, length) in enumerate(zip(layout.segments, lengths, strict=True)):
        if isinstance(segment, Crc32 | SerializationId):
            fields.append((number, offset))
            sums.store(number, source.read(offset, length))
        elif sums.covered(number):
            for start in range(offset, offset + length, _SLICE_BYTES):
                sums.feed(number, source.read(start, min(_SLICE_BYTES, offset + length - start)))
        offset += length
    segments = list(layout.segments)
    for number, offset in fields:
        stored = source.read(offset, lengths[number])
        if stored != sums.value(number):
            segments[number] = Literal(stored)
    return replace(layout, segments=tuple(segments))
