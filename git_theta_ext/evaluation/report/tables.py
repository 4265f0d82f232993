"""Scores as text for a terminal, as Markdown, as CSV, and as records for JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from git_theta_ext.core.text import markdown_code, markdown_text, plural, printable, size, table
from git_theta_ext.evaluation.scored import Cell, Column, Row, Table

_COLUMNS = 6
"""Metrics that are shown where none was asked for."""
_SUBJECT = 40
OTHERWISE = (
    "* by another command, or of other examples, than the newest of its column: not to be compared"
)
IMPORTED = "† imported from files, not measured by git theta"


def shown(cells: Sequence[Cell]) -> str:
    """The scores of one version by one metric: `0.7124 ±0.012`; several where people disagree.

    The marks after them are those of `OTHERWISE` and `IMPORTED`.
    """
    return ", ".join(
        f"{cell.score.value:.4g}"
        + ("" if cell.score.error is None else f" ±{cell.score.error:.2g}")
        + ("" if cell.current else "*")
        + (IMPORTED[0] if cell.result.origin == "imported" else "")
        for cell in cells
    )


def text(found: Table, rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Lines for a terminal: a version a line."""
    first = columns[:_COLUMNS]
    head = ["commit", "date", *(printable(one.name) for one in first), "stores", "subject"]
    body = [
        [row.version.commit[:9], row.version.date[:10],
         *(shown(one.cells.get(row.number, ())) or "–" for one in first),
         size(row.stored), _subject(row)]
        for row in rows
    ]  # fmt: skip
    return [*table([head, *body]), *_notes(found, rows, columns)]


def _subject(row: Row) -> str:
    words = printable(row.version.subject)
    words = words if len(words) <= _SUBJECT else f"{words[: _SUBJECT - 1]}…"
    told = [row.state] if row.state else []
    told += ["merge"] if len(row.before) > 1 else []
    return f"({', '.join(told)}) {words}" if told else words


def _notes(found: Table, rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[str]:
    """What a reader must know below the table."""
    yield from marks(columns)
    left = columns[_COLUMNS:]
    if left:
        names = ", ".join(printable(one.name) for one in left[:8])
        more = ", …" if len(left) > 8 else ""
        yield f"{plural(len(left), 'more metric')} with --metric NAME: {names}{more}"
    measured = sum(bool(row.results) for row in rows)
    if measured < len(rows):
        yield f"{measured:,} of {plural(len(rows), 'version')} measured"


def marks(columns: Sequence[Column]) -> Iterator[str]:
    """What the marks of `shown` say, as far as they are there."""
    cells = [cell for column in columns for cells in column.cells.values() for cell in cells]
    if any(not cell.current for cell in cells):
        yield OTHERWISE
    if any(cell.result.origin == "imported" for cell in cells):
        yield IMPORTED


def markdown(found: Table, rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """A table that fits into a comment or a README."""
    first = columns[:_COLUMNS]
    head = ["commit", "date", *(one.name for one in first), "stores", "subject"]
    lines = [f"**{markdown_code(printable(found.path))}**", "",
             _row([markdown_text(printable(name)) for name in head]),
             "|" + "---|" * 2 + "---:|" * (len(first) + 1) + "---|"]  # fmt: skip
    for row in rows:
        cells = [shown(one.cells.get(row.number, ())).replace("*", "\\*") or "–" for one in first]
        lines.append(_row([row.version.commit[:9], row.version.date[:10], *cells,
                           size(row.stored), markdown_text(_subject(row))]))  # fmt: skip
    notes = list(_notes(found, rows, columns))
    return [*lines, "", *(markdown_text(note) for note in notes)] if notes else lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


CSV = (
    "commit", "date", "author", "subject", "path", "stored", "changed", "evaluation", "task",
    "metric", "value", "stderr", "count", "higher_is_better", "current", "origin", "by", "when",
)  # fmt: skip


def as_csv(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A score a line, for a spreadsheet; versions without one have a line, too.

    A text that a spreadsheet would take for a formula has a quote before it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV)
    for row in rows:
        one = row.version
        head = [one.commit, one.date, one.author, one.subject, one.path, row.stored, row.changes]
        found = [
            (column, cell) for column in columns for cell in column.cells.get(row.number, ())
        ]  # fmt: skip
        for column, cell in found:
            score, result = cell.score, cell.result
            writer.writerow(map(_harmless, [
                *head, column.evaluation, column.task, column.metric, score.value,
                "" if score.error is None else score.error,
                "" if score.count is None else score.count, _word(score.higher_is_better),
                _word(cell.current), result.origin, result.by, result.when,
            ]))  # fmt: skip
        if not found:
            writer.writerow(map(_harmless, [*head, *[""] * (len(CSV) - len(head))]))
    return out.getvalue()


def _word(value: bool | None) -> str:
    return "" if value is None else str(value).lower()


def _harmless(value: object) -> object:
    if isinstance(value, str):
        value = printable(value)
        return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t") else value
    return value


def records(found: Table, rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Any]:
    """Plain data: every key is documented in `docs/commands/scores.md`."""
    return {
        "file": found.path,
        "versions": [
            {
                "commit": row.version.commit,
                "parents": [_commit(found, one) for one in row.before],
                "author": row.version.author, "date": row.version.date,
                "subject": row.version.subject, "path": row.version.path, "content": row.content,
                "state": row.state or None,
                "stored": row.stored, "changed": row.changes,
                "tensors": [
                    {"name": one.name, "update": one.how, "stored": one.stored}
                    for one in row.changed
                ],
                "scores": [
                    _score(column, cell)
                    for column in columns
                    for cell in column.cells.get(row.number, ())
                ],
            }
            for row in rows
        ],
    }  # fmt: skip


def _commit(found: Table, number: int) -> str:
    return found.rows[number].version.commit


def _score(column: Column, cell: Cell) -> dict[str, Any]:
    score, result = cell.score, cell.result
    return {
        "evaluation": column.evaluation, "task": column.task, "metric": column.metric,
        "value": score.value, "stderr": score.error, "count": score.count,
        "higher_is_better": score.higher_is_better, "version": score.version,
        "current": cell.current, "origin": result.origin, "by": result.by, "when": result.when,
        "rev": result.rev, "source": result.source, "definition": result.definition,
        "examples": result.examples_hash,
    }  # fmt: skip
