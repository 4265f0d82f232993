"""The plan of a merge as data: for every tensor what each side did and what will be done.

Planning reads manifests only, and the configuration of an adapter whose factors both sides changed.
A tensor that one side changed is taken from it, and none of its values is ever read; what both
changed is merged entry by entry, and where entries collide by the strategy that was chosen, or left
open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import DType, TensorInfo
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.merge.decide.decisions import (
    PLAIN,
    TIE_BYTES,
    VERSIONS,
    Action,
    Choose,
    Decision,
    Did,
    Plan,
    Side,
    content_of,
    entries_of,
    renamed,
    type_of,
)
from git_theta_ext.merge.decide.groups import Group, find_groups, joined_groups
from git_theta_ext.merge.decide.kinds import NEVER_BLENDED, WHOLE, Kind, kind_of
from git_theta_ext.merge.decide.renames import follow, lost_renames, split_renames
from git_theta_ext.merge.decide.scaling import Scalings
from git_theta_ext.merge.decide.together import settle_groups
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice

__all__ = [
    "PLAIN", "Choose", "Decision", "Did", "Plan", "content_of", "entries_of", "make_plan", "type_of"
]  # fmt: skip


def make_plan(
    base: Manifest | None,
    ours: Manifest,
    theirs: Manifest,
    choose: Choose = lambda _: CONFLICT,
    groups: tuple[Group, ...] | None = None,
    *,
    scalings: Scalings | None = None,
) -> Plan:
    """Decide for every tensor of three versions of a checkpoint.

    Args:
        base: the version that both come from; None where both added the file.
        ours, theirs: the two sides.
        choose: gives the strategy for entries that collide.
        groups: the coupled groups, where more sides than these two are merged; no renames are
            followed then.
        scalings: what the configuration beside an adapter says; None: there is none.
    """
    followed: dict[Side, Mapping[str, str]] = {}
    split: Mapping[str, tuple[str, ...]] = {}
    if groups is None:
        found = follow(base, (ours, theirs))
        base, (ours, theirs), split = found.base, found.sides, found.split
        followed = {side: names for side, names in zip(VERSIONS, found.names, strict=True) if names}
    old, mine, yours = entries_of(base), entries_of(ours), entries_of(theirs)
    names = sorted({*old, *yours, *mine}, key=natural_key)
    decisions = {
        name: _decide(old.get(name), mine.get(name), yours.get(name), choose) for name in names
    }
    if groups is None:
        moved = (*lost_renames(old, mine, yours), *split_renames(split))
        groups = joined_groups(find_groups(base, (ours, theirs)), moved)
    else:
        # Groups of more sides than these have members that these may lack.
        groups = tuple(_those(group, decisions) for group in groups
                       if not decisions.keys().isdisjoint(group.members))  # fmt: skip
    _check_ties(decisions, old, mine, yours)
    _check_copies(decisions, old, mine, (yours, "theirs"), choose)
    _check_copies(decisions, old, yours, (mine, "ours"), choose)
    versions = (base, ours, theirs)
    settled = settle_groups(decisions, groups, versions, choose, scalings or Scalings())
    made = tuple(decisions.values())
    return Plan(*versions, made, groups, followed, settled.side, settled.label, settled.blends)


def _those(group: Group, known: Mapping[str, Decision]) -> Group:
    return replace(group, members=tuple(name for name in group.members if name in known))


def _did(old: Entry | None, now: Entry | None) -> Did:
    if old is None:
        return "-" if now is None else "added"
    if now is None:
        return "removed"
    if type_of(now) != type_of(old):
        return "retyped"
    return "kept" if content_of(now) == content_of(old) else "changed"


def _decide(old: Entry | None, mine: Entry | None, yours: Entry | None, choose: Choose) -> Decision:
    """What would be done with a tensor if it stood alone."""
    present = mine or yours or old
    if present is None:
        raise ValueError("a tensor that no version has")
    name, kind = present.tensor.name, kind_of(present)
    did = _did(old, mine), _did(old, yours)
    made = Decision(name, kind, *did, "open", mine.tensor if mine else None, seed_name=name)
    if mine is None and yours is None:
        return replace(made, action="drop")
    if mine is not None and yours is not None and content_of(mine) == content_of(yours):
        return replace(made, action="same")
    if did[1] in ("-", "kept"):
        return replace(made, action="ours" if mine else "drop")
    if did[0] in ("-", "kept"):
        return replace(
            made,
            action="theirs" if yours else "drop",
            standing=yours.tensor if yours else None,
        )
    choice = choose(name)
    if mine is None or yours is None:
        return _removed(made, mine, yours, choice)
    return _both_changed(made, old, mine, yours, choice)


def _removed(made: Decision, mine: Entry | None, yours: Entry | None, choice: Choice) -> Decision:
    """Removed on one side, changed on the other: only a whole side can be taken."""
    if choice.strategy == "ours":
        return replace(made, action="ours" if mine else "drop", choice=choice)
    if choice.strategy == "theirs":
        tensor = yours.tensor if yours else None
        return replace(made, action="theirs" if yours else "drop", standing=tensor, choice=choice)
    gone, there = ("ours", "theirs") if mine is None else ("theirs", "ours")
    return replace(made, reason=f"{gone} removed it, {there} changed it")


def _both_changed(
    made: Decision, old: Entry | None, mine: Entry, yours: Entry, choice: Choice
) -> Decision:
    """The decision for a tensor that both sides changed; open if nothing can merge it."""
    stacked = _stacked(old, mine, yours) if choice.strategy == "stack" else None
    if stacked is not None and made.kind == "weights":
        return replace(made, action="merge", standing=stacked, choice=choice)
    target = _common_type(old, mine, yours)
    if made.kind == "counter" and target is not None:
        return replace(made, action="merge", standing=target, choice=Choice("larger"))
    whole = target is None or made.kind in WHOLE or _both_grew(old, mine, yours)
    if whole and choice.strategy in ("ours", "theirs", "base"):
        entry = {"ours": mine, "theirs": yours, "base": old}[choice.strategy]
        action: Action = "ours" if entry is mine else "theirs" if entry is yours else "base"
        if entry is not None:
            return replace(made, action=action, standing=entry.tensor, choice=choice)
    if target is None:
        return replace(made, reason=_unlike(mine, yours))
    if made.kind in WHOLE and choice.strategy != "zero":
        return replace(made, reason=_OPAQUE)
    return replace(made, action="merge", standing=target, choice=_fit(made.kind, choice))


def _both_grew(old: Entry | None, mine: Entry, yours: Entry) -> bool:
    shapes = [one.tensor.shape for one in (mine, yours)]
    return old is not None and all(shape != old.tensor.shape for shape in shapes)


def _stacked(old: Entry | None, mine: Entry, yours: Entry) -> TensorInfo | None:
    """The type that holds the old rows, then those that ours added, then those that theirs did."""
    target = _common_type(old, mine, yours) if _both_grew(old, mine, yours) else None
    if target is None or old is None:
        return None
    added = yours.tensor.shape[0] - old.tensor.shape[0]
    return replace(target, shape=(mine.tensor.shape[0] + added, *target.shape[1:]))


_SHOWN = 3
_OPAQUE = "bytes of unknown meaning, changed on both sides"


def _fit(kind: Kind, choice: Choice) -> Choice:
    """The strategy that a kind of tensor allows in place of the one chosen."""
    if choice.strategy in PLAIN or choice == CONFLICT:
        return choice
    if kind in NEVER_BLENDED:
        return CONFLICT
    return Choice("average") if kind == "batchnorm" else choice


def _common_type(old: Entry | None, mine: Entry, yours: Entry) -> TensorInfo | None:
    """The type in which all versions can be compared: a cast, or rows added at the end."""
    a, b = mine.tensor, yours.tensor
    if mine.opaque or yours.opaque or a.order != b.order:
        return None
    if type_of(mine) == type_of(yours) and (old is None or type_of(old) == type_of(mine)):
        return a
    if old is None or old.opaque or old.tensor.order != a.order:
        return None
    dtype = _changed(old.tensor.dtype, a.dtype, b.dtype)
    rows = _rows(old.tensor, a, b)
    if dtype is None or rows is None:
        return None
    if dtype != old.tensor.dtype and not dtype.kind == old.tensor.dtype.kind == "float":
        return None
    return TensorInfo(a.name, dtype, (rows, *a.shape[1:]) if a.shape else (), a.order)


def _changed(old: DType, mine: DType, yours: DType) -> DType | None:
    """The dtype that a three-way merge gives, or None if both changed it differently."""
    if yours in (mine, old):
        return mine
    return yours if mine == old else None


def _rows(old: TensorInfo, a: TensorInfo, b: TensorInfo) -> int | None:
    """How many rows the result has, or None if the shapes differ in more than added rows."""
    if old.shape == a.shape == b.shape:
        return old.shape[0] if old.shape else 0
    shapes = (old.shape, a.shape, b.shape)
    if old.order is not None or len({shape[1:] for shape in shapes}) > 1 or not all(shapes):
        return None
    if a.dtype.bits % 8 or b.dtype.bits % 8:
        return None  # a row of packed elements may end inside a byte
    grown = a.shape[0] >= old.shape[0] and b.shape[0] >= old.shape[0]
    if not grown:
        return None
    # Where both added rows, ours stand; theirs beyond them are reported as a collision.
    return a.shape[0] if a.shape[0] > old.shape[0] else b.shape[0]


def _unlike(mine: Entry, yours: Entry) -> str:
    a, b = mine.tensor, yours.tensor
    if mine.opaque and yours.opaque:
        return _OPAQUE
    return (
        f"ours is {a.dtype.name} {list(a.shape)}, theirs is {b.dtype.name} {list(b.shape)}"
        if (a.dtype, a.shape) != (b.dtype, b.shape)
        else "the order of the axes in memory differs"
    )


def _check_ties(
    decisions: dict[str, Decision],
    old: Mapping[str, Entry],
    mine: Mapping[str, Entry],
    yours: Mapping[str, Entry],
) -> None:
    """Tensors that are equal in the base are tied: they stay equal, or it is a conflict."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, entry in old.items():
        if entry.tensor.nbytes >= TIE_BYTES and not entry.opaque:
            groups.setdefault(content_of(entry), []).append(name)
    for names in groups.values():
        if len(names) < 2:
            continue
        first = min(names, key=natural_key)
        tied = [len({_content(side.get(name)) for name in names}) == 1 for side in (mine, yours)]
        left = {"ours": mine.keys() & names, "theirs": yours.keys() & names}
        for name in names:
            one = decisions[name]
            if all(tied):
                decisions[name] = replace(one, seed_name=first)
            elif any(tied) and one.action == "merge" and one.choice.strategy not in PLAIN:
                there, here = ("ours", "theirs") if tied[0] else ("theirs", "ours")
                others = _others(names, name)
                what = f"which {here} removed" if left[here] <= {name} else f"untied in {here}"
                reason = f"tied to {others} in {there}, {what}"
                tensor = mine[name].tensor if name in mine else None
                decisions[name] = replace(one, action="open", standing=tensor, reason=reason)


