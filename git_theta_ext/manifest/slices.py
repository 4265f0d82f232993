"""Which blocks of a tensor an index needs, and where in the result what they give belongs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from git_theta_ext.core.tensors import BlockSpec, TensorInfo

Index = tuple[int | slice, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one block gives: `taken` of the block goes to `place` of the result."""

    number: int
    info: TensorInfo
    """What the block is as a tensor: of the axes and the memory order of the whole."""
    taken: Index
    place: tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The shape of what an index gives, and the blocks that it needs."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


def plan(info: TensorInfo, specs: Sequence[BlockSpec], index: Any) -> Plan | None:
    """How to read a part of a tensor from as few of its blocks as hold it.

    Args:
        info: the tensor.
        specs: its blocks, in file order.
        index: as NumPy understands it.

    Returns:
        None where the whole tensor is needed to tell: the index is more than whole numbers, slices
        and an ellipsis, or the blocks are no whole rows of the axis that is slowest in memory.

    Raises:
        IndexError: there are more indices than axes, or one is out of range.
    """
    wanted = _normal(info.shape, index)
    memory = info.memory_shape
    by_rows = all(len(spec.shape) == len(memory) and spec.shape[1:] == memory[1:] for spec in specs)
    if wanted is None or not memory or not by_rows or info.dtype != specs[0].dtype:
        return None
    axis = 0 if info.order is None else info.order[0]
    runs = [_positions(one, extent) for one, extent in zip(wanted, info.shape, strict=True)]
    shape = tuple(len(run) for run, one in zip(runs, wanted, strict=True) if type(one) is slice)
    if 0 in shape:
        return Plan(shape, ())
    return Plan(shape, tuple(_pieces(info, specs, wanted, axis, runs[axis])))


def _normal(shape: tuple[int, ...], index: Any) -> Index | None:
    """One whole number or slice for each axis; None for other indices."""
    given = [
        int(one) if isinstance(one, np.integer) else one
        for one in (index if isinstance(index, tuple) else (index,))
    ]
    if not all(type(one) is int or isinstance(one, slice) or one is Ellipsis for one in given):
        return None
    dots = [at for at, one in enumerate(given) if one is Ellipsis]
    lack = len(shape) - (len(given) - len(dots))
    if len(dots) > 1 or lack < 0:
        raise IndexError(f"{len(given)} indices for a tensor of {len(shape)} axes")
    at = dots[0] if dots else len(given)
    full = (*given[:at], *[slice(None)] * lack, *given[at + 1 :])
    return tuple(
        _within(one, extent) if type(one) is int else one
        for one, extent in zip(full, shape, strict=True)
    )


def _within(at: int, extent: int) -> int:
    if not -extent <= at < extent:
        raise IndexError(f"there are {extent} rows, none at {at}")
    return at % extent


def _positions(one: int | slice, extent: int) -> range:
    return range(one, one + 1) if isinstance(one, int) else range(*one.indices(extent))


def _pieces(
    info: TensorInfo, specs: Sequence[BlockSpec], wanted: Index, axis: int, rows: range
) -> Iterator[Piece]:
    """What each block that holds some of the rows gives."""
    single = isinstance(wanted[axis], int)
    before = sum(isinstance(one, slice) for one in wanted[:axis])
    first = 0
    for number, spec in enumerate(specs):
        last = first + spec.shape[0]
        start, stop = _span(rows, first, last)
        if start < stop:
            near, far = rows[start] - first, rows[stop - 1] - first
            end: int | None = far + (1 if rows.step > 0 else -1)
            taken = near if single else slice(near, None if end == -1 else end, rows.step)
            shape = (*info.shape[:axis], spec.shape[0], *info.shape[axis + 1 :])
            yield Piece(
                number,
                TensorInfo(info.name, info.dtype, shape, info.order),
                (*wanted[:axis], taken, *wanted[axis + 1 :]),
                () if single else (*[slice(None)] * before, slice(start, stop)),
            )
        first = last


def _span(rows: range, first: int, last: int) -> tuple[int, int]:
    """Which of some rows, counted from their beginning, lie from `first` to before `last`."""
    if rows.step > 0:
        start, stop = -((rows.start - first) // rows.step), -((rows.start - last) // rows.step)
    else:
        start = -((last - 1 - rows.start) // -rows.step)
        stop = (rows.start - first) // -rows.step + 1
    return max(0, start), min(len(rows), stop)


def cut_out(array: np.ndarray[Any, Any], index: Any) -> np.ndarray[Any, Any]:
    """What an index gives of an array that is then let go of: no view into it, however small."""
    found = np.asarray(array[index])
    return found.copy() if found.nbytes < array.nbytes else found
