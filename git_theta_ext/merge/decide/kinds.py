"""What a tensor is to a merge: weights may be blended, counters, codes and optimizer state not."""

from __future__ import annotations

import re
from typing import Literal

from git_theta_ext.manifest.model import Entry

Kind = Literal["weights", "batchnorm", "counter", "integer", "optimizer", "quantised", "opaque"]

NEVER_BLENDED: frozenset[Kind] = frozenset({"integer", "optimizer", "quantised", "opaque"})
"""Kinds for which only a whole side, the base or a reset makes sense."""

WHOLE: frozenset[Kind] = frozenset({"optimizer", "quantised", "opaque"})
"""Kinds whose entries depend on each other, so that they are not even merged entry by entry."""

_COUNTER = re.compile(
    r"(^|[._])(num_batches_tracked|epochs?|(global_|_|num_)?steps?(_count)?|iterations?|iters?"
    r"|last_epoch|num_updates|n_averaged|total|ready|started|processed|completed|current"
    r"|batches_that_stepped|batch_idx|samples_seen|tokens_seen)$",
    re.IGNORECASE,
)
_BATCHNORM = re.compile(r"(^|[._/])(running_mean|running_var|moving_mean|moving_variance)(:0)?$")


def is_counter_name(name: str) -> bool:
    """Whether the last part of a name is one that trainers give to their counters."""
    return _COUNTER.search(name) is not None


def kind_of(entry: Entry) -> Kind:
    """What a tensor is by itself, by its dtype and name; members of coupled groups are more.

    `optimizer` and `quantised` are kinds of such members: see `groups`.
    """
    tensor = entry.tensor
    if entry.opaque:
        return "opaque"
    number = tensor.count == 1 and tensor.dtype.kind in ("int", "uint", "float")
    if number and is_counter_name(tensor.name):
        return "counter"
    if tensor.dtype.kind not in ("float", "complex"):
        return "integer"
    return "batchnorm" if _BATCHNORM.search(tensor.name) else "weights"
