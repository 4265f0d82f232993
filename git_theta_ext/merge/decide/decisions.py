"""What a merge does with each tensor, as data: decisions, and the plan that they make up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.merge.decide.blends import Blend
from git_theta_ext.merge.decide.groups import Group
from git_theta_ext.merge.decide.kinds import Kind
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice

Did = Literal["-", "kept", "changed", "retyped", "added", "removed"]
"""What a side did to a tensor; `-`: it never had it."""

Action = Literal["same", "ours", "theirs", "base", "drop", "merge", "open"]
"""What is done: nothing (the sides agree), a side or the base is taken, the tensor goes, its
entries are merged, or it is left open."""

PLAIN = frozenset({"ours", "theirs", "base", "zero"})
"""Strategies that compute nothing, and so may be used on anything."""

TIE_BYTES = 1024
"""Smaller tensors with equal bytes (zero biases) are a coincidence, not a tie."""

Side = Literal["ours", "theirs", "base"]
VERSIONS: tuple[Side, ...] = ("base", "ours", "theirs")
"""The three versions of a merge of two sides, in the order in which they are given everywhere."""

Choose = Callable[[str], Choice]
"""The strategy for a tensor, by its name."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One tensor: what each side did, what is done, with which strategy where entries collide.

    `standing` is the type that the tensor has in the result: None if it is not in it. `reason`
    says why a tensor is open. `seed_name` is the name that random strategies are seeded by: the
    first one of tied tensors, so that they stay equal. `leader` is the tensor under whose name the
    coupled group is decided that this one is a member of; empty outside groups. `source` is the
    tensor that this one stays a copy of, as the side has it that is taken; else empty. `warning` is
    what the user should know of a group that was taken from a side, at its leader.
    """

    name: str
    kind: Kind
    ours: Did
    theirs: Did
    action: Action
    standing: TensorInfo | None
    choice: Choice = CONFLICT
    reason: str = ""
    seed_name: str = ""
    leader: str = ""
    source: str = ""
    warning: str = ""


@dataclass(frozen=True)
class Plan:
    """All decisions, in natural order of the tensors' names.

    `base`, `ours` and `theirs` call a tensor that one side renamed by its new name. `followed` says
    under which name the tensor stands in such a version, by its new name. `side` is the version
    whose skeleton must stand, for a coupled group has a part in it, and `coupled` that group.
    `blends` are the products of factors that are blended, by the leaders of their groups.
    """

    base: Manifest | None
    ours: Manifest
    theirs: Manifest
    decisions: tuple[Decision, ...]
    groups: tuple[Group, ...] = ()
    followed: Mapping[Side, Mapping[str, str]] = field(default_factory=dict)
    side: Side | None = None
    coupled: str = ""
    blends: Mapping[str, Blend] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> Mapping[str, Decision]:
        """The decisions by the names of their tensors."""
        return {one.name: one for one in self.decisions}

    @cached_property
    def tables(self) -> tuple[Mapping[str, Entry], Mapping[str, Entry], Mapping[str, Entry]]:
        """The tensors of base, ours and theirs, by name."""
        return entries_of(self.base), entries_of(self.ours), entries_of(self.theirs)

    @cached_property
    def group_of(self) -> Mapping[str, Group]:
        """The coupled group that a tensor is a member of, by its name."""
        return {name: group for group in self.groups for name in group.members}

    @property
    def open_group(self) -> bool:
        """Whether the group that needs a skeleton is open, so that ours stands for it for now."""
        return any(one.leader and one.action == "open" for one in self.decisions)

    def opened(self, reasons: Mapping[str, str]) -> Plan:
        """The plan with some groups open after all: the leader's name, and why."""
        if not reasons:
            return self
        held = self.tables[1]
        decisions = tuple(
            replace(
                one,
                action="open",
                standing=held[one.name].tensor,
                choice=CONFLICT,
                reason=reasons[one.leader] if one.name == one.leader else "",
            )
            if one.leader in reasons
            else one
            for one in self.decisions
        )
        return replace(self, decisions=decisions)


def entries_of(manifest: Manifest | None) -> dict[str, Entry]:
    """The tensors of a manifest by name; none without a manifest."""
    return {} if manifest is None else manifest.by_name()


def renamed(entry: Entry, name: str) -> Entry:
    """A tensor under another name."""
    return replace(entry, tensor=replace(entry.tensor, name=name))


def type_of(entry: Entry | None) -> tuple[object, ...] | None:
    """What must be equal for two versions of a tensor to be compared entry by entry."""
    if entry is None:
        return None
    tensor = entry.tensor
    return tensor.dtype.name, tensor.shape, tensor.order, entry.opaque


def content_of(entry: Entry) -> tuple[object, ...]:
    """What is equal exactly if two versions of a tensor are."""
    return (type_of(entry), *(block.sha256 for block in entry.blocks))
