"""The rows of the mergetool's table: what each side did, what is chosen, and how they fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from git_theta_ext.core.braces import fold
from git_theta_ext.core.text import printable
from git_theta_ext.merge.combine import skeleton
from git_theta_ext.merge.conflicts.distance import Weighed

_KEYS = ("↑↓ move", "a scope", "o ours", "t theirs", "v average", "b base", "s strategy",
         "u undo", "w accept", "q quit")  # fmt: skip
MANY = 12
"""Tensors beyond which those that changed alike are shown as one line, as `git theta diff` does."""


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor that both sides changed, or the structure: what each did, and what is chosen."""

    name: str
    ours: str
    theirs: str
    chosen: str
    weighed: Weighed

    @property
    def open(self) -> bool:
        """Whether it is still to be settled."""
        return bool(self.weighed.open)


@dataclass(slots=True)
class Line:
    """A line of the table: one row, or the rows that its name in braces stands for."""

    name: str
    rows: tuple[str, ...]
    folded: bool = True


def folded(rows: Sequence[Row]) -> list[Line]:
    """The rows as lines, in the order of the first row of each."""
    if len(rows) <= MANY:
        return [Line(row.name, (row.name,)) for row in rows]
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if row.name != skeleton.NAME:
            kind = (row.ours, row.theirs, row.chosen, str(row.open))
            alike.setdefault(kind, []).append(row.name)
    places = {row.name: number for number, row in enumerate(rows)}
    lines = [
        Line(name, tuple(sorted(found, key=places.__getitem__)))
        for names in alike.values()
        for name, found in fold(names)
    ]
    lines += [Line(row.name, (row.name,)) for row in rows if row.name == skeleton.NAME]
    return sorted(lines, key=lambda line: min(places[name] for name in line.rows))


def cells(name: str, rows: Sequence[Row]) -> list[str]:
    """What the table says of the rows of one line."""
    results = {_result(row) for row in rows}
    left = sum(row.open for row in rows)
    mixed = f"several, {left} open" if left else "several"
    result = results.pop() if len(results) == 1 else mixed
    gaps = [_gaps([getattr(row.weighed, side) for row in rows]) for side in ("ours", "theirs")]
    return [printable(name), rows[0].ours, rows[0].theirs, result, *gaps]


def _result(row: Row) -> str:
    if row.open:
        return f"{row.chosen}: open" if row.chosen else "open"
    return row.chosen or "by itself"


def _gaps(values: Sequence[float | None]) -> str:
    """A distance, or the least and the greatest of several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    low, high = f"{min(known):.3f}", f"{max(known):.3f}"
    return low if low == high else f"{low}-{high}"


def keys(width: int, *, folds: bool) -> list[str]:
    """What the keys do, in as many lines as it takes."""
    lines = [""]
    for key in (*_KEYS[:2], "f unfold", *_KEYS[2:]) if folds else _KEYS:
        longer = f"{lines[-1]}  {key}" if lines[-1] else key
        if lines[-1] and len(longer) >= width:
            lines.append(key)
        else:
            lines[-1] = longer
    return lines
