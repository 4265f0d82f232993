"""Small blocks that lie behind each other in one object are read together.

A checkpoint may have tens of thousands of tensors of some kilobytes, whose parameter files lie in
packs in the order of the checkpoint. To open a pack for each of them, and to hand each one over,
takes longer than to decode it. What is not certain is left to the plain way, which reads block by
block, fetches what is missing, and says what is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np

from git_theta_ext.core.errors import CorruptObjectError, MissingObjectError, StoreError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import values_dtype
from git_theta_ext.manifest.model import Block, UpdateRef
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.work import Work, of_chain
from git_theta_ext.updates.arithmetic import require_subnormals
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.parameter_file import parse

RUN_BYTES = 512 << 10
"""What the blocks of a run have together at most: they and their files stay in the cache."""
_DENSE = Dense()


class Stored(Protocol):
    """What is to be read: a block of a checkpoint, or bytes that are no block."""

    @property
    def spec(self) -> BlockSpec | None:
        """What the block is; None where it is none."""

    @property
    def block(self) -> Block | None:
        """How it is stored."""


Item = TypeVar("Item", bound=Stored)


def runs(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Items in their order, those together that `read` reads at once; others each alone."""
    run: list[Item] = []
    end, held = None, 0
    for item in items:
        found = _in_pack(item)
        start, stop, nbytes = found or (None, None, 0)
        if run and (start is None or start != end or held + nbytes > RUN_BYTES):
            yield run
            run, held = [], 0
        run.append(item)
        end, held = stop, held + nbytes
    if run:
        yield run


_At = tuple[str, int, str]
"""An object, a place in it, and the dtype of the block that lies there."""


def _in_pack(item: Stored) -> tuple[_At, _At, int] | None:
    """Where the one part of a pack begins and ends that a block is, and the block's length."""
    if item.block is None or item.spec is None or len(item.block.chain) != 1:
        return None
    (ref,) = item.block.chain
    if not isinstance(ref, UpdateRef) or ref.part is None or ref.kind != Dense.kind:
        return None
    name, (start, stop) = item.spec.dtype.name, ref.part
    return (ref.oid, start, name), (ref.oid, stop, name), item.block.nbytes


def read(blocks: Blocks, run: Sequence[tuple[BlockSpec, Block]]) -> memoryview | None:
    """The bytes of the blocks of a run, one after the other, verified; None if it is not certain.

    Args:
        blocks: where they are.
        run: blocks that `runs` put together.

    Raises:
        CorruptObjectError: they ask for more than any honest checkpoint; see `Blocks.account`.
    """
    refs = [ref for _, block in run for ref in block.chain if isinstance(ref, UpdateRef)]
    start = refs[0].part[0] if refs[0].part else 0
    length = sum(ref.nbytes for ref in refs)
    asked = [of_chain(spec, block.chain, lambda ref: None) for spec, block in run]
    try:
        data = memoryview(blocks.store.load(refs[0].oid, refs[0].size, (start, start + length)))
        blocks.account(sum(asked, Work()), refs[:1], bounded=blocks.is_bounded)
        return _decoded(run, [ref.nbytes for ref in refs], data)
    except (MissingObjectError, StoreError):
        return None


def _decoded(
    run: Sequence[tuple[BlockSpec, Block]], lengths: Sequence[int], data: memoryview
) -> memoryview | None:
    """The bytes of blocks, of which these are the parameter files; None if one is not right."""
    require_subnormals()
    room = np.empty(sum(block.nbytes for _, block in run), np.uint8)
    at = start = 0
    for (spec, block), length in zip(run, lengths, strict=True):
        out = room[start : start + block.nbytes]
        values = out.view(values_dtype(spec.dtype))
        try:
            file = parse(data[at : at + length])
            found = _DENSE.decode(spec, file, None, values) if file.kind == Dense.kind else None
        except (CorruptObjectError, KeyError, TypeError, ValueError, IndexError, OverflowError):
            return None
        if found is None or found.nbytes != out.nbytes:
            return None
        if found is not values:
            values[:] = found
        if hashlib.sha256(out.data).hexdigest() != block.sha256:
            return None
        at, start = at + length, start + block.nbytes
    return room.data
