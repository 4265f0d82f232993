"""What a merge of three or more versions does with each tensor, before any value is read.

Each two of the sides are planned as in an ordinary merge, so that everything that keeps two sides
apart (types, ties, quantised groups, optimizer state) keeps them apart here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.merge.decide.decisions import (
    Choose,
    Decision,
    Did,
    content_of,
    entries_of,
    renamed,
    type_of,
)
from git_theta_ext.merge.decide.groups import Group, find_groups, joined_groups
from git_theta_ext.merge.decide.plan import make_plan
from git_theta_ext.merge.decide.renames import Names, follow, lost_renames, split_renames
from git_theta_ext.merge.decide.together import named_sides, reason_of, state_of
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice

_STILL = ("-", "kept")


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor: what each side did, and what is done.

    `entry` is what is taken as it is; `movers` are the sides, by number, whose versions are merged
    by `decision.choice`; neither, where the tensor goes or is open (`decision.reason`). `stands`
    is the side whose skeleton must stand because a coupled group has a part in it; -1: the base's.
    """

    decision: Decision
    did: tuple[Did, ...]
    old: Entry | None = None
    entry: Entry | None = None
    movers: tuple[int, ...] = ()
    stands: int | None = None


def check_weights(choice: Choice, count: int) -> None:
    """Check that weights are given for every side, or for none.

    Raises:
        UsageError: they are not.
    """
    given = dict(choice.settings).get("weights")
    if given is not None and (not isinstance(given, tuple) or len(given) != count):
        raise UsageError(
            f"{choice.strategy}: weights are needed for all {count} sides, HEAD's first"
        )


@dataclass(frozen=True, slots=True)
class SeveralPlan:
    """A row for every tensor, in natural order of the names, and the versions that they are of.

    In `base` and `sides` a tensor that one of them renamed has its new name; `names` says for the
    base, then for each side, under which name it stands there, by the new one.
    """

    base: Manifest | None
    sides: tuple[Manifest, ...]
    names: tuple[Names, ...]
    rows: tuple[Row, ...]

    @property
    def stands(self) -> int | None:
        """The side whose skeleton must stand, -1 for the base's; None if any may."""
        return next((row.stands for row in self.rows if row.stands is not None), None)

    @property
    def coupled(self) -> str:
        """What the group is called whose skeleton must stand; empty if any may."""
        found = (row.decision for row in self.rows if row.stands is not None)
        return next((one.leader or one.name for one in found), "")


Tables = Sequence[Mapping[str, Entry]]
"""The tensors of each side, by name."""


def plan_several(base: Manifest | None, sides: Sequence[Manifest], choose: Choose) -> SeveralPlan:
    """Decide for every tensor of several versions of a checkpoint; reads no values.

    Args:
        base: what all sides come from; None where they added the file.
        sides: in the order that `ours` (the first one that changed) and `theirs` (the last) mean.
        choose: gives the strategy for entries that collide.
    """
    found = follow(base, sides)
    base, sides = found.base, found.sides
    old = entries_of(base)
    tables = [entries_of(side) for side in sides]
    groups = joined_groups(
        find_groups(base, sides), (*_lost(old, tables), *split_renames(found.split))
    )
    pairs = {
        (a, b): {
            one.name: one for one in make_plan(base, sides[a], sides[b], choose, groups).decisions
        }
        for a, b in combinations(range(len(sides)), 2)
    }
    names = sorted({*old, *(name for table in tables for name in table)}, key=natural_key)
    rows = {
        name: _row(name, old.get(name), [one.get(name) for one in tables], pairs) for name in names
    }
    for name, row in rows.items():
        if row.entry is not None and row.decision.source:
            rows[name] = _copied(row, rows[row.decision.source], tables)
    for group in groups:
        rows.update(_together(group, rows, (base, *sides), (old, *tables), choose))
    return SeveralPlan(base, tuple(sides), found.names, tuple(rows.values()))


def _lost(old: Mapping[str, Entry], tables: Tables) -> Iterator[Group]:
    """What a side may have renamed that another one changed, for each two of them."""
    for (a, one), (b, other) in combinations(enumerate(tables), 2):
        yield from lost_renames(old, one, other, (f"side {a + 1}", f"side {b + 1}"))


