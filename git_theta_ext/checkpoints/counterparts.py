"""Which block of an earlier version stood where a block of the new one stands."""

from __future__ import annotations

from collections.abc import Sequence

from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut
from git_theta_ext.formats.layout.places import Place
from git_theta_ext.manifest.model import Block
from git_theta_ext.updates.quantisers import BY_SIZE, ELEMENTS, FLOATS


def counterparts(now: Sequence[str], before: Sequence[Block]) -> list[Block | None]:
    """For each chunk the earlier one that stood in its place, unless that is still there.

    Between two chunks that are as they were, those that changed stand for each other by their
    place in the row. Where there is none to stand for, the chunk beside has what the new one may
    repeat.

    Args:
        now: the SHA-256 of each chunk.
        before: the earlier chunks.
    """
    places = {block.sha256: at for at, block in reversed(list(enumerate(before)))}
    found: list[Block | None] = [None] * len(now)
    start, last = 0, -1
    anchors = [(at, places[digest]) for at, digest in enumerate(now) if digest in places]
    for stop, place in [*anchors, (len(now), len(before))]:
        if place <= last:
            continue  # moved backwards: what lies between says nothing
        beside = before[max(0, last) : last + 1] or before[place : place + 1]
        gone = before[last + 1 : place] or beside
        for number, at in enumerate(range(start, stop)):
            if now[at] not in places and gone:
                found[at] = gone[min(len(gone) - 1, number * len(gone) // (stop - start))]
        start, last = stop + 1, place
    return found


def counterpart(then: TensorInfo, place: Place) -> BlockSpec | None:
    """What the block at a place was in an earlier version of its tensor.

    None where blocks do not correspond: they do if they begin at the same row (or, where rows are
    larger than blocks, at the same element of a tensor of the same shape).
    """
    now = place.span.tensor
    if then.dtype == now.dtype and then.memory_shape == now.memory_shape:
        return place.spec
    if len(then.shape) != len(now.shape) or then.order != now.order:
        return None
    before, after = list(cut(then)), list(cut(now))
    if place.position >= len(before):
        return None
    by_rows = len(before[0].shape) == len(after[0].shape) == len(now.shape)
    alike = place.position == 0 or before[0].shape[:1] == after[0].shape[:1]
    if alike and (by_rows or then.shape == now.shape):
        return before[place.position]
    return None


def quantised_from(now: TensorInfo) -> tuple[TensorInfo, ...]:
    """The tensors of floats that one of bytes may have been quantised from; mostly none.

    One for each element type that quantisers of GGUF start from.
    """
    if now.dtype.name != "U8" or len(now.shape) < 2 or now.shape[-1] not in BY_SIZE:
        return ()
    shape = (*now.shape[:-2], now.shape[-2] * ELEMENTS)
    return tuple(TensorInfo(now.name, DTYPES[name], shape) for name in FLOATS)


def source_of(then: TensorInfo, place: Place) -> tuple[int, BlockSpec] | None:
    """The block of floats that the quantised rows at a place are made of: its number and spec.

    None where there is none that has all of them: blocks of another type are cut at other rows.

    Args:
        then: the tensor before it was quantised.
        place: a block of the quantised one.
    """
    now = place.span.tensor
    if then not in quantised_from(now):
        return None
    blocks, specs = list(cut(now)), list(cut(then))
    if len(blocks[0].shape) != len(now.shape) or len(specs[0].shape) != len(then.shape):
        return None  # blocks are no whole rows
    unit = 1 if len(now.shape) > 2 else ELEMENTS
    first = place.position * blocks[0].shape[0] * unit
    number, within = divmod(first, specs[0].shape[0])
    last = within + place.spec.shape[0] * unit
    if number >= len(specs) or last > specs[number].shape[0]:
        return None
    return number, specs[number]
