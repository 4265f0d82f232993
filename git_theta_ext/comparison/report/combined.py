"""A merge by tensor as text and as records."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from git_theta_ext.comparison.combined import Combined, Fate
from git_theta_ext.comparison.report.text import described
from git_theta_ext.core.braces import fold
from git_theta_ext.core.text import plural, printable, table


def side_names(count: int) -> list[str]:
    """What the parents of a merge are called: `ours` and `theirs`; of more, by their numbers."""
    return ["ours", "theirs"] if count == 2 else [f"parent {at + 1}" for at in range(count)]


def lines(one: Combined, sides: Sequence[str]) -> list[str]:
    """A checkpoint in a merge; tensors that fared alike are on one line.

    Args:
        one: the checkpoint.
        sides: what the parents are called.
    """
    path = printable(one.path)
    if one.whole:
        return [f"{path}  the file is {_likeness(one.whole, sides)}"]
    if one.unread:
        return [f"{path}  cannot be compared: a version is {one.unread}"]
    own = sum(not fate.like for fate in one.fates if fate.tensor is not None)
    about = sum(fate.tensor is not None for fate in one.fates)
    head = f"{path}  {about:,} of {plural(one.tensors, 'tensor')} not alike in all sides"
    rows = [
        ["", f"  {_likeness(members[0].like, sides)}", name, *_facts(members)]
        for name, members in _groups(one.fates)
    ]
    return [f"{head}, {own:,} of the merge's own", *(line.rstrip() for line in table(rows))]


def record(one: Combined, sides: Sequence[str]) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "file": one.path,
        "as": [sides[at] for at in one.whole],
        "compared": not one.unread,
        "tensors": [
            {
                "name": fate.name,
                "as": [sides[at] for at in fate.like],
                "removed": fate.gone,
                "update": fate.kind,
                "remarks": dict(fate.remarks),
            }
            for fate in one.fates
            if fate.tensor is not None
        ],
    }


def _likeness(like: tuple[int, ...], sides: Sequence[str]) -> str:
    return f"as in {', '.join(sides[at] for at in like)}" if like else "of its own"


def _groups(fates: Sequence[Fate]) -> list[tuple[str, list[Fate]]]:
    """Fates that are alike under names with braces; the structure comes last, by itself."""
    alike: dict[Hashable, dict[str, Fate]] = {}
    for fate in fates:
        alike.setdefault(_key(fate), {})[fate.name] = fate
    found = []
    for members in alike.values():
        if next(iter(members.values())).tensor is None:
            found += [(name, [fate]) for name, fate in members.items()]
        else:
            found += [(name, [members[each] for each in names]) for name, names in fold(members)]
    return [(printable(name), members) for name, members in found]


def _key(fate: Fate) -> Hashable:
    tensor = fate.tensor
    kind = None if tensor is None else described(tensor)
    return kind, fate.like, fate.gone, fate.kind, fate.remarks


def _facts(members: Sequence[Fate]) -> list[str]:
    first = members[0]
    if first.tensor is None:
        return ["", ""]
    times = f"{len(members):,} × " if len(members) > 1 else ""
    how = [] if first.kind is None else [first.kind, *(f"{k}={v}" for k, v in first.remarks)]
    return [times + described(first.tensor), "removed" if first.gone else printable(" ".join(how))]
