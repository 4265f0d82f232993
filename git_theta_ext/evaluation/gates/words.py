"""The report of a check for people: as text for a terminal, as markdown for a pull request."""

from __future__ import annotations

import math
from collections.abc import Sequence

from git_theta_ext.core.text import (
    markdown_code,
    markdown_escaped,
    markdown_text,
    plural,
    printable,
    size,
    table,
)
from git_theta_ext.evaluation.gates.check import Report
from git_theta_ext.evaluation.gates.compare import WORDS
from git_theta_ext.evaluation.gates.ownership import Touched, asked
from git_theta_ext.evaluation.gates.plot import bars
from git_theta_ext.evaluation.gates.verdict import Row, Verdict

WORD: dict[Verdict, str] = {
    "accepted": "accepted",
    "refused": "REFUSED",
    "unmeasured": "NOT MEASURED",
    "incomparable": "NOT COMPARABLE",
}
_SIGNS: dict[Verdict, str] = {
    "accepted": "✅", "refused": "❌", "unmeasured": "❔", "incomparable": "❔",
}  # fmt: skip
_SHOWN = 300
"""Characters of a name or reason in markdown."""
_OWNERS, _MODULES = 12, 5
"""Owners, and modules of each, that a comment names; the rest is counted."""
_NOBODY = "no module that changed has an owner"


def conclusion(report: Report) -> str:
    """The verdict in a sentence."""
    if not report.rows:
        kinds = [one for one, n in (("gate", report.gates), ("module", report.modules)) if n]
        if not kinds:
            return "There is no gate: nothing was judged."
        which = "changed" if report.changed else "changed checkpoints"
        changed = f"{which}: {len(report.changed)}"
        return f"Accepted: no {' or '.join(kinds)} is for what changed ({changed})."
    counts = {verdict: sum(row.verdict == verdict for row in report.rows) for verdict in WORD}
    total = plural(len(report.rows), "judgement")
    if counts["refused"]:
        return f"Refused: {counts['refused']} of {total}."
    open_ones = counts["unmeasured"] + counts["incomparable"]
    if open_ones:
        return f"Not decided: {open_ones} of {total} could not be made."
    return f"Accepted: {total}, none refuses."


def text(report: Report) -> str:
    """The report as lines for a terminal; names in it do nothing there."""
    lines = []
    if report.new is not None:
        old = report.old.oid[:10] if report.old is not None else "nothing"
        whose = f"; gates of {report.rules.oid[:10]}" if report.rules is not None else ""
        lines += [f"{report.new.oid[:10]} {printable(report.new.subject)}",
                  f"compared with {old}{whose}", ""]  # fmt: skip
    several = _are_several(report)
    if report.rows:
        head = ["gate", "base", "this", "difference", "verdict"]
        cells = [[printable(one) for one in _cells(row, several)] for row in report.rows]
        drawn = table([head, *cells])
        lines.append(drawn[0])
        for line, row in zip(drawn[1:], report.rows, strict=True):
            lines.append(line)
            lines += [f"    {printable(one)}" for one in remarks(row)]
        lines += ["", *(f"{one}" for one in _foot(report.rows))]
    if report.touched:
        cells = [[printable(one) for one in _module_cells(report, one)] for one in report.touched]
        lines += [*table([["module", "owners", "changed"], *cells]), ""]
        lines += [f"to ask: {printable(', '.join(report.owners) or _NOBODY)}"]
    lines += [f"note: {printable(note)}" for note in report.notes]
    lines.append(conclusion(report))
    return "\n".join(lines) + "\n"


