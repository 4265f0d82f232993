"""Which block of the last version a block is an update of."""

from __future__ import annotations

import pytest

from git_theta_ext.checkpoints import counterparts
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.layout.places import Place


def tensor(name: str, *shape: int, order: tuple[int, ...] | None = None) -> TensorInfo:
    return TensorInfo("weight", DTYPES[name], shape, order)


def counterpart(then: TensorInfo, now: TensorInfo, position: int = 0) -> BlockSpec | None:
    return counterparts.counterpart(then, Place(Span(now), position, list(cut(now))[position], 0))


def test_a_tensor_of_the_same_kind_has_the_same_blocks() -> None:
    large = tensor("F32", 40_000, 512)
    for position, spec in enumerate(cut(large)):
        assert counterpart(large, large, position) == spec


def test_single_blocks_correspond_whatever_dtype_and_extent_were() -> None:
    old, new = tensor("F32", 100, 50), tensor("BF16", 100, 50)
    assert counterpart(old, new) == BlockSpec(DTYPES["F32"], (100, 50))
    assert counterpart(old, tensor("F32", 100, 60)) == BlockSpec(DTYPES["F32"], (100, 50))


def test_a_vocabulary_that_grows_keeps_its_blocks() -> None:
    old, new = tensor("F32", 20_000, 512), tensor("F32", 20_008, 512)
    assert counterpart(old, new, 0) == BlockSpec(DTYPES["F32"], (16_384, 512))
    assert counterpart(old, new, 1) == BlockSpec(DTYPES["F32"], (3616, 512))


def test_blocks_of_a_large_cast_or_of_longer_rows_correspond() -> None:
    old = tensor("F32", 40_000, 512)
    for position, spec in enumerate(cut(old)):
        assert counterpart(old, tensor("BF16", 40_000, 512), position) == spec
    wide = tensor("F32", 4096, 32_000)
    for position, spec in enumerate(cut(wide)):
        assert counterpart(wide, tensor("F32", 4096, 32_064), position) == spec


def test_rows_larger_than_a_block_correspond_in_a_tensor_of_the_same_shape_only() -> None:
    old = tensor("F32", 2, 9 << 20)
    assert counterpart(old, tensor("BF16", 2, 9 << 20), 1) == list(cut(old))[1]
    assert counterpart(old, tensor("F32", 2, 10 << 20), 1) is None


@pytest.mark.parametrize(
    ("then", "now", "position"),
    [
        (tensor("F64", 40_000, 512), tensor("F32", 40_000, 512), 1),
        (tensor("F32", 40_000, 512), tensor("F32", 40_000, 1024), 1),
        (tensor("F32", 100, 50), tensor("F32", 5000), 0),
        (tensor("F32", 100, 50), tensor("F32", 100, 50, order=(1, 0)), 0),
    ],
)
def test_other_blocks_do_not_correspond(then: TensorInfo, now: TensorInfo, position: int) -> None:
    assert counterpart(then, now, position) is None
