"""Two drawings of scores: over the history, and against what each version stores. Plain SVG.

The history is drawn as a graph. Versions stand side by side in the order of `git log`, the oldest
on the left; a line leads from each to those that it came from, dashed where it was merged in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from git_theta_ext.core.text import printable, size
from git_theta_ext.evaluation.report.tables import shown
from git_theta_ext.evaluation.scored import Column, Row, Table

WIDTH, NARROW, HEIGHT = 480, 320, 220
"""Of the drawing over the history, of the one against bytes, and of both."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 34
_TICKS = 4
_NORMAL_95 = 1.959964
"""The half width of a 95 % interval, in standard errors."""
_TITLED = 2000
"""Versions from which on points have no words of their own: the file would grow too large."""

Points = Mapping[int, tuple[float, float]]
"""Value and half width of the interval (0 where it is not known), by number of the row."""


def points_of(column: Column) -> Points:
    """What is drawn of a column: the value that is comparable, else the first one."""
    found = {}
    for number, cells in column.cells.items():
        score = cells[0].score
        found[number] = (score.value, _NORMAL_95 * (score.error or 0.0))
    return found


def history(found: Table, column: Column) -> str:
    """Scores over the versions, with their intervals."""
    points = points_of(column)
    more = [cell.score.value for cells in column.cells.values() for cell in cells[1:]]
    scale = _Scale([*more, *(v + side for v, e in points.values() for side in (-e, e))])
    count = len(found.rows)
    step = (WIDTH - _LEFT - _RIGHT) / max(1, count)

    def at(number: int) -> float:
        return _LEFT + step * (count - number - 0.5)

    lines, marks = [], []
    for number in sorted(points):
        for order, other in enumerate(_measured_before(found.rows, number, points)):
            kind = "merged" if order else "line"
            lines.append(_line(kind, at(other), scale.y(points[other][0]), at(number),
                               scale.y(points[number][0])))  # fmt: skip
        marks += [_more(at(number), scale.y(cell.score.value)) for cell in column.cells[number][1:]]
        marks.append(_mark(found.rows[number], column, points[number], at(number), scale))
    ends = _ends(found.rows)
    return f"{_axes(scale, WIDTH - _RIGHT)}{ends}{''.join(lines)}{''.join(marks)}"


def scatter(found: Table, column: Column) -> str:
    """Scores against the bytes that each version stores, on a logarithmic scale."""
    points = points_of(column)
    scale = _Scale([value for value, _ in points.values()])
    sizes = [max(1, found.rows[number].stored) for number in points]
    right = NARROW - _RIGHT
    low, high = math.log10(min(sizes)), math.log10(max(sizes))
    low, high = (low - 0.5, high + 0.5) if high - low < 0.1 else (low, high)

    def at(stored: int) -> float:
        share = (math.log10(max(1, stored)) - low) / (high - low)
        return _LEFT + 10 + share * (right - _LEFT - 20)

    marks = "".join(
        _mark(found.rows[number], column, (points[number][0], 0.0), at(found.rows[number].stored),
              scale)
        for number in sorted(points)
    )  # fmt: skip
    labels = _label(_LEFT + 10, size(min(sizes)), "start") + _label(right, size(max(sizes)), "end")
    return f"{_axes(scale, right)}{labels}{marks}"


class _Scale:
    """From values to heights, over a range that ends at round numbers."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values), max(values)
        if high - low <= 1e-9 * max(1.0, abs(low), abs(high)):
            spread = abs(low) * 0.05 or 0.5
            low, high = low - spread, high + spread
        rough = (high - low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        self.step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= rough), 10 * power)
        self.low = math.floor(low / self.step + 1e-9) * self.step
        self.high = math.ceil(high / self.step - 1e-9) * self.step
        if not math.isfinite(self.high - self.low):
            self.low, self.high, self.step = -1.0, 1.0, 1.0

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - _BOTTOM - min(1.0, max(0.0, share)) * (HEIGHT - _TOP - _BOTTOM)

    def ticks(self) -> list[float]:
        count = round((self.high - self.low) / self.step)
        return [self.low + self.step * number for number in range(count + 1)]


def _axes(scale: _Scale, right: int) -> str:
    """Lines across at round numbers, which stand on the left."""
    digits = max(0, -math.floor(math.log10(scale.step) + 1e-9))
    digits += 1 if round(scale.step * 10**digits, 6) % 1 else 0
    rows = []
    for tick in scale.ticks():
        y = scale.y(tick)
        plain = abs(tick) < 1e5 and digits < 6
        text = f"{tick:.{digits}f}" if plain else f"{tick:.3g}"
        line = f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>'
        rows.append(f'{line}<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return "".join(rows)


def _ends(rows: Sequence[Row]) -> str:
    """The dates of the oldest and of the newest version."""
    if not rows:
        return ""
    first, last = rows[-1].version.date[:10], rows[0].version.date[:10]
    return _label(_LEFT, first, "start") + (
        _label(WIDTH - _RIGHT, last, "end") if len(rows) > 1 else ""
    )


def _label(x: float, text: str, anchor: str) -> str:
    return f'<text x="{x:g}" y="{HEIGHT - 10}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(kind: str, x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path class="{kind}" d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}"/>'


def _mark(row: Row, column: Column, point: tuple[float, float], x: float, scale: _Scale) -> str:
    """A point with its interval: a square on its corner for a merge; hollow if not comparable."""
    value, half = point
    y = scale.y(value)
    hollow = "" if column.cells[row.number][0].current else " other"
    words = f"<title>{_words(row, column)}</title>" if len(column.cells) <= _TITLED else ""
    interval = ""
    if half:
        interval = (
            f'<path class="interval" d="M{x:.1f} {scale.y(value - half):.1f}'
            f'V{scale.y(value + half):.1f}"/>'
        )
    if len(row.before) > 1:
        shape = (
            f'<path class="point merge{hollow}" d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z">'
            f"{words}</path>"
        )
    else:
        shape = f'<circle class="point{hollow}" cx="{x:.1f}" cy="{y:.1f}" r="4">{words}</circle>'
    return f"{interval}{shape}"


def _more(x: float, y: float) -> str:
    """What somebody else measured of the same version, with another result."""
    return f'<circle class="point other" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _words(row: Row, column: Column) -> str:
    """What a point says when one stays on it."""
    names = ", ".join(printable(one.name) for one in row.changed[:3])
    more = f" and {row.changes - 3:,} more" if row.changes > 3 else ""
    changed = f"; changed: {names}{more}" if names else ""
    words = f"{row.version.commit[:9]} {printable(row.version.subject)}: "
    return escape(f"{words}{shown(column.cells[row.number])}{changed}")


def _measured_before(rows: Sequence[Row], number: int, points: Points) -> list[int]:
    """The nearest versions with a score that a version came from, the first parent's first."""
    found: list[int] = []
    for parent in rows[number].before:
        waiting, seen = [parent], set[int]()
        while waiting:
            one = waiting.pop()
            if one in seen:
                continue
            seen.add(one)
            if one in points:
                if one not in found:
                    found.append(one)
                break
            waiting += reversed(rows[one].before)
    return found
