"""Places: the segments of a layout tile the file, and the blocks of its tensors tile those."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut
from git_theta_ext.formats.base import Crc32, Layout, Literal, Segment, SerializationId, Span
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.chunks import MIN_BYTES
from git_theta_ext.formats.layout.places import (
    blocks_of,
    placed,
    segment_length,
    skeleton_length,
)
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.manifest.rules import CHUNK_BYTES

SMALL = TensorInfo("small", DTYPES["BF16"], (3, 5))


class Unreadable:
    """A source as long as it needs to be, of which nobody may read a byte."""

    size = 1 << 50

    def read(self, offset: int, length: int) -> bytes:
        raise AssertionError(f"{length} bytes were read at {offset}")


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Any layout without opaque bytes; some of its tensors are larger than a block."""
    segments: list[Segment] = []
    for number in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["literal", "crc", "id", "tensor", "tensor", "large"]))
        if kind == "literal":
            segments.append(Literal(draw(st.binary(max_size=9))))
        elif kind == "crc":
            segments.append(Crc32(0, 1))
        elif kind == "id":
            segments.append(SerializationId((7,)))
        else:
            shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))
            if kind == "large":
                shape = (draw(st.integers(1, 40_000)), 1_003)
            order = tuple(draw(st.permutations(range(len(shape)))))
            dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
            segments.append(Span(TensorInfo(f"t{number}", dtype, shape, order)))
    return Layout("test", tuple(segments))


def test_offsets_count_from_the_first_byte() -> None:
    layout = Layout(
        "test",
        (
            Literal(b"header"),
            Span(SMALL),
            Crc32(0, 2),
            Literal(b""),
            SerializationId(()),
            Span(SMALL),
        ),
    )
    assert [offset for offset, _ in placed(layout)] == [0, 6, 36, 40, 40, 60]
    assert tuple(segment for _, segment in placed(layout)) == layout.segments


@given(layouts())
def test_segments_follow_one_another(layout: Layout) -> None:
    found = list(placed(layout))
    for (offset, segment), (following, _) in pairwise(found):
        assert following == offset + segment_length(segment)
    assert [segment for _, segment in found] == list(layout.segments)
    assert all(offset == 0 for offset, _ in found[:1])


@given(layouts())
def test_blocks_are_the_cut_of_each_tensor_one_behind_the_other(layout: Layout) -> None:
    found = list(blocks_of(layout, Unreadable()))
    expected = [
        (span, position, spec)
        for span in layout.segments
        if isinstance(span, Span)
        for position, spec in enumerate(cut(span.tensor))
    ]
    assert [(place.span, place.position, place.spec) for place in found] == expected
    starts = {id(segment): offset for offset, segment in placed(layout)}
    covered = {id(place.span): 0 for place in found}
    for place in found:
        assert place.offset == starts[id(place.span)] + covered[id(place.span)]
        covered[id(place.span)] += place.spec.nbytes
    for segment in layout.segments:
        if isinstance(segment, Span):
            assert covered[id(segment)] == segment.tensor.nbytes


@given(layouts())
def test_a_skeleton_is_as_long_as_its_layout(layout: Layout) -> None:
    stripped = skeleton.Skeleton(
        tuple(
            skeleton.SpanRef(one.tensor.name) if isinstance(one, Span) else one
            for one in layout.segments
        )
    )
    lengths = {s.tensor.name: s.tensor.nbytes for s in layout.segments if isinstance(s, Span)}
    assert [skeleton_length(one, lengths) for one in stripped.segments] == [
        segment_length(one) for one in layout.segments
    ]


def test_a_skeleton_of_an_unknown_tensor_has_no_length() -> None:
    with pytest.raises(KeyError, match="small"):
        skeleton_length(skeleton.SpanRef("small"), {"other": 3})


def test_a_large_matrix_is_cut_between_rows() -> None:
    info = TensorInfo("w", DTYPES["F32"], (3, 4 << 20))
    found = list(blocks_of(Layout("test", (Literal(b"12345678"), Span(info))), Unreadable()))
    assert [(place.offset, place.spec.shape) for place in found] == [
        (8, (2, 4 << 20)),
        (8 + (32 << 20), (1, 4 << 20)),
    ]


def opaque(data: bytes, before: bytes = b"") -> list[tuple[int, BlockSpec]]:
    """Where the chunks of opaque bytes lie, and what they are."""
    span = Span(TensorInfo("bytes", DTYPES["U8"], (len(data),)), opaque=True)
    layout = Layout("test", (Literal(before), span))
    found = list(blocks_of(layout, BytesSource(before + data)))
    assert [place.position for place in found] == list(range(len(found)))
    return [(place.offset, place.spec) for place in found]


def test_opaque_bytes_without_any_are_one_empty_block() -> None:
    assert opaque(b"", before=b"head") == [(4, BlockSpec(DTYPES["U8"], (0,)))]


def test_opaque_bytes_are_cut_by_their_content_wherever_they_stand() -> None:
    data = np.random.default_rng(3).bytes(3 << 20)
    found = opaque(data)
    assert len(found) > 3
    assert sum(spec.nbytes for _, spec in found) == len(data)
    for (offset, spec), (following, _) in pairwise(found):
        assert following == offset + spec.nbytes
        assert MIN_BYTES <= spec.nbytes <= CHUNK_BYTES
    assert [spec for _, spec in opaque(data, before=b"moved")] == [spec for _, spec in found]


def test_an_insertion_leaves_the_chunks_behind_it_as_they_were() -> None:
    data = np.random.default_rng(4).bytes(4 << 20)
    longer = data[:100_000] + b"inserted" + data[100_000:]
    before = {data[at : at + spec.nbytes] for at, spec in opaque(data)}
    after = [longer[at : at + spec.nbytes] for at, spec in opaque(longer)]
    assert sum(chunk not in before for chunk in after) <= 2
    assert len(after) > 4