def _together(
    group: Group,
    rows: Mapping[str, Row],
    versions: Sequence[Manifest | None],
    tables: Tables,
    choose: Choose,
) -> dict[str, Row]:
    """The rows of a group that several sides changed: all from one side, or all open.

    Args:
        group: coupled tensors.
        rows: of every tensor, decided as if it stood alone.
        versions: the base and the sides, as manifests.
        tables: and as their tensors.
        choose: gives the strategy for each tensor.
    """
    before, *states = (
        state_of(group, version, table) for version, table in zip(versions, tables, strict=True)
    )
    based = versions[0] is not None
    movers = [n for n, one in enumerate(states) if not based or one != before]
    if len({states[n] for n in movers}) < 2:
        return {}
    named = named_sides(choose(name) for name in group.members)
    made: dict[str, Row] = {}
    for name in group.members:
        row = rows[name]
        if len(named) == 1 and (named[0] != "base" or based):
            number = {"ours": movers[0], "theirs": movers[-1], "base": -1}[named[0]]
            same = replace(row.decision, action="same", choice=CONFLICT, reason="")
            stands = number if group.holds else None
            entry = tables[number + 1].get(name)
            made[name] = Row(same, row.did, row.old, entry, (), stands)
        elif group.kind != "renamed" or row.old is not None or row.decision.action == "open":
            reason = reason_of(group, len(named) > 1) if name == group.leader else ""
            reason = reason.replace("both sides changed", "several sides changed")
            left = replace(row.decision, action="open", reason=reason, leader=group.leader)
            made[name] = Row(left, row.did, row.old)
    return made


def _row(
    name: str,
    old: Entry | None,
    now: Sequence[Entry | None],
    pairs: Mapping[tuple[int, int], Mapping[str, Decision]],
) -> Row:
    """The decision for one tensor from those for every two sides; open if any of them is."""
    found = {pair: plan[name] for pair, plan in pairs.items() if name in plan}
    did = _deeds(len(now), found)
    movers = tuple(number for number, one in enumerate(did) if one not in _STILL)
    first = next(iter(found.values()))
    contents = {None if (one := now[n]) is None else content_of(one) for n in movers}
    copy = next((one for one in found.values() if one.source), None)
    choice, source = (CONFLICT, "") if copy is None else (copy.choice, copy.source)
    made = replace(first, action="same", choice=choice, reason="", source=source)
    for pair, two in found.items():
        if two.action == "open":
            labels = {"ours": f"side {pair[0] + 1}", "theirs": f"side {pair[1] + 1}"}
            reason = " ".join(labels.get(word, word) for word in two.reason.split(" "))
            return Row(replace(made, action="open", choice=CONFLICT, reason=reason), did, old)
    if not movers:
        return Row(made, did, old, old)
    if len(contents) == 1:
        return Row(made, did, old, now[movers[0]])
    moved = [(pair, one) for pair, one in found.items() if set(pair) <= set(movers)]
    merged = next((one for _, one in moved if one.action == "merge"), None)
    if merged is None:
        return Row(made, did, old, _whole(old, now, movers, moved))
    made = replace(made, action="merge", choice=merged.choice, seed_name=merged.seed_name)
    types = {type_of(one) for n in movers if (one := now[n]) is not None}
    if old is not None:
        types.add(type_of(old))
    if len(types) > 1 or any(now[n] is None for n in movers):
        reason = "type or shape differ; merge such branches one at a time"
        return Row(replace(made, action="open", reason=reason), did, old)
    return Row(made, did, old, None, movers)


def _copied(row: Row, source: Row, tables: Tables) -> Row:
    """A copy that a side added of what others changed, as the chosen one of these has that."""
    movers = [n for n, did in enumerate(source.did) if did == "changed"]
    chosen = movers[0 if row.decision.choice.strategy == "ours" else -1]
    entry = tables[chosen][source.decision.name]
    return replace(row, entry=renamed(entry, row.decision.name))


def _deeds(count: int, found: Mapping[tuple[int, int], Decision]) -> tuple[Did, ...]:
    did: list[Did] = ["-"] * count
    for (a, b), one in found.items():
        did[a], did[b] = one.ours, one.theirs
    return tuple(did)


def _whole(
    old: Entry | None,
    now: Sequence[Entry | None],
    movers: Sequence[int],
    moved: Sequence[tuple[tuple[int, int], Decision]],
) -> Entry | None:
    """The version that stands where only whole ones can: the first, the last, or the old one."""
    named = named_sides(one.choice for _, one in moved)
    if named == ["base"]:
        return old
    return now[movers[-1] if named == ["theirs"] else movers[0]]
