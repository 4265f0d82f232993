"""Merge three or more versions of a checkpoint at once, with the strategies for many sides.

A tensor, or an entry, that one side changed is taken from it; where several did, the strategy sees
those that did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.formats import safetensors
from git_theta_ext.manifest.model import Entry, Manifest, version_of
from git_theta_ext.merge.combine import skeleton
from git_theta_ext.merge.combine.apply import UNFIT, Merged, Outcome, fetch, in_packs
from git_theta_ext.merge.combine.collisions import MAX_SIDES
from git_theta_ext.merge.combine.jobs import Job, merge_jobs
from git_theta_ext.merge.combine.merger import Statistics
from git_theta_ext.merge.combine.result import TensorResult
from git_theta_ext.merge.combine.settling import narrowed
from git_theta_ext.merge.decide.decisions import VERSIONS, Choose, Decision, Plan, Side, entries_of
from git_theta_ext.merge.decide.plan import make_plan
from git_theta_ext.merge.decide.plan_several import Row, SeveralPlan, check_weights, plan_several
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.merge.strategies.table import NotPossibleError
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.packs import Packing


def merge_several(
    base: Manifest | None,
    sides: Sequence[Manifest],
    blocks: Blocks,
    choose: Choose,
    *,
    prefer: skeleton.Side | None = None,
    statistics: Statistics | None = None,
) -> Merged:
    """Merge several versions of a checkpoint; see `rows.plan_several` and `apply.merge`.

    Args:
        base: what all sides come from; None if there is no such version.
        sides: the versions, at most `MAX_SIDES`.
        blocks: where their objects are, and the result's go.
        choose: the strategy for each tensor, by name, if its entries collide.
        prefer: the side whose skeleton wins if several changed it.
        statistics: what Fisher and RegMean need.

    Raises:
        UsageError: more than `MAX_SIDES` sides, or a strategy's weights are not one for each.
        ThetaError: an object is missing or damaged, or the store cannot be written.
    """
    if len(sides) > MAX_SIDES:
        raise UsageError(f"at most {MAX_SIDES} versions can be merged at once, not {len(sides)}")
    plan = plan_several(base, sides, choose)
    rows = plan.rows
    holder = _structure(plan, blocks, prefer)
    tables = [entries_of(side) for side in plan.sides]
    read = [[row.old, *(tables[n].get(row.decision.name) for n in row.movers)]
            for row in rows if row.movers]  # fmt: skip
    fetch(blocks, read, "what several sides changed")

    jobs = [_job(row, tables, statistics) for row in rows if row.movers and not _is_open(row)]
    packing = Packing(blocks)
    with blocks.store.gathering():
        merged = merge_jobs(packing, [job for job, _ in jobs])
        done = (
            (job.tensor, replace(found, blocks=tuple(map(packing.take, found.blocks))), why)
            for (job, why), found in zip(jobs, merged, strict=True)
        )
        outcomes = tuple(_settle(row, holder.tensors.get(row.decision.name), done) for row in rows)
        made = {one.name: one.entry for one in outcomes}
        versions = (*tables, entries_of(plan.base))
        entries = tuple(
            made.get(name) or _standing(name, holder.tensors[name], versions)
            for name in sorted(holder.tensors, key=natural_key)
        )
        manifest = Manifest(holder.format, holder.block, entries, version_of(entries, plan.sides))
        result = in_packs(Merged(manifest, outcomes, holder.reason), packing)
        blocks.store.flush()
    return result


def _structure(
    plan: SeveralPlan, blocks: Blocks, prefer: skeleton.Side | None
) -> skeleton.Structure:
    """What holds the result: the structures of all sides, merged one after the other."""
    order = _order(plan)
    stands = plan.stands if plan.stands is None or plan.stands < 0 else order.index(plan.stands)
    current, names = plan.sides[order[0]], plan.names[1 + order[0]]
    reasons: list[str] = []
    for place, number in enumerate(order[1:], 1):
        side = plan.sides[number]
        known = dict(zip(VERSIONS, (plan.names[0], names, plan.names[1 + number]), strict=True))
        two: Plan = make_plan(plan.base, current, side, lambda _: Choice("ours"), ())
        two = replace(two, followed={one: found for one, found in known.items() if found})
        theirs = {one.name for one in two.decisions if one.action == "theirs"}
        if place == len(order) - 1:
            two = replace(two, decisions=tuple(_wanted(plan, two)))
        if stands is not None and stands <= place:
            version: Side = "theirs" if stands == place else "ours"
            two = replace(two, side="base" if stands < 0 else version, coupled=plan.coupled)
            reasons = [] if stands == place else reasons
        holder = skeleton.settle(two, blocks, prefer if two.side is None else None)
        reasons.append(holder.reason)
        names = known[holder.side] if holder.side else {}
        versions = [entries_of(one) for one in (current, side, plan.base)]
        entries = [
            _standing(name, tensor, versions[1::-1] if name in theirs else versions)
            for name, tensor in holder.tensors.items()
        ]
        entries.sort(key=lambda entry: natural_key(entry.tensor.name))
        current = Manifest(holder.format, holder.block, tuple(entries))
    return replace(holder, reason=next(filter(None, reasons), ""))


def _wanted(plan: SeveralPlan, last: Plan) -> Iterator[Decision]:
    """The decisions of all sides, as far as structures ask: which types the result holds.

    What is open has the type that it has in the plan of the last two.
    """
    found = {one.name: one.standing for one in last.decisions}
    for row in plan.rows:
        if row.decision.action == "open":
            standing = found.get(row.decision.name)
        elif row.movers:
            standing = row.decision.standing
        else:
            standing = None if row.entry is None else row.entry.tensor
        yield replace(row.decision, standing=standing)


def _order(plan: SeveralPlan) -> list[int]:
    """The sides in the order in which their structures are merged.

    A skeleton with the new names of renamed tensors comes first where it is taken as it is: one
    that has old names cannot stand for it.
    """
    numbers = list(range(len(plan.sides)))
    if all(side.format == safetensors.NAME for side in plan.sides):
        return numbers
    return sorted(numbers, key=lambda number: bool(plan.names[1 + number]))


def _standing(name: str, tensor: TensorInfo, versions: Sequence[Mapping[str, Entry]]) -> Entry:
    """What stands for a tensor that is open: a version that is of its type, if there is one."""
    found = [one[name] for one in versions if name in one]
    return next((one for one in found if one.tensor == tensor), found[0])


def _is_open(row: Row) -> bool:
    return row.decision.action == "open"


def _settle(
    row: Row, held: TensorInfo | None, done: Iterator[tuple[TensorInfo, TensorResult, str]]
) -> Outcome:
    """What becomes of one tensor; open if the skeleton has no place for the result.

    Args:
        row: the tensor.
        held: what the skeleton has of its name.
        done: what became of those that are merged, and why their strategy could not be used; this
            one is next, if it is.
    """
    decision = row.decision
    if _is_open(row):
        return Outcome(decision, None, None, decision.reason)
    outcome = _merged(decision, *next(done)) if row.movers else Outcome(decision, row.entry)
    if held != (None if outcome.entry is None else outcome.entry.tensor):
        return Outcome(decision, None, None, UNFIT)
    return outcome


def _job(
    row: Row, tables: Sequence[Mapping[str, Entry]], statistics: Statistics | None
) -> tuple[Job, str]:
    """One tensor that several sides changed, to be merged; and why its strategy cannot be used."""
    decision, count = row.decision, len(tables)
    check_weights(decision.choice, count)
    try:
        choice, weightless = narrowed(decision.choice, row.movers), ""
    except NotPossibleError as error:
        choice, weightless = CONFLICT, str(error)
    entries = tuple(tables[number][decision.name] for number in row.movers)
    some = _statistics_of_some(statistics, row.movers, count)
    names = tuple(f"side-{number + 1}" for number in row.movers)
    tensor, given = entries[0].tensor, replace(decision, choice=choice)
    return Job(given, tensor, row.old, entries, some, several=True, names=names), weightless


def _merged(
    decision: Decision, tensor: TensorInfo, found: TensorResult, weightless: str
) -> Outcome:
    """What became of a tensor that was merged."""
    # Of three sides and more, no two updates are the ones that figures could tell of.
    figures = replace(found.measure, dot=0.0, ours=0.0, theirs=0.0)
    reason = weightless if weightless and found.reason else found.reason
    return Outcome(decision, Entry(tensor, found.blocks), figures, reason)


def _statistics_of_some(
    whole: Statistics | None, numbers: Sequence[int], count: int
) -> Statistics | None:
    """The statistics of some of `count` sides."""
    if whole is None:
        return None

    def find(kind: str, name: str) -> tuple[NDArray[Any] | None, ...] | None:
        found = whole(kind, name)
        if found is None or len(found) != count:
            return None
        return tuple(found[number] for number in numbers)

    return find
