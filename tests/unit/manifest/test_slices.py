"""A part of a tensor, put together of the blocks that hold it, is what NumPy gives of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from git_theta_ext.core.arrays import as_array
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo
from git_theta_ext.manifest import slices

I16 = DTYPES["I16"]
INDICES = [
    np.s_[...], np.s_[3:9], np.s_[:, 3:5], np.s_[7], np.s_[-1, 2], np.s_[..., 0], np.s_[2:9:3, 1:],
    np.s_[::-1], np.s_[9:1:-4, ::-2], np.s_[6::-1], np.s_[5:1], np.s_[4:4, 1], np.s_[np.int64(4)],
    np.s_[:100, -2:], np.s_[()], np.s_[8:, ..., 3],
]  # fmt: skip


def stored(shape: tuple[int, ...], order: tuple[int, ...] | None, rows: int) -> Any:
    """A tensor of consecutive numbers, its blocks of so many rows, and their values."""
    info = TensorInfo("w", I16, shape, order)
    raw = np.arange(info.count, dtype=np.int16).view(np.uint8)
    specs, values = [], []
    memory, width = info.memory_shape, info.nbytes // info.memory_shape[0]
    for start in range(0, memory[0], rows):
        stop = min(start + rows, memory[0])
        specs.append(BlockSpec(I16, (stop - start, *memory[1:])))
        values.append(raw[start * width : stop * width])
    return info, specs, values, as_array(info, raw)


@pytest.mark.parametrize(
    ("shape", "order"), [((11, 6), None), ((11, 6), (1, 0)), ((11, 4, 5), (2, 0, 1))]
)
def test_every_index_gives_what_numpy_gives(shape: Any, order: Any) -> None:
    for rows in (1, 3, 4, 99):
        info, specs, values, whole = stored(shape, order, rows)
        for index in INDICES:
            found = slices.plan(info, specs, index)
            assert found is not None
            result = np.full(found.shape, -1, np.int16)
            for piece in found.pieces:
                block = as_array(piece.info, values[piece.number])
                result[piece.place] = block[piece.taken]
            assert np.array_equal(result, whole[index]), (index, rows)


def test_only_the_blocks_that_hold_some_of_it_are_named() -> None:
    def numbers(index: Any, order: Any = None) -> list[int]:
        info, specs, _, _ = stored((12, 8), order, 2)
        found = slices.plan(info, specs, index)
        assert found is not None
        return [piece.number for piece in found.pieces]

    assert numbers(np.s_[3:5]) == [1, 2]
    assert numbers(np.s_[-1]) == [5]
    assert numbers(np.s_[::5]) == [0, 2, 5]
    assert numbers(np.s_[4:4]) == []
    assert numbers(np.s_[:, 3:5]) == [0, 1, 2, 3, 4, 5]
    assert numbers(np.s_[:, 3:5], (1, 0)) == [1, 2]


def test_what_is_no_plain_index_needs_the_whole_and_what_is_out_of_range_is_said() -> None:
    info, specs, _, _ = stored((12, 8), None, 2)
    for index in (np.s_[[1, 2]], np.s_[None], np.s_[np.arange(12) > 3], np.s_[True]):
        assert slices.plan(info, specs, index) is None
    flat = [BlockSpec(I16, (48,)), BlockSpec(I16, (48,))]
    assert slices.plan(info, flat, np.s_[3]) is None
    for index in (np.s_[12], np.s_[0, -9], np.s_[1, 2, 3], np.s_[..., 1, ...]):
        with pytest.raises(IndexError):
            slices.plan(info, specs, index)
    assert slices.cut_out(np.zeros((9, 9)), np.s_[2:4]).base is None
