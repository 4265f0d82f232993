"""Scores as one HTML file: no network, no library, legible in light and dark and on a phone.

It looks as the report on comparisons does, and keeps to its rules: every name is text, nothing of
a checkpoint or a result becomes markup, and no colour says what a shape does not say, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

from git_theta_ext.core.text import plural, printable, size
from git_theta_ext.evaluation.report import plots
from git_theta_ext.evaluation.report.tables import marks, shown
from git_theta_ext.evaluation.scored import Column, Row, Table

_PLOTTED = 12
_LISTED = 500
_STEPS = 6
_COST = "stored bytes against score"


def render(found: Table, rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The page.

    Args:
        found: all versions.
        rows: those in the table, in its order.
        columns: the metrics that are shown.
    """
    base = files("git_theta_ext.comparison.report").joinpath("report.css").read_text("utf-8")
    own = files("git_theta_ext.evaluation.report").joinpath("scores.css").read_text("utf-8")
    plotted = "".join(_column(found, column) for column in columns[:_PLOTTED])
    left = len(columns) - _PLOTTED
    more = f"<p>… and {plural(left, 'more metric')}: see the table, or --metric</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>Scores of {_text(found.path)}</title><style>{base}{own}</style></head>\n"
        f"<body><h1>Scores</h1><h2>{_text(found.path)}</h2>{_figures(found, columns)}"
        f"{plotted or '<p>Nothing was measured yet.</p>'}{more if left > 0 else ''}"
        f"{_key(columns)}{_table(rows, columns)}</body></html>\n"
    )


def _text(text: str) -> str:
    return escape(printable(text))


def _breakable(name: str) -> str:
    """A name whose lines may be broken after dots and slashes."""
    return _text(name).replace(".", ".<wbr>").replace("/", "/<wbr>")


def _figures(found: Table, columns: Sequence[Column]) -> str:
    measured = sum(bool(row.results) for row in found.rows)
    boxes = [f"{plural(len(found.rows), 'version')}, {measured:,} measured",
             f"{size(sum(row.stored for row in found.rows))} stored"]  # fmt: skip
    for column in columns[:3]:
        best = _best(found, column)
        if best is not None:
            commit = best.version.commit[:9]
            boxes.append(f"best {column.name}: {shown(column.cells[best.number])} at {commit}")
    return f'<ul class="figures">{"".join(f"<li>{_text(box)}</li>" for box in boxes)}</ul>'


def _best(found: Table, column: Column) -> Row | None:
    rows = [row for row in found.rows if row.number in column.cells]
    return min(rows, key=column.best_first) if rows else None


def _column(found: Table, column: Column) -> str:
    """One metric: its history, what it costs, and where it moved most."""
    points = plots.points_of(column)
    values = [value for value, _ in points.values()]
    way = {True: "higher is better", False: "lower is better", None: ""}[column.higher_is_better]
    caption = f"{plural(len(points), 'version')} measured{'; ' if way else ''}{way}"
    spoken = f"{column.name} over the history, from {min(values):.4g} to {max(values):.4g}"
    cost = f"{column.name} against the bytes that a version stores"
    return (
        f'<section><h3>{_breakable(column.name)}</h3><div class="pair">'
        f"{_figure(plots.history(found, column), plots.WIDTH, spoken, caption)}"
        f"{_figure(plots.scatter(found, column), plots.NARROW, cost, _COST)}</div>"
        f"{_steps(found, column, points)}</section>\n"
    )


def _figure(drawing: str, width: int, spoken: str, caption: str) -> str:
    return (
        f'<figure><svg class="chart" role="img" aria-label="{_text(spoken)}" '
        f'viewBox="0 0 {width} {plots.HEIGHT}">{drawing}</svg>'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _steps(found: Table, column: Column, points: plots.Points) -> str:
    """The versions at which the score moved most, with the tensors that changed there."""
    moves = []
    for number, (value, _) in points.items():
        before = [one for one in found.rows[number].before if one in points]
        if before and column.cells[number][0].current and column.cells[before[0]][0].current:
            moves.append((value - points[before[0]][0], number))
    moves = [move for move in sorted(moves, key=lambda one: (-abs(one[0]), one[1])) if move[0]]
    if not moves:
        return ""
    items = "".join(_step(found.rows[number], moved) for moved, number in moves[:_STEPS])
    return f"<h4>Where it moved most, and which tensors changed most there</h4><ol>{items}</ol>"


def _step(row: Row, moved: float) -> str:
    return (
        f"<li><b>{'+' if moved > 0 else '−'}{abs(moved):.3g}</b> {_commit(row)} "
        f"{_text(row.version.subject)}<small>{_changed(row)}</small></li>"
    )


def _commit(row: Row) -> str:
    tags = [row.state] if row.state else []
    tags += ["merge"] if len(row.before) > 1 else []
    told = "".join(f' <span class="tag">{_text(tag)}</span>' for tag in tags)
    return f"<code>{_text(row.version.commit[:9])}</code>{told}"


def _changed(row: Row) -> str:
    """The tensors that take the most room, and how many there are."""
    if not row.before:
        return "the first version"
    names = ", ".join(
        f"{_breakable(one.name)} ({_text(one.how)}, {size(one.stored)})" for one in row.changed[:3]
    )
    left = row.changes - min(3, len(row.changed))
    return names + (f" and {left:,} more" if left > 0 else "") or "none"


def _key(columns: Sequence[Column]) -> str:
    if not columns:
        return ""
    hollow = any(not cell.current for one in columns for cells in one.cells.values()
                 for cell in cells)  # fmt: skip
    several = any(len(cells) > 1 for one in columns for cells in one.cells.values())
    other = " Hollow: measured otherwise than the newest, not to be compared." if hollow else ""
    other += " Small and hollow: another result for the same version." if several else ""
    return (
        '<p class="note">Upright lines are 95 % intervals, from the standard error. A square on '
        f"its corner is a merge; a dashed line leads to what was merged in.{other}</p>"
    )


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """All versions, with all scores."""
    heads = ["version", "date", *(one.name for one in columns), "stores", "changed"]
    cells = "".join(f'<th scope="col">{_breakable(head)}</th>' for head in heads)
    body = "".join(f"<tr>{''.join(_cells(row, columns))}</tr>" for row in rows[:_LISTED])
    left = len(rows) - _LISTED
    more = f"<p>… and {plural(left, 'more version')}: see --format csv</p>" if left > 0 else ""
    notes = "".join(f'<p class="note">{_text(mark)}</p>' for mark in marks(columns))
    return (
        '<h3>Versions</h3><div class="scroll tall"><table class="versions"><thead><tr>'
        f"{cells}</tr></thead><tbody>{body}</tbody></table></div>{more}{notes}"
    )


def _cells(row: Row, columns: Sequence[Column]) -> Iterator[str]:
    yield f"<td>{_commit(row)} {_text(row.version.subject)}</td>"
    yield f"<td>{_text(row.version.date[:10])}</td>"
    for column in columns:
        yield f'<td class="n">{_text(shown(column.cells.get(row.number, ())) or "–")}</td>'
    yield f'<td class="n">{size(row.stored)}</td>'
    yield f'<td class="n">{plural(row.changes, "tensor")}</td>'
