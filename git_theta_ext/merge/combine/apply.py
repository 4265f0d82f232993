"""Carry a plan out: read what must be read, store what is new, and say what is open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from git_theta_ext.checkpoints.adapters.peft_config import CONFIG
from git_theta_ext.checkpoints.smudge import differing
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.tensors import BLOCK_BYTES, TensorInfo
from git_theta_ext.manifest.model import Entry, Manifest, version_of
from git_theta_ext.merge.combine import skeleton
from git_theta_ext.merge.combine.factors import Blended, blend
from git_theta_ext.merge.combine.jobs import BUDGET_BYTES, Job, merge_job, merge_jobs
from git_theta_ext.merge.combine.merger import Statistics, measure_tensor
from git_theta_ext.merge.combine.result import TensorResult
from git_theta_ext.merge.combine.tensor import Versions, copies_of
from git_theta_ext.merge.combine.values import Measure
from git_theta_ext.merge.decide.blends import Blend
from git_theta_ext.merge.decide.decisions import Choose, Decision, Plan, renamed
from git_theta_ext.merge.decide.plan import make_plan
from git_theta_ext.merge.decide.scaling import Scalings
from git_theta_ext.merge.strategies.choice import CONFLICT
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import check_work
from git_theta_ext.objects.packs import Packing

UNFIT = "it does not fit into the structure of the result"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one tensor: its entry in the result, figures where it was read.

    `open` says why it is open, and is empty if it is settled; `note` what else is to be known.
    """

    decision: Decision
    entry: Entry | None
    measure: Measure | None = None
    open: str = ""
    note: str = ""

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.decision.name


@dataclass(frozen=True, slots=True)
class Merged:
    """The result: a manifest that is always whole; where something is open, ours stands.

    `structure` says why the structure is open, and is empty if it is settled.
    """

    manifest: Manifest
    outcomes: tuple[Outcome, ...] = ()
    structure: str = ""

    @property
    def open(self) -> dict[str, str]:
        """What is open, by name, and why; the structure first."""
        found = {skeleton.NAME: self.structure} if self.structure else {}
        found.update({one.name: one.open for one in self.outcomes if one.open})
        return found


def merge(
    base: Manifest | None,
    ours: Manifest,
    theirs: Manifest,
    blocks: Blocks,
    choose: Choose = lambda _: CONFLICT,
    *,
    prefer: skeleton.Side | None = None,
    statistics: Statistics | None = None,
    scalings: Scalings | None = None,
) -> Merged:
    """Merge two versions of a checkpoint that came from `base`.

    Args:
        base: None where both sides added the file.
        ours, theirs: the sides.
        blocks: where their objects are, and the result's go.
        choose: the strategy for each tensor, by name, where its entries collide.
        prefer: the side whose structure wins where both changed it.
        statistics: what Fisher and RegMean need.
        scalings: what the configuration beside an adapter says; None: there is none.

    Raises:
        ThetaError: an object is missing or damaged, or the store cannot be written.
    """
    if ours == theirs or (base is not None and theirs == base):
        return Merged(ours)
    if base is not None and ours == base:
        return Merged(theirs)
    plan = make_plan(base, ours, theirs, choose, scalings=scalings)
    return carry_out(plan, blocks, prefer, statistics)


def carry_out(
    plan: Plan,
    blocks: Blocks,
    prefer: skeleton.Side | None = None,
    statistics: Statistics | None = None,
    holder: skeleton.Structure | None = None,
) -> Merged:
    """Make the result that a plan describes; errors as for `merge`.

    Args:
        plan: the decisions.
        blocks: where the objects are, and the result's go.
        prefer: the side whose skeleton wins if both changed it.
        statistics: what Fisher and RegMean need.
        holder: the skeleton of the result, if it is settled already.
    """
    packing = Packing(blocks)
    with blocks.store.gathering():
        merged = in_packs(_carried_out(plan, packing, prefer, statistics, holder), packing)
        blocks.store.flush()
    return merged


def in_packs(merged: Merged, packing: Packing) -> Merged:
    """A result whose small objects waited, with the places that they have now."""
    manifest = packing.packed(merged.manifest)
    outcomes = (
        one if one.entry is None else replace(one, entry=packing.settled(one.entry))
        for one in merged.outcomes
    )
    return replace(merged, manifest=manifest, outcomes=tuple(outcomes))


