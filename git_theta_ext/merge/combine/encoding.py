"""How a merged block is stored: quickly where it is plain what it must be.

Both sides of a block went through every finder when they were added. Where these found nothing
but small distances from the version that both come from, a merge of the two has no other form
either: it is stored as distances from that version, or afresh, as a sample says.
"""

from __future__ import annotations

from collections.abc import Sequence

from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.manifest.model import Block
from git_theta_ext.objects.blocks import Shared
from git_theta_ext.updates import coders
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.correction import encode_distances
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import is_ordered
from git_theta_ext.updates.statistics import describe

_PLAIN = frozenset({"delta", "dense"})
_SAMPLE = 65_536
_MANY = 1 << 20
"""Values that the figures of an update are taken from: they are given to two digits."""
_LEVEL = 4
_WORTH = 0.98
"""Distances that save less than two percent are not worth the second pass when they are read."""


def encode_merged(new: Values, shared: Shared, sides: Sequence[Block]) -> Encoded | None:
    """A merged block as `dense` or as a `delta` of what both sides come from.

    Args:
        new: its values.
        shared: what both sides come from, a block of the same dtype and shape.
        sides: the blocks that were merged.

    Returns:
        None where the sides' updates say that there may be a smaller form (sparse, low-rank), or
        where the chain is longer than a dense block: then every kind of update is to be tried.
    """
    kinds = {ref.kind for side in sides for ref in side.chain}
    spec, old = shared.spec, shared.values
    if not kinds <= _PLAIN or len(shared.chain) != 1 or len(new) < _SAMPLE:
        return None
    if spec.dtype.kind != "float":
        return None
    few, then = (coders.sample_of(values, _SAMPLE) for values in (new, old))
    part = BlockSpec(spec.dtype, (len(few),))
    share = _delta(part, few, then).nbytes / Dense().encode(part, few).nbytes
    if share > _WORTH:
        return Dense().encode(spec, new)
    update = _delta(spec, new, old)
    figures = describe(spec.dtype, *(coders.sample_of(one, _MANY, 64) for one in (new, old)))
    return Encoded(update.kind, update.pieces, figures)


def _delta(spec: BlockSpec, new: Values, base: Values) -> Encoded:
    """As `delta.Delta`, at a level that is quicker."""
    settings, parts = encode_distances(new, base, is_ordered(spec.dtype), _LEVEL)
    return Encoded("delta", build("delta", settings, parts))
