"""Blocks that are stored by themselves, which most are, read straight to where they are wanted.

What is stored as it is goes from the file to its place. What is compressed is read into memory that
a thread uses again for its next block: new memory costs more than to read the file, for the system
clears it. Nothing is verified here, and whatever is not certain is left to the plain way.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BLOCK_BYTES
from git_theta_ext.core.values import Values, raw_bytes
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.updates.base import Parameters
from git_theta_ext.updates.dense import Dense, is_raw
from git_theta_ext.updates.parameter_file import only_part, parse

if TYPE_CHECKING:
    from git_theta_ext.objects.store.store import Store

_HEAD_BYTES = 4096
_KEPT_BYTES = BLOCK_BYTES + (1 << 20)
"""A block and its header; what needs more is not kept for the next one."""
_kept = threading.local()


def read_as_it_is(store: Store, ref: UpdateRef, room: Values) -> bool:
    """Fill `room` from a parameter file that holds the block as it is; False if it is not so.

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
