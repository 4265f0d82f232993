"""Blocks that are stored by themselves, which most are, read straight to where they are wanted.

What is stored as it is goes from the file to its place. What is compressed is read into memory that
a thread uses again for its next block: new memory costs more than to read the file, for the system
clears it. Whatever is not certain is left to the plain way, which fetches what is missing, and says
what is wrong.

A checkpoint may have tens of thousands of tensors of some kilobytes, whose parameter files lie in
packs in the order of the checkpoint. To open a pack for each of them, and to hand each one over,
takes longer than to decode it: those that lie behind each other are read together, as a run.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError, MissingObjectError, StoreError
from git_theta_ext.core.tensors import BLOCK_BYTES, BlockSpec
from git_theta_ext.core.values import Values, raw_bytes, values_dtype
from git_theta_ext.manifest.model import Block, UpdateRef
from git_theta_ext.objects.work import Work, of_chain
from git_theta_ext.updates.arithmetic import require_subnormals
from git_theta_ext.updates.base import Parameters
from git_theta_ext.updates.dense import Dense, is_raw
from git_theta_ext.updates.parameter_file import only_part, parse

if TYPE_CHECKING:
    from git_theta_ext.objects.store.store import Store

_HEAD_BYTES = 4096
_KEPT_BYTES = BLOCK_BYTES + (1 << 20)
"""A block and its header; what needs more is not kept for the next one."""
_kept = threading.local()
RUN_BYTES = 512 << 10
"""What the blocks of a run have together at most: they and their files stay in the cache."""
_DENSE = Dense()
Account = Callable[[Work, Sequence[UpdateRef]], object]


def read_as_it_is(store: Store, ref: UpdateRef, room: Values) -> bool:
    """Fill `room` from a parameter file that holds the block as it is; False if it is not so.

    It is not verified.

    Raises:
        MissingObjectError, StoreError: it cannot be read.
    """
    extra = ref.nbytes - room.nbytes
    if not 0 < extra <= _HEAD_BYTES:
        return False
    head = np.empty(extra, np.uint8)
    start = 0 if ref.part is None else ref.part[0]
    store.fill(ref.oid, ref.size, start, head.data)
    found = only_part(head.tobytes(), ref.nbytes)
    if found is None or found[1] != extra or not is_raw(found[0]):
        return False
    return store.fill(ref.oid, ref.size, start + extra, raw_bytes(room)) == room.nbytes


def parameters(store: Store, ref: UpdateRef) -> Parameters | None:
    """A dense parameter file, parsed; its parts are overwritten by the next one of this thread.

    They are not verified.

    None where it is of another kind, or not a whole parameter file.

    Raises:
        MissingObjectError, StoreError: it cannot be read.
    """
    buffer = _memory(ref.nbytes)
    start = 0 if ref.part is None else ref.part[0]
    length = store.fill(ref.oid, ref.size, start, buffer.data)
    try:
        file = parse(buffer.data[:length])
    except CorruptObjectError:
        return None
    return file if file.kind == Dense.kind else None


def _memory(nbytes: int) -> NDArray[np.uint8]:
    """Memory of this thread; the main one, which stays, keeps none."""
    if nbytes > _KEPT_BYTES or threading.current_thread() is threading.main_thread():
        return np.empty(nbytes, np.uint8)
    held: NDArray[np.uint8] | None = getattr(_kept, "memory", None)
    if held is None or len(held) < nbytes:
        held = _kept.memory = np.empty(max(nbytes, 1 << 20), np.uint8)
    return held[:nbytes]


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
    """Items in their order, those together that `read_run` reads at once; others each alone."""
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


def read_run(
    store: Store, run: Sequence[tuple[BlockSpec, Block]], account: Account
) -> memoryview | None:
    """The bytes of the blocks of a run, one after the other, verified; None if it is not certain.

    Args:
        store: where they are.
        run: blocks that `runs` put together.
        account: told what they take, and of which object, before they are decoded; its errors pass.
    """
    refs = [ref for _, block in run for ref in block.chain if isinstance(ref, UpdateRef)]
    start = refs[0].part[0] if refs[0].part else 0
    length = sum(ref.nbytes for ref in refs)
    asked = [of_chain(spec, block.chain, lambda ref: None) for spec, block in run]
    try:
        data = memoryview(store.load(refs[0].oid, refs[0].size, (start, start + length)))
        account(sum(asked, Work()), refs[:1])
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
