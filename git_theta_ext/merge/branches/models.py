"""Merge a sharded model as one: sides may shard it differently, or move tensors between shards.

Git merges shard by shard, and to it a tensor that moved is one that was removed here and added
there. Here the shards of each version are joined first, the tensors merged by name, and the result
is cut as the side did that moved tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from git_theta_ext.checkpoints import shards as sharded
from git_theta_ext.checkpoints.placed import write_version
from git_theta_ext.checkpoints.shards import Model
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.text import printable
from git_theta_ext.git.operations import Heads, heads_under_way
from git_theta_ext.git.paths import advise
from git_theta_ext.git.repository import Repository, literal
from git_theta_ext.git.trees import Row, blobs_of, is_file_at, stage
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.manifest.text import manifest_bytes
from git_theta_ext.merge.branches.cutting import cut_as, places_of
from git_theta_ext.merge.combine.apply import Merged, carry_out
from git_theta_ext.merge.combine.growth import settings_for
from git_theta_ext.merge.combine.merger import Statistics
from git_theta_ext.merge.combine.skeleton import Side, Structure
from git_theta_ext.merge.combine.statistics import statistics_of
from git_theta_ext.merge.conflicts import shard_index
from git_theta_ext.merge.conflicts.resolve import Conflict, operation_under_way
from git_theta_ext.merge.conflicts.state import State, key_of, load
from git_theta_ext.merge.decide.beside_adapter import scalings_under_way
from git_theta_ext.merge.decide.decisions import content_of, entries_of
from git_theta_ext.merge.decide.groups import find_groups
from git_theta_ext.merge.decide.together import whole_groups
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.merge.strategies.policy import Policy, policy_for
from git_theta_ext.objects.blocks import Blocks

_UNTIL_DECIDED = "both sides moved tensors between shards: choose with --structure ours or theirs"


def moved(before: Model | None, after: Model) -> bool:
    """Whether a tensor of one version is in another shard in the other version."""
    if before is None:
        return False
    places = places_of(after)
    return any(places.get(name, path) != path for name, path in places_of(before).items())


def torn(base: Model | None, ours: Model, theirs: Model) -> bool:
    """Whether coupled tensors that both sides changed lie in several shards.

    Git merges each shard by itself, and would take codes from one side and scales from the other.
    """
    old = base.joined if base is not None else None
    versions = [entries_of(one) for one in (old, ours.joined, theirs.joined)]
    places = {**places_of(theirs), **places_of(ours)}
    for group in find_groups(old, (ours.joined, theirs.joined)):
        if len({places.get(name) for name in group.members} - {None}) < 2:
            continue
        states = [
            tuple(None if (one := table.get(name)) is None else content_of(one)
                  for name in group.members)
            for table in versions
        ]  # fmt: skip
        if states[1] != states[2] and (old is None or states[0] not in states[1:]):
            return True
    return False


def resharded(repository: Repository, heads: Heads) -> list[str]:
    """The patterns of the models that must be merged as one.

    Both sides changed them, and one moved tensors to another shard, or both changed coupled
    tensors that lie in several shards.
    """
    if heads.ours in (heads.base, heads.theirs) or heads.theirs == heads.base:
        return []
    trees = [
        _shards(repository, one) if one else {} for one in (heads.base, heads.ours, heads.theirs)
    ]
    found = []
    for pattern in sorted(set(trees[1]) & set(trees[2]), key=natural_key):
        versions = [tree.get(pattern, {}) for tree in trees]
        if versions[1] == versions[2] or versions[0] in versions[1:]:
            continue
        base, ours, theirs = (
            model_at(repository, commit, pattern)
            for commit in (heads.base, heads.ours, heads.theirs)
        )
        if ours is None or theirs is None:
            continue
        if (
            moved(base, ours)
            or moved(base, theirs)
            or moved(ours, theirs)
            or torn(base, ours, theirs)
        ):
            found.append(pattern)
    return found


def _shards(repository: Repository, commit: str) -> dict[str, dict[str, str]]:
    """Path and blob of every shard, by the pattern of its model."""
    found: dict[str, dict[str, str]] = {}
    for path, oid in blobs_of(repository, commit):
        pattern = sharded.model_of(path)
        if pattern is not None:
            found.setdefault(pattern, {})[path] = oid
    return found


def model_at(repository: Repository, commit: str | None, path: str) -> Model | None:
    """The model that a path stands for in a commit; None where there is none.

    Raises:
        UsageError: its shards hold a tensor twice, with different values.
    """
    found = None if commit is None else sharded.find(repository, commit, path)
    if found is None:
        return None
    names = {entry.tensor.name for _, shard in found.shards for entry in shard.entries}
    twice = [one.tensor.name for one in found.joined.entries if one.tensor.name not in names]
    if twice:
        raise UsageError(
            f"{path} holds a tensor twice, with different values, in {commit}: {twice[0]}",
            hint="correct the shards on that branch first; git theta show COMMIT:FILE lists one",
        )
    return found


def require_unmoved(conflict: Conflict) -> None:
    """Refuse to settle a shard by itself where a tensor that collides in it has moved to another.

    To take either side there would leave the tensor twice, or not at all.

    Raises:
        UsageError: one has.
    """
    pattern = sharded.model_of(conflict.path)
    gone = [one for one in conflict.plan().decisions if "removed" in (one.ours, one.theirs)]
    gone = [one for one in gone if {one.ours, one.theirs} & {"changed", "retyped"}]
    if pattern is None or not gone:
        return
    try:
        heads = heads_under_way(conflict.repository)
    except UsageError:
        return  # a stash: its shards are settled one by one
    for side, commit in (("ours", heads.ours), ("theirs", heads.theirs)):
        model = sharded.find(conflict.repository, commit, pattern)
        places = {} if model is None else places_of(model)
        for one in gone:
            if (one.ours if side == "ours" else one.theirs) == "removed" and one.name in places:
                hint = "to settle all shards of the model together: git theta resolve MODEL"
                raise UsageError(
                    f"{one.name} is in {places[one.name]} in {side}, and was changed in "
                    f"{conflict.path} in the other",
                    hint=advise(conflict.repository, hint, pattern, "MODEL"),
                )


@dataclass(frozen=True, slots=True)
class ModelConflict(Conflict):
    """A sharded model under merge: as a `Conflict`, its versions joined from their shards.

    `path` is the pattern of its shards; `heads` are the commits, whose blobs count, not the index.
    """

    heads: Heads
    models: tuple[Model | None, Model, Model]

    @classmethod
    def find(
        cls, repository: Repository, path: str, environment: Mapping[str, str]
    ) -> ModelConflict:
        """The model that an index or a pattern stands for, in the merge that is in progress.

        Raises:
            UsageError: nothing is being merged, or a side has no such model.
            ManifestError: a shard's manifest is damaged.
        """
        heads = heads_under_way(repository)
        operation = operation_under_way(repository)
        policy = policy_for(repository, sharded.pattern_of(path), operation, environment)
        return cls.between(repository, path, heads, policy)

    @classmethod
    def between(
        cls, repository: Repository, path: str, heads: Heads, policy: Policy
    ) -> ModelConflict:
        """The model in three commits; errors as for `find`.

        Args:
            repository: where the commits are.
            path: of a shard, or the model's pattern, from the top of the work tree.
            heads: the commits: base, ours and theirs.
            policy: what the merge begins with if nothing was chosen for it before.
        """
        pattern = sharded.pattern_of(path)
        base, ours, theirs = (
            model_at(repository, one, pattern) for one in (heads.base, heads.ours, heads.theirs)
        )
        if ours is None or theirs is None:
            side = "HEAD" if ours is None else heads.theirs
            raise UsageError(f"{pattern} matches no tracked shards in {side}")
        models = (base, ours, theirs)
        texts = [
            None if one is None else b"".join(manifest_bytes(shard) for shard in one.parts)
            for one in models
        ]
        key = key_of(texts)
        state = load(repository, key) or State(policy)
        versions = (base.joined if base else None, ours.joined, theirs.joined)
        scalings = scalings_under_way(repository, pattern, lambda: heads, state.grown)
        return cls(repository, pattern, versions, key, state, scalings, heads, models)

    @property
    def paths(self) -> list[str]:
        """What `git add -A` takes the result with: the shards' pattern, and the index."""
        has_index = any(text and sharded.is_index(text) for text in self._index_texts()[1:])
        return [self.path, sharded.index_of(self.path)] if has_index else [self.path]

    def require_conflict(self) -> None:
        """Refuse where neither a shard nor the index is in conflict.

        Raises:
            UsageError: none is.
        """
        names = (f":(top,glob){name}" for name in self.paths)
        if not any(entry.stage for entry in self.repository.index(*names)):
            raise UsageError(f"{self.path} is not in conflict", hint="git status   shows what is")

    def merged(self, blocks: Blocks) -> Merged:
        """The result of what was chosen so far, all shards in one manifest that stands nowhere."""
        plan = self.plan()
        wanted = {one.name: one.standing for one in plan.decisions if one.standing is not None}
        side, reason = self._side()
        ours = self.versions[1]
        holder = Structure(ours.format, ours.skeleton, wanted, side, reason)
        return carry_out(plan, blocks, None, self.statistics(blocks), holder)

    def statistics(self, blocks: Blocks) -> Statistics:
        """What Fisher and RegMean need, from beside the shards, under the model's name."""
        stem = self.path.replace("-*-of-*", "")
        return statistics_of(self.repository, stem, (self.heads.ours, self.heads.theirs), blocks)

    def structure_reason(self, blocks: Blocks) -> str:
        """Why it is open which side says what each shard holds; empty if it is not."""
        return self._side()[1]

    def finish(self, blocks: Blocks) -> Merged:
        """Make the result, write all shards and their index into the work tree, remember the state.

        Raises:
            UsageError: a container that cannot be given other tensors would have to be.
            ThetaError: an object is missing or damaged, or a file cannot be written.
        """
        merged = self.merged(blocks)
        settings = settings_for(self.repository, self.path, self.plan(), merged, self.state.grown)
        shards = self.shards(merged, blocks)
        for path, manifest in shards.items():
            write_version(self.repository, path, manifest, blocks)
        known = {path for model in self.models if model for path, _ in model.shards}
        for path in known - set(shards):
            WorkTree(self.repository.top).remove(path)
        self._write_index(shards)
        self.remember(merged, settings)
        return merged

    def _side(self) -> tuple[Side, str]:
        """The side that says which shard holds what, and why that is open (empty: it is not)."""
        base, ours, theirs = self.models
        chosen = self.state.structure
        ours_moved, theirs_moved = moved(base, ours), moved(base, theirs)
        if not moved(ours, theirs):
            return "ours", ""
        if base is not None and ours_moved != theirs_moved:
            return ("ours" if ours_moved else "theirs"), ""
        return chosen or "ours", "" if chosen else _UNTIL_DECIDED

    def shards(self, merged: Merged, blocks: Blocks) -> dict[str, Manifest]:
        """The manifest of every shard of the result, by its path.

        Raises:
            UsageError: a container that cannot be given other tensors would have to be.
        """
        side, _ = self._side()
        base, ours, theirs = self.models
        mine, other = (ours, theirs) if side == "ours" else (theirs, ours)
        return cut_as(mine, other, base, merged.manifest, blocks)

    def _write_index(self, shards: Mapping[str, Manifest]) -> None:
        """Write the index from the shards, and say what of its other keys collided."""
        side = self.state.structure or self._side()[0]
        before = [dict(model.shards) for model in self.models[1:] if model]
        made = shard_index.merge_texts(self._index_texts(), side, shards, before)
        path = sharded.index_of(self.path)
        if made is None:
            self._tell_of_none(path)
            return
        text, collided = made
        WorkTree(self.repository.top).replace(path, text)
        for key in collided:
            print(
                f"git-theta: {printable(path)}: both sides changed {printable(key)}; the value of "
                f"{side} is kept",
                file=sys.stderr,
            )

    def _index_texts(self) -> list[bytes | None]:
        """The index in base, ours and theirs. A link is none."""
        path = sharded.index_of(self.path)
        found: list[bytes | None] = []
        for commit in (self.heads.base, self.heads.ours, self.heads.theirs):
            oid = None if commit is None else self.repository.blob_at(commit, path)
            there = oid and commit and is_file_at(self.repository, commit, path)
            found.append(self.repository.blob(oid) if oid and there else None)
        return found

    def _tell_of_none(self, path: str) -> None:
        """Say that what stands in the index's place is none, so that it does not go unnoticed."""
        heads = (self.heads.ours, self.heads.theirs)
        if any(self.repository.blob_at(commit, path) for commit in heads):
            print(
                f"git-theta: {printable(path)} is no index of shards on either side: it is left as "
                "Git merged it",
                file=sys.stderr,
            )


