"""Which update a block is stored as: the smallest, found by samples, the same every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.manifest.model import Chain, Recipe, references
from git_theta_ext.updates.arithmetic import require_subnormals
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.dense import Dense, encode_dense_bytes
from git_theta_ext.updates.find import converting_update, look_unrelated, smallest_update
from git_theta_ext.updates.patch import Patch, level_for
from git_theta_ext.updates.permute import glance_places, looks_permuted
from git_theta_ext.updates.statistics import describe
from git_theta_ext.updates.structured.cost import KINDS as STRUCTURED

MAX_UPDATES = 32
"""Updates in a chain; each costs a pass over the block when it is rebuilt."""
_MAX_SHARE = 0.5
"""Small updates are chained while all of them together stay under this share of a dense copy."""
_LARGE = 0.25
"""From this share of a dense copy on an update is a large one."""
_MAX_LARGE_SHARE = 2.75
"""Large updates are chained while all of them together stay under so many dense copies: of
consecutive checkpoints of one training run three. Each is smaller on the version before (0.63 of
the raw bytes of float32 weights) than on the first (0.72), but all must be there for the last."""
_MOST_STRUCTURED = 8
"""Updates of the kinds of `structured` in a chain: each may take a hundred products for a value."""
_WORTH_CHAINING = 0.85
"""A large update that saves less of a dense copy is not worth the others that it needs."""
_QUICK_BYTES = 4 << 20
"""Blocks up to this size are rebuilt for a guess."""
_CLEARLY_SMALLER = 16
"""A patch of one byte in so many is taken without a look at what a dense copy would take."""
_DENSE = Dense()
_CONVERTING = frozenset({"cast", "resize", "quantise"})


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The predecessor of a block: its chain, what it is, and how to get its values.

    `spec` is the predecessor's own; its dtype or shape may differ from the block's.

    `rebuild(n)` gives the values after the first n files of the chain, fresh and writable.
    `glimpse()` gives the places of a few values after the first file, and these, where that is
    much cheaper, else None.
    """

    chain: Chain
    spec: BlockSpec
    rebuild: Callable[[int], Values]
    glimpse: Callable[[], tuple[NDArray[np.intp], Values] | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Choice:
    """The new chain: the first `keep` files of the predecessor's, then `encoded`, if anything."""

    keep: int
    encoded: Encoded | None


def encode_block(
    spec: BlockSpec,
    new: Values,
    predecessor: Predecessor | None,
    supplied: Encoded | None = None,
    dense: Dense = _DENSE,
) -> Choice:
    """The smallest exact way to store a block, given its predecessor.

    A first update may be of any size below a dense copy. Further ones are added while the chain
    stays short and cheap (`_may_grow`); then the block is encoded against the chain's base, or
    afresh.

    Args:
        spec: what the block is.
        new: its raw bits, flat.
        predecessor: the block before it; None to encode it afresh.
        supplied: an update on the predecessor that is known already, from who made the change; it
            is taken as long as the chain may grow by it.
        dense: how it is stored where it is no update.

    Raises:
        CorruptObjectError, MissingObjectError, TransferError: the predecessor cannot be rebuilt.
        UsageError: this thread computes in a way that gives other bits (`require_subnormals`).
    """
    require_subnormals()
    if predecessor is None:
        return Choice(0, dense.encode(spec, new))
    length = len(predecessor.chain)
    if predecessor.spec != spec:
        update = converting_update(spec, new, predecessor.spec, predecessor.rebuild(length))
        if update is not None and _may_grow(predecessor.chain, update):
            return Choice(length, update)
        return Choice(0, dense.encode(spec, new))
    seen = predecessor.glimpse() if supplied is None else None
    if seen is not None and length == 1:
        places, few = seen
        if look_unrelated(spec, new[places], few) and not looks_permuted(spec, new, places, few):
            return Choice(0, dense.encode(spec, new))
    first = _foundation(predecessor.chain)
    if supplied is None and first < length and _is_foundation(new, predecessor, first, seen):
        return Choice(first, None)
    update = supplied
    if update is None or not _may_grow(predecessor.chain, update):
        update = _update_against(spec, new, predecessor, length)
    if update is not None and _may_grow(predecessor.chain, update):
        return Choice(length, update)
    if first < length:
        update = _update_against(spec, new, predecessor, first)
        if update is not None and _may_grow(predecessor.chain[:first], update):
            return Choice(first, update)
    return Choice(0, dense.encode(spec, new))


def is_kin(spec: BlockSpec, new: Values, predecessor: Predecessor) -> bool:
    """Whether samples say that a block is an update of another, which has its dtype and size.

    Of a block that is large and not quick to look into, they say nothing.
    """
    seen = predecessor.glimpse() if len(predecessor.chain) == 1 else None
    if seen is None:
        if spec.nbytes > _QUICK_BYTES:
            return False
        base = predecessor.rebuild(len(predecessor.chain))
        places = glance_places(len(base))
        seen = places, base[places]
    places, few = seen
    return not look_unrelated(spec, new[places], few) or looks_permuted(spec, new, places, few)


def _foundation(chain: Chain) -> int:
    """How many files of a chain stay when its updates are joined into one.

    The base; and, behind a cast or a resize, all up to the last of these: what stands before is
    another kind of block. Encoding against that finds what the updates are together: sparse ones
    unite, low-rank ones add up to one of the sum of their ranks.
    """
    converting = (at for at, ref in enumerate(chain, 1) if ref.kind in _CONVERTING)
    return max(converting, default=1)


def _is_foundation(
    new: Values,
    predecessor: Predecessor,
    first: int,
    seen: tuple[NDArray[np.intp], Values] | None,
) -> bool:
    """Whether a block went back to what the first files of its chain stand for."""
    if first == 1 and seen is not None and not np.array_equal(new[seen[0]], seen[1]):
        return False
    return np.array_equal(new, predecessor.rebuild(first))


def _may_grow(chain: Chain, update: Encoded) -> bool:
    """Whether an update may be added to a chain; a first one always may."""
    if len(chain) == 1 and not isinstance(chain[0], Recipe):
        return True
    if update.kind in STRUCTURED:
        known = (ref.kind in STRUCTURED for ref in dict.fromkeys(references(chain)))
        if sum(known) >= _MOST_STRUCTURED:
            return False
    dense, before = cost(chain)
    large = update.nbytes >= _LARGE * dense
    if len(before) >= MAX_UPDATES or (large and update.nbytes > _WORTH_CHAINING * dense):
        return False
    alike = sum(nbytes for nbytes in before if (nbytes >= _LARGE * dense) == large)
    return alike + update.nbytes <= (_MAX_LARGE_SHARE if large else _MAX_SHARE) * dense


def cost(chain: Chain) -> tuple[int, list[int]]:
    """What a chain takes to be rebuilt: bytes of its dense copy, and of each of its updates.

    Of a recipe what its parents are made of counts, each parameter file once.
    """
    dense, *updates = dict.fromkeys(references(chain))
    return dense.nbytes, [ref.nbytes for ref in updates]


def may_merge(recipe: Recipe) -> bool:
    """Whether a merged block may be stored as what it was merged from.

    All of that must be rebuilt for it: not more updates than a chain may have, and not more than
    large or small ones of a chain may take for each of two versions.
    """
    dense, before = cost((recipe,))
    large = sum(nbytes for nbytes in before if nbytes >= _LARGE * dense)
    small = sum(nbytes for nbytes in before if nbytes < _LARGE * dense)
    fits = large <= _MAX_LARGE_SHARE * dense and small <= 2 * _MAX_SHARE * dense
    return fits and len(before) <= MAX_UPDATES


def _update_against(
    spec: BlockSpec, new: Values, predecessor: Predecessor, keep: int
) -> Encoded | None:
    """The update on the first `keep` files of the chain, if it is smaller than a dense copy."""
    base = predecessor.rebuild(keep)
    update = smallest_update(spec, new, base)
    if update is None:
        return None
    remarks = (*update.info, *describe(spec.dtype, new, base))
    return Encoded(update.kind, update.pieces, remarks)


def encode_chunk(spec: BlockSpec, new: Values, predecessor: Predecessor) -> Choice:
    """The smaller of a dense copy and a patch, for a chunk of a file of no known container."""
    patch = Patch().encode_chunk(new, predecessor.rebuild(len(predecessor.chain)))
    if patch is not None and _may_grow(predecessor.chain, patch):
        if patch.nbytes < new.nbytes // _CLEARLY_SMALLER:
            return Choice(len(predecessor.chain), patch)
        dense = Dense().encode(spec, new)
        if patch.nbytes < dense.nbytes:
            return Choice(len(predecessor.chain), patch)
        return Choice(0, dense)
    return Choice(0, Dense().encode(spec, new))


def encode_bytes(new: bytes, predecessor: Predecessor | None) -> Choice:
    """The smaller of a compressed copy and a patch, for bytes such as a skeleton."""
    spec = BlockSpec(DTYPES["U8"], (len(new),))
    dense = encode_dense_bytes(memoryview(new), level_for(len(new)), sized=True)
    if predecessor is None:
        return Choice(0, dense)
    values = np.frombuffer(new, np.uint8)
    for keep in dict.fromkeys((len(predecessor.chain), 1)):
        patch = Patch().encode(spec, values, predecessor.rebuild(keep))
        if patch is None or patch.nbytes >= dense.nbytes:
            continue
        if keep == 1 or _may_grow(predecessor.chain, patch):
            return Choice(keep, patch)
    return Choice(0, dense)
