"""A model, and what two branches made of it: the tensors that differ from the common base."""

from __future__ import annotations

from tests.scenarios.checkpoints import changed, model
from tests.scenarios.merges import QUERY, VALUE

BASE = model()
LONE = "encoder.layer.1.attention.query.weight"
OURS = {QUERY: changed(BASE[QUERY], seed=1)}
THEIRS = {QUERY: changed(BASE[QUERY], seed=3)}
APART = {VALUE: changed(BASE[VALUE], seed=4)}