def _others(names: Sequence[str], name: str) -> str:
    """Some of the tensors that one is tied to, and how many more there are."""
    shown = [other for other in names[: _SHOWN + 1] if other != name][:_SHOWN]
    more = len(names) - 1 - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _content(entry: Entry | None) -> tuple[object, ...] | None:
    return None if entry is None else content_of(entry)


def _check_copies(
    decisions: dict[str, Decision],
    old: Mapping[str, Entry],
    side: Mapping[str, Entry],
    other: tuple[Mapping[str, Entry], Literal["ours", "theirs"]],
    choose: Choose,
) -> None:
    """A tensor added as a copy of one that the other side changed is open: which values is it?

    The side that added it is taken as it is; of the other one, it gets the values that it copies.
    """
    entries, label = other
    added = [name for name in side if name not in old and name not in entries]
    copied = {}
    for name, entry in old.items() if added else ():
        now = entries.get(name)
        moved = now is not None and content_of(now) != content_of(entry)
        if moved and entry.tensor.nbytes >= TIE_BYTES:
            copied[content_of(entry)] = name
    for name in added:
        source = copied.get(content_of(side[name]))
        if source is None:
            continue
        choice = choose(name)
        if choice.strategy == label:
            standing = renamed(entries[source], name).tensor
            decisions[name] = replace(
                decisions[name], action=label, standing=standing, choice=choice, source=source
            )
        elif choice.strategy not in PLAIN:
            reason = f"a copy of {source}, which {label} changed"
            decisions[name] = replace(decisions[name], action="open", reason=reason)
