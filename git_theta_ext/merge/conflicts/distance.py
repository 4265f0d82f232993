"""How far a merged tensor is from each side: 0 is that side itself, 1 as far as the other one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from git_theta_ext.core.tensors import DType
from git_theta_ext.core.values import Values, to_floats
from git_theta_ext.manifest.model import Entry
from git_theta_ext.merge.combine.apply import outcome_of
from git_theta_ext.merge.combine.merger import Statistics
from git_theta_ext.merge.conflicts.resolve import Conflict
from git_theta_ext.merge.decide.decisions import Plan, type_of
from git_theta_ext.objects.blocks import Blocks


@dataclass(frozen=True, slots=True)
class Weighed:
    """One tensor of a result: why it is open (empty: settled), and how far it is from each side.

    Distances are Euclidean over finite entries (of numbers that are no floats, the square root of
    how many differ), as a part of that between the sides; None where shapes or types differ.
    """

    open: str
    ours: float | None
    theirs: float | None


def weigh(
    conflict: Conflict, name: str, blocks: Blocks, statistics: Statistics | None = None
) -> Weighed:
    """Merge one tensor with what was chosen for it, and compare it with both sides.

    Args:
        conflict: with the choices so far.
        name: of a tensor.
        blocks: where objects are read; the merged tensor is written there.
        statistics: what Fisher and RegMean need; see `Conflict.statistics`.

    Raises:
        ThetaError: an object is missing or damaged.
    """
    plan: Plan = conflict.plan()
    outcome = outcome_of(plan, name, blocks, statistics)
    mine, yours = (table.get(name) for table in plan.tables[1:])
    made = outcome.entry
    versions = [one for one in (made, mine, yours) if one is not None]
    if len(versions) < 3 or len({type_of(one) for one in versions}) > 1:
        return Weighed(outcome.open, None, None)
    to_ours, to_theirs, between = _squares(versions, blocks)
    if not between > 0:
        return Weighed(outcome.open, 0.0, 0.0)
    return Weighed(outcome.open, math.sqrt(to_ours / between), math.sqrt(to_theirs / between))


def _squares(versions: Sequence[Entry], blocks: Blocks) -> tuple[float, float, float]:
    """The squared distances of the first version to the two others, and between those."""
    found = np.zeros(3)
    for number, spec in enumerate(versions[0].specs()):
        values, _ = blocks.read_together([(spec, one.blocks[number]) for one in versions])
        made, mine, yours = values
        for place, pair in enumerate(((made, mine), (made, yours), (mine, yours))):
            found[place] += _square(spec.dtype, *pair)
    return float(found[0]), float(found[1]), float(found[2])


def _square(dtype: DType, a: Values, b: Values) -> float:
    if dtype.kind not in ("float", "complex"):
        return float(np.count_nonzero(a != b))
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.square(to_floats(dtype, a) - to_floats(dtype, b))
    return float(np.sum(gap[np.isfinite(gap)]))
