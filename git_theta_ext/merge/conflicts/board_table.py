"""The mergetool's table as lines of text: columns that fit the terminal, names told apart."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from git_theta_ext.core.text import printable
from git_theta_ext.merge.conflicts.elide import elided

HEAD = ("tensor", "ours", "theirs", "result", "to ours", "to theirs")
_NAME = 28
"""Characters that a name gets, if it has as many, before columns that can be done without."""

_LEAST_RESULT = 12
_SPARED = ((4, 5), (1, 2))
"""Columns that are left out in a narrow terminal, in this order; they are told of one row below."""

Cells = Sequence[str]


def columns(rows: Sequence[Cells], width: int) -> list[int]:
    """The numbers of the columns that there is room for."""
    kept = list(range(len(HEAD)))
    for spared in _SPARED:
        if _room(rows, kept, width) >= min(_NAME, _longest(rows, 0)):
            break
        kept = [column for column in kept if column not in spared]
    return kept


def body(rows: Sequence[Cells], kept: Sequence[int], width: int) -> list[str]:
    """The head of the table and a line for each row, by the columns that are kept."""
    room = max(6, min(_longest(rows, 0), _room(rows, kept, width)))
    names = elided([row[0] for row in rows], room)
    limit = max(_LEAST_RESULT, width // 3)
    cells = [list(HEAD)]
    for name, row in zip(names, rows, strict=True):
        cells.append([name, row[1], row[2], _ended(row[3], limit), *row[4:]])
    widths = [max(len(row[column]) for row in cells) for column in kept]
    return [
        "  ".join(
            row[column].ljust(wide) for column, wide in zip(kept, widths, strict=True)
        ).rstrip()
        for row in cells
    ]


def below(row: Cells, kept: Sequence[int], width: int, shown: str) -> list[str]:
    """What the table could not show of one row: its whole name, the columns that were left out.

    Args:
        row: the cells, whole.
        kept: the numbers of the columns that the table has.
        width: of the terminal, in characters.
        shown: the line of the table for this row.
    """
    lines = [] if row[0] in shown else wrapped(row[0], width, 3)
    missing = [
        f"{HEAD[column]}: {row[column]}"
        for column in range(1, len(HEAD))
        if column not in kept or (column == 3 and row[3] not in shown)
    ]
    return lines + (wrapped(", ".join(missing), width, 2) if missing else [])


def wrapped(text: str, width: int, most: int) -> list[str]:
    """A text in at most so many lines of a width; what does not fit is marked by `…`."""
    lines = textwrap.wrap(printable(text), max(1, width - 1)) or [""]
    if len(lines) > most:
        lines = [*lines[: most - 1], _ended(" ".join(lines[most - 1 :]), width - 1)]
    return lines


def _ended(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _longest(rows: Sequence[Cells], column: int) -> int:
    return max([len(HEAD[column]), *(len(row[column]) for row in rows)])


def _room(rows: Sequence[Cells], kept: Sequence[int], width: int) -> int:
    """What is left for the names beside the other columns."""
    limit = max(_LEAST_RESULT, width // 3)
    others = [min(_longest(rows, one), limit if one == 3 else width) for one in kept if one]
    return width - 1 - sum(others) - 2 * len(others)