def markdown(report: Report, limit: int = 60_000) -> str:
    """The report as a section of a comment: the table, what is amiss, and how it was tested.

    Rows that do not fit into `limit` characters are left out, those that accept first, and counted.
    """
    order = sorted(report.rows, key=lambda row: row.verdict == "accepted")
    keep = len(order)
    while True:
        found = _section(report, order[:keep], len(order) - keep)
        if len(found) <= limit or not keep:
            return found
        keep = min(keep - 1, keep * limit // len(found))


def _section(report: Report, rows: Sequence[Row], left: int) -> str:
    """The section with some of the rows; `left` others are counted."""
    several = _are_several(report)
    lines = [f"### {_SIGNS[_worst(report.rows)]} {markdown_escaped(conclusion(report))}", ""]
    if rows:
        lines += ["| | gate | base | this | difference | branch | verdict |",
                  "|---|---|--:|--:|---|---|---|"]  # fmt: skip
    for row in rows:
        name, *cells = _cells(row, several)
        cells.insert(-1, bars(report.history.get((row.path, row.subject), ())))
        shown = " | ".join([markdown_code(name[:_SHOWN]), *map(markdown_escaped, cells)])
        lines.append(f"| {_SIGNS[row.verdict]} | {shown} |")
    lines += ["", f"… and {plural(left, 'more row')}"] if left else []
    wrong = [
        f"- {markdown_code(_name(row, several)[:_SHOWN])}: {markdown_text(one[:_SHOWN])}"
        for row in rows if row.verdict != "accepted" for one in row.reasons
    ]  # fmt: skip
    lines += ["", *wrong] if wrong else []
    lines += ["", *(f"<sub>{markdown_escaped(one)}</sub>" for one in _foot(rows))]
    lines += ["", *_asked(report)]
    lines += ["", *(f"- {markdown_text(note[:_SHOWN])}" for note in report.notes)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _asked(report: Report) -> list[str]:
    """Whom to ask, and about which modules, in markdown: as code, so that nobody is notified."""
    held: dict[str, list[str]] = {owner: [] for owner in report.owners}
    alone = []
    for module in dict.fromkeys(one.part.module for one in report.touched):
        for owner in module.owners:
            held[owner].append(module.name)
        alone += [] if module.owners else [module.name]
    said = [f"{markdown_code(owner)} ({_codes(names)})" for owner, names in held.items()]
    more = [f"and {plural(len(said) - _OWNERS, 'more owner')}"] if len(said) > _OWNERS else []
    nobody = [f"nobody is named for {_codes(alone)}"] if alone else []
    return [f"**To ask:** {', '.join([*said[:_OWNERS], *more, *nobody])}"] if report.touched else []


def _codes(names: Sequence[str]) -> str:
    more = [f"{len(names) - _MODULES:,} more"] if len(names) > _MODULES else []
    return ", ".join([*map(markdown_code, names[:_MODULES]), *more])


def _module_cells(report: Report, one: Touched) -> tuple[str, str, str]:
    """Module, with its checkpoint where there are several; owners; tensors that changed of all."""
    part = one.part
    several = len({each.path for each in report.touched}) > 1
    name = f"{part.module.name}, {one.path}" if several else part.module.name
    return name, asked(part.module), f"{part.changed:,} of {plural(part.tensors, 'tensor')}"


def _worst(rows: Sequence[Row]) -> Verdict:
    order: tuple[Verdict, ...] = ("refused", "incomparable", "unmeasured")
    held = {row.verdict for row in rows}
    return next((one for one in order if one in held), "accepted")


def _are_several(report: Report) -> bool:
    """Whether the rows are about more than one checkpoint."""
    return len({one.path for one in report.rows}) > 1


def _name(row: Row, several: bool) -> str:
    """The gate and what it looked at; the checkpoint, too, where there are several."""
    against = f" (against {row.against})" if row.against not in ("", "base") else ""
    return f"{row.name}{against}, {row.path}" if several else f"{row.name}{against}"


def _cells(row: Row, several: bool) -> list[str]:
    """Name, base, this, difference with its interval, verdict."""
    return [
        _name(row, several), score(row, row.before), score(row, row.after), difference(row),
        WORD[row.verdict],
    ]  # fmt: skip


def score(row: Row, value: float | None) -> str:
    """A value as a cell shows it; what a checkpoint stores in bytes."""
    if value is None:
        return ""
    return size(int(value)) if row.subject == "stored" else f"{value:.4g}"


def difference(row: Row) -> str:
    """The difference and its interval, `-0.032 (-0.051 … -0.013)`; "" where there is none."""
    if row.difference is None:
        return ""
    shown = f"{row.difference.value:+.3g}"
    if row.limits is None or not all(map(math.isfinite, row.limits)):
        return shown
    low, high = row.limits
    return f"{shown} ({low:+.3g} … {high:+.3g})"


def remarks(row: Row) -> list[str]:
    """The sentences below a row: why, and by which test."""
    found = list(row.reasons)
    if row.difference is not None and row.difference.how != "numbers":
        many = row.difference.examples
        tested = WORDS[row.difference.how]
        tested += f", {plural(many, 'example')}" if many is not None else ""
        why = f" ({row.difference.note})" if row.difference.note else ""
        found.append(f"{tested}{why}")
    return found


def _foot(rows: Sequence[Row]) -> list[str]:
    """How the table is to be read."""
    tested = [row for row in rows if row.limits is not None]
    if not tested:
        return []
    levels = sorted({row.gate.confidence for row in tested})
    shown = ", ".join(f"{100 * one:g} %" for one in levels)
    how = sorted({WORDS[row.difference.how] for row in tested if row.difference is not None})
    found = [f"Each limit of a difference holds with {shown} confidence ({'; '.join(how)})."]
    corrected = sum(row.p is not None for row in rows)
    if corrected > 1:
        found.append(f"p-values are corrected for {corrected} tests (Holm).")
    return found
