"""Which update a block is stored as: the smallest, found by samples, the same every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from git_theta_ext.manifest import UpdateRef
from git_theta_ext.tensors import DTYPES, BlockSpec
from git_theta_ext.updates import get
from git_theta_ext.updates.base import Encoded, Values
from git_theta_ext.updates.coders import sample_of
from git_theta_ext.updates.delta import Delta
from git_theta_ext.updates.dense import Dense, encode_dense_bytes
from git_theta_ext.updates.patch import Patch, level_for
from git_theta_ext.updates.statistics import describe

MAX_UPDATES = 32
"""Updates in a chain; each costs a pass over the block when it is rebuilt."""
_MAX_SHARE = 0.5
"""Further updates are chained only while all together stay under this share of a dense copy."""
_SAMPLE = 8192
_CLEARLY = 0.9


@dataclass(frozen=True, slots=True)
class Reference:
    """The predecessor of a block: its chain, what it is, and how to get its values.

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
    if reference is None or reference.spec != spec:
        return Choice(0, Dense().encode(spec, new))
    length = len(reference.chain)
    updates = _update_against(spec, new, reference, length)
    if updates is not None and _may_grow(reference.chain, updates):
        return Choice(length, updates)
    if length > 1:
        updates = _update_against(spec, new, reference, 1)
        if updates is not None:
            return Choice(1, updates)
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
    share = _sampled_share(spec, new, base)
    if share > 1.02:
        return None
    update = Delta().encode(spec, new, base)
    if update is None:
        return None
    if share > _CLEARLY and update.nbytes >= Dense().encode(spec, new).nbytes:
        return None
    return Encoded(update.kind, update.pieces, describe(spec.dtype, new, base))


def _sampled_share(spec: BlockSpec, new: Values, base: Values) -> float:
    """Size of a delta over that of a dense copy, judged by a few thousand values."""
    few, old = sample_of(new, _SAMPLE), sample_of(base, _SAMPLE)
    if np.array_equal(few, old):
        return 0.0
    part = BlockSpec(spec.dtype, (len(few),))
    update = get("delta").encode(part, few, old)
    dense = Dense().encode(part, few)
    return 1.0 if update is None else update.nbytes / dense.nbytes


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
