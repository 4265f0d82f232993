"""How a merged block is stored: quickly where it is plain what it must be.

Both sides of a block went through every finder when they were added. Where these found nothing
but small distances from the version that both come from, a merge of the two has no other form
either: it is stored as distances from that version, or afresh, as a sample says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from git_theta_ext.manifest import Block, UpdateRef
from git_theta_ext.tensors import BlockSpec
from git_theta_ext.updates import coders
from git_theta_ext.updates.base import Encoded, Part, Values
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import SLICE, difference, is_ordered
from git_theta_ext.updates.statistics import describe

_PLAIN = frozenset({"delta", "dense"})
_SAMPLE = 65_536
_MANY = 1 << 20
"""Values that the figures of an update are taken from: they are given to two digits."""
_LEVEL = 4
_WORTH = 0.98
"""Distances that save less than two percent are not worth the second pass when they are read."""


def encode_merged(
    spec: BlockSpec,
    new: Values,
    head: Values,
    chain: tuple[UpdateRef, ...],
    sides: Sequence[Block],
) -> Encoded | None:
    """A merged block as `dense` or as a `delta` of what both sides come from.

    Args:
        spec: what the block is.
        new: its values.
        head: what `chain` stands for.
        chain: the beginning that the sides' chains share.
        sides: the blocks that were merged.

    Returns:
        None where the sides' updates say that there may be a smaller form (sparse, low-rank), or
        where the chain is longer than a dense block: then every kind of update is to be tried.
    """
    kinds = {ref.kind for side in sides for ref in side.chain}
    if not kinds <= _PLAIN or len(chain) != 1 or len(new) < _SAMPLE or spec.dtype.kind != "float":
        return None
    few, old = (coders.sample_of(values, _SAMPLE) for values in (new, head))
    part = BlockSpec(spec.dtype, (len(few),))
    share = _delta(part, few, old).nbytes / Dense().encode(part, few).nbytes
    if share > _WORTH:
        return Dense().encode(spec, new)
    update = _delta(spec, new, head)
    figures = describe(spec.dtype, *(coders.sample_of(one, _MANY, 64) for one in (new, head)))
    return Encoded(update.kind, update.pieces, figures)


def _delta(spec: BlockSpec, new: Values, base: Values) -> Encoded:
    """As `delta.Delta`, at a level that is quicker."""
    floats, streams = is_ordered(spec.dtype), []
    for start in range(0, len(new), SLICE):
        piece = slice(start, start + SLICE)
        distances = difference(new[piece], base[piece], floats)
        streams.append(coders.compress_numbers(distances, _LEVEL))
    lengths = np.array([len(stream) for stream in streams], np.uint32)
    parts: dict[str, Part] = {"data": b"".join(streams), "lengths": lengths}
    return Encoded("delta", build("delta", {"coder": "pco"}, parts))