def _carried_out(
    plan: Plan,
    blocks: Packing,
    prefer: skeleton.Side | None,
    statistics: Statistics | None,
    holder: skeleton.Structure | None,
) -> Merged:
    """The result of a plan; for an open tensor it has the version that stands."""
    blended = _blend(plan.blends, plan, blocks)
    plan = plan.opened({name: one.wrong for name, one in blended.items() if one.wrong})
    if holder is None:
        holder = skeleton.settle(plan, blocks, prefer)
    elif any(one.wrong for one in blended.values()):
        stands = {one.name: one.standing for one in plan.decisions if one.standing is not None}
        holder = replace(holder, tensors={name: stands[name] for name in holder.tensors})
    work = _Work(plan, blocks, holder.tensors, statistics, blended)
    outcomes = {}
    for one in work.outcomes():
        taken = one.entry if one.entry is None else blocks.take_entry(one.entry)
        outcomes[one.name] = replace(one, entry=taken)
    entries = []
    for name, tensor in holder.tensors.items():
        entry = outcomes[name].entry
        entries.append(entry if entry is not None else _standing(name, tensor, plan.tables))
    entries.sort(key=lambda entry: natural_key(entry.tensor.name))
    version = version_of(entries, (plan.ours, plan.theirs))
    manifest = Manifest(holder.format, holder.block, tuple(entries), version)
    ordered = tuple(outcomes[one.name] for one in plan.decisions)
    return Merged(manifest, ordered, holder.reason)


def outcome_of(
    plan: Plan, name: str, blocks: Blocks, statistics: Statistics | None = None
) -> Outcome:
    """What becomes of one tensor of a plan, by itself; errors as for `merge`.

    Args:
        plan: the decisions; those of other tensors are not carried out.
        name: of the tensor.
        blocks: where the objects are, and the result's go.
        statistics: what Fisher and RegMean need.
    """
    leader = plan.by_name[name].leader
    blends = {one: found for one, found in plan.blends.items() if one == leader}
    blended = _blend(blends, plan, blocks)
    plan = plan.opened({one: found.wrong for one, found in blended.items() if found.wrong})
    decision = plan.by_name[name]
    holds = {name: decision.standing} if decision.standing is not None else {}
    work = _Work(plan, blocks, holds, statistics, blended)
    plain = work._plain(decision)
    if plain is not None:
        return plain
    work.fetch([decision])
    return work.merge(decision)


def measure(plan: Plan, blocks: Blocks) -> dict[str, Measure]:
    """How the updates meet in every tensor that is merged entry by entry; nothing is stored."""
    work = _Work(plan, blocks, {}, None, {})
    decisions = [
        one for one in plan.decisions if one.action == "merge" and one.leader not in plan.blends
    ]
    work.fetch(decisions)
    found = ordered_map(
        lambda one: measure_tensor(work.versions_of(one)), decisions, _cost, budget=BUDGET_BYTES
    )
    return {one.name: figures for one, figures in zip(decisions, found, strict=True)}


def _standing(name: str, tensor: TensorInfo, versions: Sequence[Mapping[str, Entry]]) -> Entry:
    """What stands for an open tensor: ours, else whatever version fits into the structure."""
    old, mine, yours = (version.get(name) for version in versions)
    fitting = [one for one in (mine, yours, old) if one is not None and one.tensor == tensor]
    return fitting[0]


def _blend(blends: Mapping[str, Blend], plan: Plan, blocks: Blocks) -> dict[str, Blended]:
    """Products of factors, one after the other, before it is settled what holds the result.

    All that they are made of is fetched in one batch, and refused where it is out of proportion.
    """
    if not blends:
        return {}
    old, mine, yours = plan.tables
    tables = (mine, yours, old)
    entries = [
        entry for one in blends.values() for _, *pair in one.entries(tables) for entry in pair
    ]
    fetch(blocks, [[one, None] for one in entries], "the factors that both sides changed")
    return {name: blend(one, tables, blocks) for name, one in blends.items()}


def fetch(blocks: Blocks, tensors: Sequence[Sequence[Entry | None]], what: str) -> None:
    """Get all versions of some tensors in one batch, before any is read.

    Args:
        blocks: where they are to be.
        tensors: for each the versions that will be read.
        what: what this is, in a message that refuses what is out of proportion.

    Raises:
        ThetaError: an object is nowhere, or to read it all would be more than `limits` allow.
    """
    blocks.ensure(
        ref
        for versions in tensors
        for entry in versions
        if entry is not None
        for block in entry.blocks
        for ref in block.objects()
    )
    pairs = (pair for versions in tensors for pair in differing(list(versions)))
    check_work(blocks, pairs, what, reading=True)


