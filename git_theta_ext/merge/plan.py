"""The plan of a merge as data: for every tensor what each side did and what will be done.

Planning reads manifests only. A tensor that one side changed is taken from it, and none of its
values is ever read; what both changed is merged entry by entry, and where entries collide by the
strategy that was chosen, or left open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from git_theta_ext.manifest import Entry, Manifest
from git_theta_ext.merge.choice import CONFLICT, Choice
from git_theta_ext.merge.kinds import NEVER_BLENDED, WHOLE, Kind, kind_of, quantised_group
from git_theta_ext.names import natural_key
from git_theta_ext.tensors import DType, TensorInfo

Did = Literal["-", "kept", "changed", "retyped", "added", "removed"]
"""What a side did to a tensor; `-`: it never had it."""

Action = Literal["same", "ours", "theirs", "base", "drop", "merge", "open"]
"""What is done: nothing (the sides agree), a side or the base is taken, the tensor goes, its
entries are merged, or it is left open."""

PLAIN = frozenset({"ours", "theirs", "base", "zero"})
"""Strategies that compute nothing, and so may be used on anything."""

_TIE_BYTES = 1024
"""Smaller tensors with equal bytes (zero biases) are a coincidence, not a tie."""

Choose = Callable[[str], Choice]
"""The strategy for a tensor, by its name."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One tensor: what each side did, what is done, with which strategy where entries collide.

    `standing` is the type that the tensor has in the result: None if it is not in it. `reason`
    says why a tensor is open. `seed_name` is the name that random strategies are seeded by: the
    first one of tied tensors, so that they stay equal.
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


@dataclass(frozen=True, slots=True)
class Plan:
    """All decisions, in natural order of the tensors' names."""

    base: Manifest | None
    ours: Manifest
    theirs: Manifest
    decisions: tuple[Decision, ...]

    def lines(self) -> Iterator[str]:
        """The plan for a terminal: a line for each tensor that a side changed."""
        from git_theta_ext.merge.explain import plan_lines

        return plan_lines(self)


def entries_of(manifest: Manifest | None) -> dict[str, Entry]:
    """The tensors of a manifest by name; none without a manifest."""
    return {} if manifest is None else {entry.tensor.name: entry for entry in manifest.entries}


def make_plan(
    base: Manifest | None, ours: Manifest, theirs: Manifest, choose: Choose = lambda _: CONFLICT
) -> Plan:
    """Decide for every tensor of three versions of a checkpoint.

    Args:
        base: the version that both come from; None where both added the file.
        ours, theirs: the two sides.
        choose: gives the strategy for entries that collide.
    """
    old, mine, yours = entries_of(base), entries_of(ours), entries_of(theirs)
    types = {
        name: entry.tensor.dtype for side in (old, yours, mine) for name, entry in side.items()
    }
    decisions = {}
    for name in sorted(types, key=natural_key):
        present = mine.get(name) or yours.get(name) or old[name]
        decisions[name] = _decide(
            present, kind_of(present, types), old.get(name), mine.get(name), yours.get(name), choose
        )
    _check_groups(decisions, types, (mine, yours), choose)
    _check_ties(decisions, old, mine, yours)
    for side, other, label in ((mine, yours, "theirs"), (yours, mine, "ours")):
        _check_copies(decisions, old, side, (other, label), choose)
    return Plan(base, ours, theirs, tuple(decisions.values()))


def type_of(entry: Entry | None) -> tuple[object, ...] | None:
    """What must be equal for two versions of a tensor to be compared entry by entry."""
    if entry is None:
        return None
    tensor = entry.tensor
    return tensor.dtype.name, tensor.shape, tensor.order, entry.opaque


def content_of(entry: Entry) -> tuple[object, ...]:
    """What is equal exactly if two versions of a tensor are."""
    return (type_of(entry), *(block.sha256 for block in entry.blocks))


def _did(old: Entry | None, now: Entry | None) -> Did:
    if old is None:
        return "-" if now is None else "added"
    if now is None:
        return "removed"
    if type_of(now) != type_of(old):
        return "retyped"
    return "kept" if content_of(now) == content_of(old) else "changed"


