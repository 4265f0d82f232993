"""Which block of an earlier version of a tensor stood where one of the new version stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.checkpoints.counterparts import counterpart, counterparts
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.layout.places import Place
from git_theta_ext.manifest.model import Block

ROW = 4 << 20
"""Elements of a row of which two make a block of F32."""


def stood(
    then: TensorInfo, now: TensorInfo, position: int = 0
) -> tuple[str, tuple[int, ...]] | None:
    """The dtype and shape of what stood at a block's place."""
    place = Place(Span(now), position, list(cut(now))[position], 0)
    found = counterpart(then, place)
    return None if found is None else (found.dtype.name, found.shape)


def tensor(shape: tuple[int, ...], dtype: str = "F32", *order: int) -> TensorInfo:
    return TensorInfo("w", DTYPES[dtype], shape, order or None)


@pytest.mark.parametrize(
    ("then", "now", "position", "expected"),
    [
        (tensor((3, 4)), tensor((3, 4)), 0, ("F32", (3, 4))),
        # A cast, and more rows or longer ones: what begins at the same row.
        (tensor((3, 4)), tensor((3, 4), "BF16"), 0, ("F32", (3, 4))),
        (tensor((3, 4)), tensor((5, 4)), 0, ("F32", (3, 4))),
        (tensor((3, 4)), tensor((3, 9)), 0, ("F32", (3, 4))),
        (tensor((4, ROW)), tensor((9, ROW)), 1, ("F32", (2, ROW))),
        (tensor((5, ROW)), tensor((9, ROW)), 2, ("F32", (1, ROW))),
        (tensor((4, ROW), "F16"), tensor((4, ROW)), 1, ("F16", (2, ROW))),
        # There was none yet.
        (tensor((4, ROW)), tensor((9, ROW)), 2, None),
        # Rows so much longer that fewer of them make a block: only the first begins where it did.
        (tensor((4, ROW)), tensor((4, 2 * ROW)), 0, ("F32", (2, ROW))),
        (tensor((4, ROW)), tensor((4, 2 * ROW)), 1, None),
        # Other numbers of axes, or another order of them in memory, say nothing.
        (tensor((12,)), tensor((3, 4)), 0, None),
        (tensor((4, 3), "F32", 1, 0), tensor((3, 4), "F16"), 0, None),
        (tensor((4, 3), "F32", 1, 0), tensor((4, 3), "F16", 1, 0), 0, ("F32", (3, 4))),
        # Rows longer than a block, in which elements are counted.
        (tensor((2, 5 * ROW)), tensor((2, 5 * ROW), "F16"), 3, ("F32", (2 * ROW,))),
        (tensor((2, 5 * ROW)), tensor((3, 5 * ROW)), 0, None),
    ],
)
def test_blocks_correspond_where_they_begin_at_the_same_row(
    then: TensorInfo,
    now: TensorInfo,
    position: int,
    expected: tuple[str, tuple[int, ...]] | None,
) -> None:
    assert stood(then, now, position) == expected


SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=2).map(tuple)
ROWS = st.builds(
    lambda rows, row: (rows, row), st.integers(1, 9), st.sampled_from([7, ROW, 9 << 20])
)
TENSORS = st.builds(tensor, SHAPES | ROWS, st.sampled_from(["F32", "F16", "F64"]))


@given(TENSORS, TENSORS)
def test_what_stood_there_is_a_block_of_the_earlier_tensor(
    then: TensorInfo, now: TensorInfo
) -> None:
    before: list[BlockSpec] = list(cut(then))
    for position, spec in enumerate(cut(now)):
        found = counterpart(then, Place(Span(now), position, spec, 0))
        assert found is None or found == before[position]


HASHES = st.lists(st.sampled_from("abcdefgh"), max_size=8)


@given(HASHES, HASHES)
def test_only_chunks_that_are_new_stand_for_another(now: list[str], before: list[str]) -> None:
    chunks = [Block(1, name) for name in before]
    found = counterparts(now, chunks)
    assert len(found) == len(now)
    for digest, stood in zip(now, found, strict=True):
        assert stood is None or (stood in chunks and digest not in before)


@given(HASHES, st.lists(st.sampled_from("XYZ"), min_size=1, max_size=8))
def test_where_all_are_new_they_stand_in_order(before: list[str], now: list[str]) -> None:
    chunks = [Block(1, f"{number}") for number, _ in enumerate(before)]
    places = [int(one.sha256) for one in counterparts(now, chunks) if one is not None]
    assert places == sorted(places)
    assert len(places) == (len(now) if before else 0)