def chosen_policy(
    repository: Repository, pattern: str, choice: Choice | None, environment: Mapping[str, str]
) -> Policy:
    """What a merge of a model begins with: a choice for all tensors, else what is configured.

    Args:
        repository: where the configuration is.
        pattern: the model's path, as `sharded.pattern_of` has it.
        choice: of the command line, if any.
        environment: variables of the process.
    """
    if choice is not None:
        return Policy(choice, (), "--strategy")
    return policy_for(repository, pattern, "merge", environment)


def reopen(conflict: ModelConflict, names: Sequence[str]) -> None:
    """Make Git's index say that the shards of open tensors are in conflict, where it does not."""
    repository = conflict.repository
    side, _ = conflict._side()
    model = conflict.models[1] if side == "ours" else conflict.models[2]
    places = places_of(model)
    first = model.shards[0][0]
    rows = []
    parts = whole_groups(names, conflict.plan().groups)
    for path in sorted({places.get(name, first) for name in parts}):
        stages = {entry.stage for entry in repository.index(literal(path))}
        if stages - {0}:
            continue
        oids = [
            repository.blob_at(one, path) for one in (conflict.heads.ours, conflict.heads.theirs)
        ]
        length = next(len(oid) for oid in oids if oid)
        rows.append(Row("0", "0" * length, path))
        rows += [Row("100644", oid, path, n) for n, oid in zip((2, 3), oids, strict=True) if oid]
    stage(repository, rows)
