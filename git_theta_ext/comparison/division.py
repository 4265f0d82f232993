"""A comparison by modules: what changed of each part of a model, and what is nobody's part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from git_theta_ext.checkpoints.modules import Module, Modules
from git_theta_ext.comparison.compare import Change, Comparison
from git_theta_ext.comparison.measure import Measure


@dataclass(frozen=True, slots=True)
class Part:
    """One module in one checkpoint.

    Attributes:
        module: whose tensors these are.
        changes: those of its tensors, by their old names as by their new ones.
        moved: tensors that are as they were, in a file that was renamed into or out of the module.
        tensors: how many either version has of it, each once.
    """

    module: Module
    changes: tuple[Change, ...]
    moved: tuple[str, ...]
    tensors: int

    @property
    def changed(self) -> int:
        """How many of its tensors differ, came or went."""
        return len(self.changes) + len(self.moved)

    @property
    def names(self) -> list[str]:
        """The tensors that differ, came or went, as they are called now."""
        return [*(one.name for one in self.changes), *self.moved]

    @property
    def measure(self) -> Measure:
        """How far its tensors moved together, as far as their values were measured."""
        return sum((one.measure for one in self.changes if one.measure), Measure())

    @property
    def stored(self) -> int:
        """Bytes of objects that were not needed before."""
        return sum(one.stored for one in self.changes)


@dataclass(frozen=True, slots=True)
class Division:
    """A checkpoint that modules are about, by modules.

    Attributes:
        parts: the modules that either version has tensors of, in the order of the file.
        outside: tensors that the new version changed or added, and that belong to no module.
        several: such tensors that belong to more than one, and to which.
        left: tensors of either kind that are as they were.
    """

    parts: tuple[Part, ...]
    outside: tuple[str, ...] = ()
    several: tuple[tuple[str, tuple[Module, ...]], ...] = ()
    left: tuple[str, ...] = ()


Divisions = Mapping[str, Division]
"""Checkpoints by modules, by their paths."""


def divisions(found: Iterable[tuple[str, Comparison]], modules: Modules) -> dict[str, Division]:
    """Those checkpoints that modules are about, by modules; see `divided`."""
    pairs = ((path, divided(one, modules, path)) for path, one in found) if modules else ()
    return {path: division for path, division in pairs if division is not None}


def divided(found: Comparison, modules: Modules, path: str) -> Division | None:
    """What differs in a checkpoint, by modules; None where they are not about it.

    They are about it where one of them has a tensor in either version, or names its path. (Where
    they name no paths, an adapter or the state of an optimizer is no part of them by that alone.)
    Opaque bytes are no tensors, and no module's.

    Args:
        found: what differs.
        modules: those that count.
        path: of the new version, from the top; of a sharded model its pattern.

    Raises:
        UsageError: the tensors' names need more work than is allowed.
    """
    belongs = _Belonging(modules, found.renamed_from or path, path)
    changes: dict[str, list[Change]] = defaultdict(list)
    moved: dict[str, list[str]] = defaultdict(list)
    tensors: Counter[str] = Counter()
    outside, several, left = [], [], []
    for change in found.changes:
        if change.name in found.opaque:
            continue
        for module in belongs.of_change(change):
            tensors[module.name] += 1
            changes[module.name].append(change)
        if change.new is not None:
            now = modules.of(path, change.name)
            if not now:
                outside.append(change.name)
            elif len(now) > 1:
                several.append((change.name, now))
    for name in found.unchanged:
        if name in found.opaque:
            continue
        before, now = belongs.of(name)
        held = {one.name for one in before}, {one.name for one in now}
        tensors.update(held[0] | held[1])
        for module_name in held[0] ^ held[1]:
            moved[module_name].append(name)
        if len(now) != 1:
            left.append(name)
    if not tensors and not any(one.paths and one.is_in(path) for one in modules):
        return None
    parts = tuple(
        Part(one, tuple(changes[one.name]), tuple(moved[one.name]), tensors[one.name])
        for one in modules
        if tensors[one.name]
    )
    return Division(parts, tuple(outside), tuple(several), tuple(left))


@dataclass(frozen=True, slots=True)
class _Belonging:
    """Which modules have a tensor, by the paths of the old version and of the new one."""

    modules: Modules
    old_path: str
    path: str

    def of(self, name: str) -> tuple[tuple[Module, ...], tuple[Module, ...]]:
        now = self.modules.of(self.path, name)
        return (now if self.old_path == self.path else self.modules.of(self.old_path, name)), now

    def of_change(self, change: Change) -> Iterator[Module]:
        """Those that have it under its old name, then those that only have it under its new one."""
        before = () if change.old is None else self.modules.of(self.old_path, change.old.name)
        yield from before
        if change.new is not None:
            yield from (
                one for one in self.modules.of(self.path, change.new.name) if one not in before
            )
