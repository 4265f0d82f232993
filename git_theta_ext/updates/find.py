"""Finding what happened to a block: each kind of update is judged by samples before it is tried.

The order is that of cost: what a sample rules out is never computed in full, so a block that was
trained afresh costs hardly more than its dense copy.
"""

from __future__ import annotations

import numpy as np

from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.arithmetic import mantissa_bits, widen
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.cast import Cast
from git_theta_ext.updates.coders import compress_numbers, sample_of
from git_theta_ext.updates.delta import Delta
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.low_rank.update import LowRank
from git_theta_ext.updates.permute import Permute
from git_theta_ext.updates.quantise import Quantise
from git_theta_ext.updates.residual import difference, is_ordered
from git_theta_ext.updates.resize import Resize
from git_theta_ext.updates.scale import Scale
from git_theta_ext.updates.sparse import MOST, Sparse
from git_theta_ext.updates.step import Step, modes, predict

_GLANCE = 1024
_SAMPLE = 8192
_UNRELATED = 0.8
"""Share of the energy of old and new that their difference has: 1 for unrelated values."""
_CLEARLY = 0.9
_TINY = 50
"""A list of one changed entry in so many, or fewer, is as small as any prediction."""

_SMALL = 10
"""An update of one byte in so many is what happened: nothing else is tried."""


def smallest_update(spec: BlockSpec, new: Values, base: Values) -> Encoded | None:
    """The smallest update from `base` to `new`, or None if a dense copy is smaller.

    Both are of one dtype and length. The same inputs give the same update everywhere.
    """
    permuted = Permute().encode(spec, new, base)
    if permuted is not None and permuted.nbytes < new.nbytes // _SMALL:
        return permuted
    if _are_unrelated(spec, new, base):
        return None if permuted is None else unless_larger(spec, new, permuted)
    changed = int(np.count_nonzero(new != base))
    best = Sparse().encode(spec, new, base) if changed <= len(new) // MOST else None
    if best is not None and changed <= len(new) // _TINY:
        return unless_larger(spec, new, best)
    scale = Scale().encode(spec, new, base)
    if scale is not None and scale.nbytes < new.nbytes // _SMALL:
        return _smaller(best, scale)
    best = _smaller(_smaller(best, scale), permuted)
    low_rank = LowRank().encode(spec, new, base)
    if low_rank is not None and low_rank.nbytes < new.nbytes // _SMALL:
        return _smaller(best, low_rank)
    best = _smaller(best, low_rank)
    share = _sampled_share(spec, new, base)
    if _may_be_steps(spec, new, base):
        best = _smaller(best, Step().encode(spec, new, base))
    if share <= 1.02 and (best is None or best.kind != "step"):
        best = _smaller(best, Delta().encode(spec, new, base))
    if best is not None and (share > _CLEARLY or len(new) < _SAMPLE):
        return unless_larger(spec, new, best)
    return best


def converting_update(
    spec: BlockSpec, new: Values, old_spec: BlockSpec, base: Values
) -> Encoded | None:
    """The update from a block of another dtype or shape, or None if a dense copy is smaller.

    Args:
        spec: what the new block is.
        new: its raw bits, flat.
        old_spec: what its predecessor is.
        base: the predecessor's raw bits, flat; not written to.
    """
    best = _smaller(
        Cast().encode_from(spec, new, old_spec, base),
        Resize().encode_from(spec, new, old_spec, base),
    )
    best = _smaller(best, Quantise().encode_from(spec, new, old_spec, base))
    return None if best is None else unless_larger(spec, new, best)


def _smaller(one: Encoded | None, other: Encoded | None) -> Encoded | None:
    """The smaller of two updates; the first of equals."""
    if one is None or other is None:
        return one or other
    return other if other.nbytes < one.nbytes else one


def unless_larger(spec: BlockSpec, new: Values, update: Encoded) -> Encoded | None:
    """The update, or None if it does not save anything."""
    if update.nbytes < new.nbytes // 4:
        return update
    return update if update.nbytes < Dense().encode(spec, new).nbytes else None


def _are_unrelated(spec: BlockSpec, new: Values, base: Values) -> bool:
    """Whether old and new floats have nothing in common, judged by a thousand of them.

    Takes some 30 µs, so that a small tensor that was trained afresh costs no more than that.
    """
    if len(new) <= _GLANCE:
        return False
    return look_unrelated(spec, sample_of(new, _GLANCE), sample_of(base, _GLANCE))


def look_unrelated(spec: BlockSpec, few: Values, old: Values) -> bool:
    """Whether samples of new and old floats, of the same places, have nothing in common."""
    if mantissa_bits(spec.dtype) is None or 2 * np.count_nonzero(few == old) > len(few):
        return False
    now, then = widen(spec.dtype, few), widen(spec.dtype, old)
    with np.errstate(over="ignore", invalid="ignore"):
        step = now - then
        energy = float(now @ now) + float(then @ then)
        return float(step @ step) > _UNRELATED * energy


def _may_be_steps(spec: BlockSpec, new: Values, base: Values) -> bool:
    """Whether a table of steps, made from one half of a sample, shortens the other half."""
    mantissa = mantissa_bits(spec.dtype)
    if mantissa is None or len(new) < _SAMPLE:
        return False
    few, old = sample_of(new, _SAMPLE), sample_of(base, _SAMPLE)
    table = modes(spec.dtype, few[::2], old[::2], min(4, mantissa), mantissa)
    if not table.any():
        return False
    truth, before = few[1::2], old[1::2]
    predicted = predict(spec.dtype, before.copy(), table)
    if np.count_nonzero(predicted == truth) <= np.count_nonzero(before == truth) + len(truth) // 50:
        return False
    floats = is_ordered(spec.dtype)
    steps, plain = (
        len(compress_numbers(difference(truth, guess, floats))) for guess in (predicted, before)
    )
    return steps < _CLEARLY * plain


def _sampled_share(spec: BlockSpec, new: Values, base: Values) -> float:
    """Size of a delta over that of a dense copy, judged by a few thousand values."""
    few, old = sample_of(new, _SAMPLE), sample_of(base, _SAMPLE)
    if np.array_equal(few, old):
        return 0.0
    part = BlockSpec(spec.dtype, (len(few),))
    update = Delta().encode(part, few, old)
    dense = Dense().encode(part, few)
    return 1.0 if update is None else update.nbytes / dense.nbytes
