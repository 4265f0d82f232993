"""Which update a block is stored as: the smallest, found by samples, the same every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from git_theta_ext.manifest import UpdateRef
from git_theta_ext.tensors import DTYPES, BlockSpec
from git_theta_ext.updates.base import Encoded, Values
from git_theta_ext.updates.dense import Dense, encode_dense_bytes
from git_theta_ext.updates.find import converting_update, smallest_update
from git_theta_ext.updates.patch import Patch, level_for
from git_theta_ext.updates.statistics import describe

MAX_UPDATES = 32
"""Updates in a chain; each costs a pass over the block when it is rebuilt."""
_MAX_SHARE = 0.5
"""Further updates are chained only while all together stay under this share of a dense copy."""
CONVERTING = frozenset({"cast", "resize"})


@dataclass(frozen=True, slots=True)
class Reference:
    """The predecessor of a block: its chain, what it is, and how to get its values.

    `spec` is the predecessor's own; its dtype or shape may differ from the block's.

    `rebuild(n)` gives the values after the first n files of the chain, fresh and writable.
    """

    chain: tuple[UpdateRef, ...]
    spec: BlockSpec
    rebuild: Callable[[int], Values]


@dataclass(frozen=True, slots=True)
class Choice:
    """The new chain: the first `keep` files of the predecessor's, then `encoded`."""

    keep: int
    encoded: Encoded


def encode_block(spec: BlockSpec, new: Values, reference: Reference | None) -> Choice:
    """The smallest exact way to store a block, given its predecessor.

    A first update may be of any size below a dense copy. Further ones are added while the chain
    stays short and cheap; then the block is encoded against the chain's base, or afresh.
    """
    if reference is None:
        return Choice(0, Dense().encode(spec, new))
    length = len(reference.chain)
    if reference.spec != spec:
        update = converting_update(spec, new, reference.spec, reference.rebuild(length))
        if update is not None and _may_grow(reference.chain, update):
            return Choice(length, update)
        return Choice(0, Dense().encode(spec, new))
    update = _update_against(spec, new, reference, length)
    if update is not None and _may_grow(reference.chain, update):
        return Choice(length, update)
    # Behind a cast or a resize, the chain's base is another kind of block than this one.
    if length > 1 and not any(ref.kind in CONVERTING for ref in reference.chain):
        update = _update_against(spec, new, reference, 1)
        if update is not None:
            return Choice(1, update)
    return Choice(0, Dense().encode(spec, new))


def _may_grow(chain: tuple[UpdateRef, ...], update: Encoded) -> bool:
    if len(chain) == 1:
        return True
    total = sum(ref.size for ref in chain[1:]) + update.nbytes
    return len(chain) <= MAX_UPDATES and total <= _MAX_SHARE * chain[0].size


def _update_against(
    spec: BlockSpec, new: Values, reference: Reference, keep: int
) -> Encoded | None:
    """The update on the first `keep` files of the chain, if it is smaller than a dense copy."""
    base = reference.rebuild(keep)
    update = smallest_update(spec, new, base)
    if update is None:
        return None
    remarks = (*update.info, *describe(spec.dtype, new, base))
    return Encoded(update.kind, update.pieces, remarks)


def encode_bytes(new: bytes, reference: Reference | None) -> Choice:
    """The smaller of a compressed copy and a patch, for bytes such as a skeleton."""
    spec = BlockSpec(DTYPES["U8"], (len(new),))
    dense = encode_dense_bytes(memoryview(new), level_for(len(new)), sized=True)
    if reference is None:
        return Choice(0, dense)
    values = np.frombuffer(new, np.uint8)
    for keep in dict.fromkeys((len(reference.chain), 1)):
        patch = Patch().encode(spec, values, reference.rebuild(keep))
        if patch is None or patch.nbytes >= dense.nbytes:
            continue
        if keep == 1 or _may_grow(reference.chain, patch):
            return Choice(keep, patch)
    return Choice(0, dense)
