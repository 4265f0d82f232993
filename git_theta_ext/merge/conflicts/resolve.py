"""Settle what a merge left open, any number of times, from the three versions in the index."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from git_theta_ext.checkpoints.converted import manifest_of
from git_theta_ext.checkpoints.placed import write_version
from git_theta_ext.checkpoints.shards import model_of
from git_theta_ext.core import advice
from git_theta_ext.core.errors import ManifestError, UsageError
from git_theta_ext.core.globs import Globs
from git_theta_ext.git.operations import heads_if_any, is_picking, other_heads
from git_theta_ext.git.paths import add_options, advise, from_here
from git_theta_ext.git.repository import IndexEntry, Repository, literal
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.merge.combine import skeleton
from git_theta_ext.merge.combine.apply import Merged, carry_out
from git_theta_ext.merge.combine.growth import Settings, settings_for
from git_theta_ext.merge.combine.merger import Statistics
from git_theta_ext.merge.combine.statistics import statistics_of
from git_theta_ext.merge.conflicts.left import values_of
from git_theta_ext.merge.conflicts.state import Resolution, State, key_of, load, save
from git_theta_ext.merge.decide.beside_adapter import scalings_under_way
from git_theta_ext.merge.decide.plan import Plan, make_plan
from git_theta_ext.merge.decide.scaling import Scalings
from git_theta_ext.merge.decide.together import whole_groups
from git_theta_ext.merge.strategies.policy import Operation, parse_choice, policy_for
from git_theta_ext.objects.blocks import Blocks


def settling_deleted(repository: Repository, path: str, stages: Collection[int]) -> str:
    """What settles a path in conflict that a side does not have, by the stages that are there."""
    name = advice.word(from_here(repository, path))
    if 2 not in stages and 3 not in stages:
        return f"to delete it: git rm {add_options(repository)}{name}"
    sparse = add_options(repository)
    return f"to keep it: git add {sparse}{name}   to delete it: git rm {sparse}{name}"


def operation_under_way(repository: Repository) -> Operation:
    """Whether a rebase, cherry-pick or revert is in progress, by what Git leaves in its folder."""
    return "rebase" if is_picking(repository) else "merge"


@dataclass(frozen=True)
class Conflict:
    """An unmerged path: its three versions, and what was chosen so far."""

    repository: Repository
    path: str
    versions: tuple[Manifest | None, Manifest, Manifest]
    key: str
    state: State
    scalings: Scalings

    @classmethod
    def find(cls, repository: Repository, path: str, environment: Mapping[str, str]) -> Conflict:
        """The conflict at a path, from the top of the work tree.

        Without a state, as after a merge without the driver, it begins with what is configured.

        Raises:
            UsageError: the path is not in conflict, or one side deleted it.
            ManifestError: a version is no manifest.
        """
        stages = {one.stage: one for one in repository.index(literal(path))}
        if not stages or 0 in stages:
            raise UsageError(f"{path} is not in conflict", hint="git status   shows what is")
        if 2 not in stages or 3 not in stages:
            gone = "ours" if 2 not in stages else "theirs"
            model = model_of(path)
            hint = settling_deleted(repository, path, stages)
            if 2 not in stages and 3 not in stages:
                raise UsageError(f"{path} was deleted or renamed on both sides", hint=hint)
            if model is not None:
                hint = "to settle all shards of the model together: git theta resolve MODEL"
                hint = advise(repository, hint, model, "MODEL")
            raise UsageError(
                f"{gone} has deleted or renamed {path}; the other side has it", hint=hint
            )
        texts = [_text(repository, stages.get(number)) for number in (1, 2, 3)]
        blocks = Blocks.open(repository)
        versions = [manifest_of(text, path, repository, blocks) if text else None for text in texts]
        key = key_of(texts)
        state = load(repository, key)
        if state is None:
            operation = operation_under_way(repository)
            state = State(policy_for(repository, path, operation, environment))
        ours, theirs = versions[1], versions[2]
        if ours is None or theirs is None:
            raise ManifestError(f"{path}: a side is empty")
        scalings = scalings_under_way(
            repository, path, lambda: heads_if_any(repository), state.grown
        )
        return cls(repository, path, (versions[0], ours, theirs), key, state, scalings)

    def plan(self) -> Plan:
        """What would be done with what was chosen so far; made once, however often it is asked."""
        return self._plan

    @cached_property
    def _plan(self) -> Plan:
        plan = make_plan(*self.versions, self.state.choose, scalings=self.scalings)
        if not self.state.resolutions:
            return plan
        # A tensor of one side that was open all the same, for want of a place: see `apply`.
        return replace(
            plan,
            decisions=tuple(
                replace(one, choice=self.state.resolved(one.name) or one.choice)
                if one.action in ("ours", "theirs", "drop")
                else one
                for one in plan.decisions
            ),
        )

    def statistics(self, blocks: Blocks) -> Statistics:
        """What Fisher and RegMean need, of both sides."""
        # A revert takes what a commit did away again: no statistics are of that.
        heads = [one for one in other_heads(self.repository) if one != "REVERT_HEAD"]
        revisions = ("HEAD", heads[0] if heads else None)
        return statistics_of(self.repository, self.path, revisions, blocks)

    def structure_reason(self, blocks: Blocks) -> str:
        """Why the structure is open; empty if it is not."""
        return skeleton.settle(self.plan(), blocks, self.state.structure).reason

    def merged(self, blocks: Blocks) -> Merged:
        """The result of what was chosen so far."""
        return carry_out(self.plan(), blocks, self.state.structure, self.statistics(blocks))

    def require_conflict(self) -> None:
        """Refuse what is not in conflict; `find` has done so for a single path."""

    @property
    def written(self) -> bool:
        """Whether a result in which nothing is open was written before.

        It was not where Git merged without the driver, or shard by shard: what stands in the work
        tree is then one side, or has conflict markers.
        """
        known = load(self.repository, self.key)
        return known is not None and not known.open

    def with_open(self, found: Mapping[str, str]) -> Conflict:
        """The same conflict, now that it is known what is open in it."""
        return replace(self, state=replace(self.state, open=dict(found)))

    def resolve(
        self, pattern: str | None, choice: str | None, side: skeleton.Side | None
    ) -> Conflict:
        """Use a strategy for open tensors, or for all that match a pattern and both changed.

        Args:
            pattern: a glob of tensors' names; None for whatever is open.
            choice: such as `ties,density=0.2`; None where only the structure is settled.
            side: the side whose structure is to stand, or None.

        Raises:
            UsageError: nothing matches, or there is no such strategy.
        """
        if choice is None:
            return self._with((*self.state.resolutions, Resolution(frozenset(), "conflict", side)))
        parse_choice(choice, "--strategy")
        if pattern is None:
            names = [name for name in self.state.open if name != skeleton.NAME]
        else:
            both = (one for one in self.plan().decisions if one.action in ("merge", "open"))
            chosen = {name for one in self.state.resolutions for name in one.names}
            known = {*(one.name for one in both), *self.state.open, *chosen} - {skeleton.NAME}
            globs = Globs([pattern], "--tensor")
            names = sorted(name for name in known if globs.matches(name))
            if not names:
                raise UsageError(f"no tensor that both sides changed matches {pattern!r}")
        names = whole_groups(names, self.plan().groups)
        resolution = Resolution(frozenset(names), choice, side)
        return self._with((*self.state.resolutions, resolution))

    def only(self, names: Iterable[str], choice: str) -> Conflict:
        """Use a strategy for some tensors, by their names, and what is coupled with them.

        Raises:
            UsageError: there is no such strategy.
        """
        parse_choice(choice, "strategy")
        whole = whole_groups(names, self.plan().groups)
        return self._with((*self.state.resolutions, Resolution(frozenset(whole), choice)))

    def undo(self) -> Conflict:
        """Take the last resolution back.

        Raises:
            UsageError: there is none.
        """
        if not self.state.resolutions:
            raise UsageError(f"{self.path}: nothing was resolved yet")
        return self._with(self.state.resolutions[:-1])

    def abort(self) -> Conflict:
        """Take all resolutions back."""
        return self._with(())

    def _with(self, resolutions: Iterable[Resolution]) -> Conflict:
        return replace(self, state=replace(self.state, resolutions=tuple(resolutions)))

    def finish(self, blocks: Blocks) -> Merged:
        """Make the result, write it into the work tree, and remember the state.

        Raises:
            ThetaError: an object is missing or damaged, or a file cannot be written.
        """
        plan = self.plan()
        merged = carry_out(plan, blocks, self.state.structure, self.statistics(blocks))
        settings = settings_for(self.repository, self.path, plan, merged, self.state.grown)
        write_version(self.repository, self.path, merged.manifest, blocks)
        self.remember(merged, settings)
        return merged

    def remember(self, merged: Merged, settings: Settings | None) -> None:
        """Write the settings that an adapter needs, and keep the state of a result.

        Raises:
            ThetaError: a file cannot be written.
        """
        grown = None
        if settings is not None and (settings.grown or self.state.grown):
            settings.write(self.repository)
            grown = settings.grown
        left = values_of(merged.manifest, merged.open)
        state = replace(self.state, open=merged.open, grown=grown, left=left)
        save(self.repository, self.key, state)


def _text(repository: Repository, entry: IndexEntry | None) -> bytes | None:
    return None if entry is None else repository.blob(entry.oid)