@dataclass(slots=True)
class _Work:
    plan: Plan
    blocks: Blocks
    holds: Mapping[str, TensorInfo]
    statistics: Statistics | None
    blended: Mapping[str, Blended]

    def outcomes(self) -> Iterator[Outcome]:
        """Every tensor's: plain ones at once, then small ones side by side, then large ones."""
        small, large = [], []
        for decision in self.plan.decisions:
            plain = self._plain(decision)
            if plain is not None:
                yield plain
            elif decision.standing is not None and decision.standing.nbytes > BLOCK_BYTES:
                large.append(decision)
            else:
                small.append(decision)
        self.fetch((*small, *large))
        if self.blocks.executor.far:  # where each process merges one after the other
            small, large = [*small, *large], []
        jobs = [self._job(one) for one in small]
        for job, found in zip(jobs, merge_jobs(self.blocks, jobs), strict=True):
            yield _outcome(job, found)
        for one in large:
            yield self.merge(one)

    def _plain(self, decision: Decision) -> Outcome | None:
        """The outcome of a decision that needs no values, or None."""
        old, mine, yours = (version.get(decision.name) for version in self.plan.tables)
        if decision.action == "drop":
            return Outcome(decision, None)
        if decision.action == "open":
            entry = mine if mine is not None else yours
            held = entry is not None and self.holds.get(decision.name) == entry.tensor
            return Outcome(decision, entry if held else None, None, decision.reason)
        if decision.standing != self.holds.get(decision.name):
            fitting = self._fitting(decision)
            return fitting or Outcome(decision, None, None, UNFIT)
        if decision.action == "merge":
            return self._factor(decision) if decision.leader in self.blended else None
        if decision.source:
            return Outcome(decision, self._copied(decision))
        taken = {"theirs": yours, "base": old}.get(decision.action, mine)
        return Outcome(decision, taken)

    def _copied(self, decision: Decision) -> Entry:
        """A tensor that stays a copy of another one, as the side that is taken has that."""
        table = self.plan.tables[2 if decision.action == "theirs" else 1]
        return renamed(table[decision.source], decision.name)

    def _fitting(self, decision: Decision) -> Outcome | None:
        """A tensor that has no place in the structure, as the side has it that was chosen."""
        sides = dict(zip(("base", "ours", "theirs"), self.plan.tables, strict=True))
        table = sides.get(decision.choice.strategy)
        if table is None:
            return None
        entry, held = table.get(decision.name), self.holds.get(decision.name)
        fits = (entry.tensor if entry is not None else None) == held
        return Outcome(decision, entry) if fits else None

    def fetch(self, decisions: Sequence[Decision]) -> None:
        """Everything that will be read, in one batch; refused where it is out of proportion."""
        tensors = [[version.get(one.name) for version in self.plan.tables] for one in decisions]
        fetch(self.blocks, tensors, "what both sides changed")

    def versions_of(self, decision: Decision) -> Versions:
        """The three versions of a tensor that both sides have."""
        job = self._job(decision)
        return Versions(job.tensor, job.base, job.sides, self.blocks)

    def _factor(self, decision: Decision) -> Outcome:
        """One factor of a product that was blended; the group's leader says how."""
        found = self.blended[decision.leader]
        note = ""
        if decision.name == decision.leader:
            label = self.plan.group_of[decision.name].label
            product = self.plan.blends[decision.leader]
            note = (
                f"{label}: the product of its factors was blended by {decision.choice}, with rank "
                f"{product.rank:,}; {100 * found.error:.3g} % of its length was cut off"
            )
            if product.alpha is not None:
                note = (
                    f"{label}: the factors of its product were joined by {decision.choice}, to "
                    f"rank {product.rank:,}; {CONFIG} is changed with it, and staged"
                )
        return Outcome(decision, found.entries[decision.name], None, "", note)

    def _job(self, decision: Decision) -> Job:
        """A tensor that both sides have, to be merged."""
        old, mine, yours = (version.get(decision.name) for version in self.plan.tables)
        if mine is None or yours is None or decision.standing is None:
            raise ValueError(f"{decision.name!r} is not on both sides")
        return Job(decision, decision.standing, old, (mine, yours), self.statistics)

    def merge(self, decision: Decision) -> Outcome:
        """Merge a tensor here, its blocks side by side."""
        job = self._job(decision)
        return _outcome(job, merge_job(self.blocks, job, BUDGET_BYTES))


def _outcome(job: Job, found: TensorResult) -> Outcome:
    entry = Entry(job.tensor, found.blocks)
    return Outcome(job.decision, entry, found.measure, found.reason)


def _cost(decision: Decision) -> int:
    nbytes = decision.standing.nbytes if decision.standing is not None else 0
    return copies_of(2) * min(nbytes, BLOCK_BYTES)