def _decide(  # noqa: PLR0917
    present: Entry,
    kind: Kind,
    old: Entry | None,
    mine: Entry | None,
    yours: Entry | None,
    choose: Choose,
) -> Decision:
    name = present.tensor.name
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
        return replace(made, reason=_TOGETHER[made.kind])
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


_TOGETHER = {
    "optimizer": "optimizer state is never blended: take ours, or reset it (zero)",
    "quantised": "quantised codes and scales belong together: take a side",
    "opaque": "bytes of unknown meaning, changed on both sides",
}


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
    return (
        f"ours is {a.dtype.name} {list(a.shape)}, theirs is {b.dtype.name} {list(b.shape)}"
        if (a.dtype, a.shape) != (b.dtype, b.shape)
        else "the order of the axes in memory differs"
    )


def _check_groups(
    decisions: dict[str, Decision],
    types: Mapping[str, DType],
    sides: tuple[Mapping[str, Entry], Mapping[str, Entry]],
    choose: Choose,
) -> None:
    """Codes of one side with scales of the other are neither's weights: such groups stay open."""
    groups: dict[str, list[Decision]] = {}
    for decision in decisions.values():
        if decision.kind == "quantised":
            group = quantised_group(decision.name, types)
            groups.setdefault(group or decision.name, []).append(decision)
    for group, members in groups.items():
        moved = [one for one in members if one.action not in ("same", "drop")]
        if len({side for one in moved for side in _moved_by(one)}) < 2:
            continue
        for one in moved:
            strategy = choose(one.name).strategy
            if strategy in ("ours", "theirs"):
                entry = sides[strategy == "theirs"].get(one.name)
                action: Action = "ours" if strategy == "ours" else "theirs"
                decisions[one.name] = replace(
                    one,
                    action=action if entry else "drop",
                    standing=entry.tensor if entry else None,
                    choice=Choice(strategy),
                    reason="",
                )
            elif strategy not in PLAIN:
                reason = f"both sides changed the quantised {group}: take one side for all of it"
                decisions[one.name] = replace(one, action="open", reason=reason)


def _moved_by(decision: Decision) -> list[str]:
    still = ("-", "kept")
    sides = (("ours", decision.ours), ("theirs", decision.theirs))
    return [side for side, did in sides if did not in still]


def _check_ties(
    decisions: dict[str, Decision],
    old: Mapping[str, Entry],
    mine: Mapping[str, Entry],
    yours: Mapping[str, Entry],
) -> None:
    """Tensors that are equal in the base are tied: they stay equal, or it is a conflict."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, entry in old.items():
        if entry.tensor.nbytes >= _TIE_BYTES and not entry.opaque:
            groups.setdefault(content_of(entry), []).append(name)
    for names in groups.values():
        if len(names) < 2:
            continue
        tied = [len({_content(side.get(name)) for name in names}) == 1 for side in (mine, yours)]
        for name in names:
            one = decisions[name]
            if all(tied):
                decisions[name] = replace(one, seed_name=min(names, key=natural_key))
            elif any(tied) and one.action == "merge" and one.choice.strategy not in PLAIN:
                there, here = ("ours", "theirs") if tied[0] else ("theirs", "ours")
                others = ", ".join(other for other in names if other != name)
                reason = f"tied to {others} in {there}, untied in {here}"
                tensor = mine[name].tensor if name in mine else None
                decisions[name] = replace(one, action="open", standing=tensor, reason=reason)


def _content(entry: Entry | None) -> tuple[object, ...] | None:
    return None if entry is None else content_of(entry)


def _check_copies(
    decisions: dict[str, Decision],
    old: Mapping[str, Entry],
    side: Mapping[str, Entry],
    other: tuple[Mapping[str, Entry], str],
    choose: Choose,
) -> None:
    """A tensor added as a copy of one that the other side changed is open: which values is it?"""
    entries, label = other
    added = [name for name in side if name not in old and name not in entries]
    copied = {}
    for name, entry in old.items() if added else ():
        now = entries.get(name)
        moved = now is not None and content_of(now) != content_of(entry)
        if moved and entry.tensor.nbytes >= _TIE_BYTES:
            copied[content_of(entry)] = name
    for name in added:
        source = copied.get(content_of(side[name]))
        if source is not None and choose(name).strategy not in PLAIN:
            reason = f"a copy of {source}, which {label} changed"
            decisions[name] = replace(decisions[name], action="open", reason=reason)
