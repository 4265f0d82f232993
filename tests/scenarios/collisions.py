"""A model, and two branches that changed the same two tensors of it; `diverged` has one tensor."""

from __future__ import annotations

import numpy as np

from tests.scenarios.checkpoints import changed, model
from tests.scenarios.merges import QUERY, VALUE

BASE = model()
OURS = {QUERY: changed(BASE[QUERY], seed=1), VALUE: changed(BASE[VALUE], seed=2)}
THEIRS = {QUERY: changed(BASE[QUERY], seed=3), VALUE: changed(BASE[VALUE], seed=4)}
LONE = "encoder.layer.1.attention.query.weight"


def mean(name: str) -> np.ndarray:
    """What `average` makes of a tensor that both changed."""
    return ((OURS[name].astype(np.float64) + THEIRS[name]) / 2).astype(np.float32)


def again(name: str, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """ours + (theirs − base), rounded once."""
    return (ours.astype(np.float64) + (theirs.astype(np.float64) - BASE[name])).astype(np.float32)


AVERAGE = {QUERY: mean(QUERY), VALUE: mean(VALUE)}
