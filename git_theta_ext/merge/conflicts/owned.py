"""Whose the tensors are that a merge is about: the modules that HEAD's `.theta.toml` declares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from git_theta_ext.checkpoints import modules
from git_theta_ext.checkpoints.modules import Module, Modules
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable, table
from git_theta_ext.git.repository import Repository
from git_theta_ext.merge.combine import skeleton
from git_theta_ext.merge.combine.values import Measure
from git_theta_ext.merge.decide.decisions import Decision, Plan
from git_theta_ext.merge.strategies.choice import CONFLICT

NOBODY = "no owner is named"
_TAKEN = ("ours", "theirs", "one side")
_ENDS = (*_TAKEN, "combined", "entry by entry", "open", "removed", "as in the base")
"""What becomes of a tensor that a side changed, in the order in which it is told."""


@dataclass(frozen=True, slots=True)
class Owned:
    """The modules of one checkpoint under merge.

    Attributes:
        path: of the checkpoint, from the top; of a sharded model its pattern.
        modules: those of HEAD, which is ours.
        problem: why they are not known; empty where they are.
    """

    path: str
    modules: Modules = field(default_factory=Modules)
    problem: str = ""

    @classmethod
    def at_head(cls, repository: Repository, path: str) -> Owned:
        """As HEAD has it. Where that is not usable, nothing is anybody's: a merge goes on."""
        if repository.resolve("HEAD") is None:
            return cls(path)
        try:
            return cls(path, modules.read(repository, "HEAD"))
        except UsageError as error:
            return cls(path, problem=error.message)

    def of(self, name: str) -> tuple[Module, ...]:
        """The modules of an open part; none of what holds the tensors."""
        return () if name == skeleton.NAME else self.modules.of(self.path, name)

    def tag(self, name: str) -> str:
        """What a line on an open part ends with: ` [vision: @vision-team]`; "" outside modules."""
        found = "; ".join(described(one) for one in self.of(name))
        return f" [{found}]" if found else ""

    def records(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """The modules that have open parts, for JSON, each with its owners and those parts."""
        found: dict[Module, list[str]] = {}
        for name in names:
            for one in self.of(name):
                found.setdefault(one, []).append(name)
        return [
            {"module": one.name, "owners": list(one.owners), "open": parts}
            for one, parts in found.items()
        ]

    def to_ask(self, names: Iterable[str]) -> list[str]:
        """A line on whom to ask about what is open; none where no module is declared."""
        if self.problem:
            return [f"modules are not known: {printable(self.problem)}"]
        found = Counter(one for name in names for one in self.of(name))
        if not found:
            return []
        asked = (f"{_owners(one)} ({one.name}: {count:,} open)" for one, count in found.items())
        return [f"to ask: {', '.join(asked)}"]


def described(module: Module) -> str:
    """`vision: @vision-team`."""
    return f"{module.name}: {_owners(module)}"


def _owners(module: Module) -> str:
    return " ".join(module.owners) or NOBODY


def plan_by_module(plan: Plan, owned: Owned, measured: Mapping[str, Measure]) -> list[str]:
    """For each module what becomes of the tensors that a side changed, in lines of a table.

    Args:
        plan: what is to be done.
        owned: whose the tensors are.
        measured: of tensors that are merged entry by entry, how the updates meet.
    """
    return ends_by_module(
        ((one.name, _end(one, measured.get(one.name))) for one in plan.decisions), owned
    )


def ends_by_module(ends: Iterable[tuple[str, str]], owned: Owned) -> list[str]:
    """For each module what becomes of its tensors, in lines of a table.

    Args:
        ends: names of tensors, each with one of `_ENDS`; "" where no side changed it.
        owned: whose the tensors are; without modules there is no line.
    """
    found: dict[Module | None, Counter[str]] = {}
    for name, end in ends if owned.modules else ():
        for module in (owned.of(name) or (None,)) if end else ():
            found.setdefault(module, Counter())[end] += 1
    rows = []
    for module in (*owned.modules, None):
        counts = found.get(module)
        if counts:
            said = ", ".join(_counted(counts[end], end) for end in _ENDS if counts[end])
            rows.append([*_head(module), said])
    return table(rows)


def _head(module: Module | None) -> list[str]:
    """Name and owners, as the first cells of a row."""
    if module is None:
        return ["in no module", ""]
    name = f"{module.name} (frozen)" if module.frozen else module.name
    return [f"module {name}", _owners(module)]


def _counted(count: int, end: str) -> str:
    return f"{count:,} from {end}" if end in _TAKEN else f"{count:,} {end}"


def _end(decision: Decision, measure: Measure | None) -> str:
    """What becomes of a tensor; "" where both sides agree, on the base or on something else."""
    if decision.action == "same" or decision.ours == decision.theirs == "kept":
        return ""
    if decision.action == "merge":
        collides = measure is not None and measure.collided > 0
        return "open" if collides and decision.choice == CONFLICT else "combined"
    if decision.action == "drop":
        gone = {"ours": decision.ours, "theirs": decision.theirs}
        by = [side for side, did in gone.items() if did == "removed"]
        return by[0] if len(by) == 1 else ""
    return "as in the base" if decision.action == "base" else decision.action
