"""Comparisons as GitHub-flavoured markdown, folded so that they fit into one comment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from git_theta_ext.comparison.compare import Comparison
from git_theta_ext.comparison.division import Division, Divisions
from git_theta_ext.comparison.measure import Measure
from git_theta_ext.comparison.named import Version
from git_theta_ext.comparison.report import quantised
from git_theta_ext.comparison.report.division import HEADS, MOST, cells, changed, remarks
from git_theta_ext.comparison.report.groups import Group, group, weight
from git_theta_ext.comparison.report.text import described, magnitude, percentage
from git_theta_ext.comparison.report.words import conversion, is_training_state, relation
from git_theta_ext.core.text import markdown_code, markdown_escaped, markdown_text, size

LIMIT = 65_536
"""Characters that a comment on GitHub may have."""
_MAX_UNREAD = 20
"""Tensors without values that are named."""
_OPEN_ROWS = 12
"""Rows of a table that are shown; the rest are folded away."""
_HEAD = "| | tensor | what | change | cos | stores |\n|---|---|---|---|---|---|"
_SHOWN = 200
"""Characters of a name or value in a table."""
_SIGNS = {"added": "➕", "removed": "➖", "changed": "✏️", "renamed": "➡️"}


def render(
    comparisons: Sequence[tuple[str, Comparison]],
    limit: int = LIMIT,
    between: tuple[Version, Version] | None = None,
    notes: Sequence[str] = (),
    divisions: Divisions | None = None,
) -> str:
    """A report on some checkpoints, those of models first, of at most `limit` characters.

    What does not fit is left out by whole rows, the least changed first, and counted.

    Args:
        comparisons: paths, and what differs.
        limit: characters, with which `notes` are to leave room.
        between: the commits that were compared.
        notes: what a reader must know before the tensors, as markdown.
        divisions: by the paths of checkpoints, their modules, of which there is a table.
    """
    head = "### Checkpoints\n\n" + _between(between) + "".join(f"> {note}\n\n" for note in notes)
    comparisons = sorted(comparisons, key=lambda item: is_training_state(item[0]))
    if not comparisons:
        return head + "No checkpoint changed.\n"
    keep = most = max((len(group(found.changes)) for _, found in comparisons), default=0)
    tables = {
        path: _modules(divisions.get(path) if divisions else None) for path, found in comparisons
    }
    while True:
        text = head + "\n".join(
            _file(path, found, keep, tables[path] if keep or not most else [])
            for path, found in comparisons
        )
        if len(text) <= limit or keep == 0:
            break
        keep = min(keep - 1, keep * limit // len(text))
    if len(text) <= limit:
        return text
    rows = [f"- {_path(path)}: {_summary(found)}" for path, found in comparisons]
    while rows and len(head) + sum(len(row) + 1 for row in rows) + 40 > limit:
        rows.pop()
    left = len(comparisons) - len(rows)
    more = [f"- … and {left:,} more checkpoints"] if left else []
    return head + "\n".join([*rows, *more]) + "\n"


def _between(between: tuple[Version, Version] | None) -> str:
    """Which commits were compared."""
    if between is None:
        return ""
    words = (
        f"{_code(version.oid[:12])} {markdown_text(version.subject[:_SHOWN])} "
        f"({markdown_escaped(version.date)})"
        for version in between
    )
    return f"{' → '.join(words)}\n\n"


def _modules(found: Division | None) -> list[str]:
    """The table of a checkpoint's modules, and what to know besides; nothing where none changed."""
    parts = changed(found)
    if found is None or not (parts or found.outside):
        return []
    head = ["| " + " | ".join(HEADS) + " |", "|---|---|--:|---|---|"] if parts else []
    rows = []
    for part in parts[:MOST]:
        name, owners, *figures = cells(part)
        shown = [_code(name), _code(owners or None), *figures]
        rows.append(f"| {' | '.join(shown)} |")
    said = "; ".join(remarks(found))
    return ["\n".join([*head, *rows]) + "\n", *([f"{said}\n"] if said else [])]


def _file(path: str, found: Comparison, keep: int, modules: Sequence[str]) -> str:
    """The section on one checkpoint: the `keep` groups that changed most; others are counted."""
    groups = sorted(group(found.changes), key=weight)
    rows = [_row(one) for one in groups[:keep]]
    parts = [f"**{_path(path)}** — {_summary(found)}\n", *modules]
    if rows:
        parts.append("\n".join([_HEAD, *rows[:_OPEN_ROWS]]) + "\n")
    if rows[_OPEN_ROWS:]:
        count = sum(len(one.changes) for one in groups[_OPEN_ROWS:keep])
        parts.append(
            f"<details><summary>{count:,} more tensors</summary>\n\n"
            + "\n".join([_HEAD, *rows[_OPEN_ROWS:]])
            + "\n\n</details>\n"
        )
    left = sum(len(one.changes) for one in groups[keep:])
    if left:
        parts.append(f"… and {left:,} more tensors that changed less\n")
    parts += [*_lacking(found), *_quantised(found), *_outside(found)]
    return "\n".join(parts)


def _lacking(found: Comparison) -> list[str]:
    """The tensors whose values could not be had, and why."""
    unread = [change for change in found.changes if change.lacking is not None]
    if not unread:
        return []
    rows = [
        f"- {_code(change.name)}: values not available: {markdown_text(reason[:_SHOWN])}"
        for change, reason in ((one, one.lacking or "") for one in unread[:_MAX_UNREAD])
    ]
    if len(unread) > _MAX_UNREAD:
        rows.append(f"- … and {len(unread) - _MAX_UNREAD:,} more tensors")
    return ["\n".join(rows) + "\n"]


def _quantised(found: Comparison) -> list[str]:
    """What became of quantised weights, as one value each."""
    rows = quantised.rows(found)
    if not rows:
        return []
    lines = [
        f"- {_code(row.name)}: {row.count:,} × {markdown_escaped(row.words)}"
        for row in rows[:_OPEN_ROWS]
    ]
    if len(rows) > _OPEN_ROWS:
        left = sum(row.count for row in rows[_OPEN_ROWS:])
        lines.append(f"- … and {left:,} more quantised weights")
    return ["\n".join(lines) + "\n"]


def _summary(found: Comparison) -> str:
    was = [] if found.renamed_from is None else [f"was {_path(found.renamed_from)}"]
    counted = [_counts(found)] if found.compared else []
    return ", ".join([*was, *counted, *(markdown_text(remark) for remark in found.remarks)])


def _counts(found: Comparison) -> str:
    if found.old_format is None:
        words = f"new, {found.tensors:,} tensors, {magnitude(found.parameters)} parameters"
    elif found.new_format is None:
        return f"deleted, {found.tensors:,} tensors"
    else:
        words = (
            f"{len(found.changes):,} of {found.tensors:,} tensors, "
            f"{magnitude(found.changed_parameters)} of {magnitude(found.parameters)} parameters"
        )
        if (sentence := conversion(found.changes)) is not None:
            words += f", {markdown_escaped(sentence)}"
        if (moved := found.measure.relative) is not None:
            words += f", change {percentage(moved)}"
    return f"{words}, stores {size(found.stored)} of {size(found.size)}"


def _row(one: Group) -> str:
    """One line of the table: a group of tensors that changed alike; new NaN gets a warning sign."""
    first = one.changes[0]
    measures = [change.measure for change in one.changes if change.measure is not None]
    alarm = sum(measure.not_finite for measure in measures)
    moved = [m.relative for m in measures if m.relative is not None and (m.changed or m.relative)]
    change = ""
    if moved:
        low, high = percentage(min(moved)), percentage(max(moved))
        change = low if low == high else f"{low} … {high}"
    cosines = [m.cosine for m in measures if m.cosine is not None]
    name = one.name if first.status != "renamed" or first.old is None else first.old.name
    arrow = f" → {_code(first.name)}" if first.status == "renamed" else ""
    what = " · ".join(_what(one, measures))
    if first.lacking is not None:
        what += " · values not available"
    if alarm:
        what += f" · **{alarm:,} {'' if first.old is None else 'new '}NaN or infinite**"
    stored = sum(change.stored for change in one.changes)
    cells = [
        "⚠️" if alarm else _SIGNS[first.status], _code(name) + arrow, what, change,
        f"{min(cosines):.4f}" if cosines else "", size(stored) if stored else "",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _what(one: Group, measures: Sequence[Measure]) -> Iterator[str]:
    """The parts of the column that says what the tensors are and how they changed, escaped."""
    first = one.changes[0]
    tensor = first.new or first.old
    times = f"{len(one.changes):,} × " if len(one.changes) > 1 else ""
    if tensor is not None:
        yield times + markdown_escaped(described(tensor))
    if first.old is not None and first.new is not None and first.old.dtype != first.new.dtype:
        yield f"was {first.old.dtype.name}"
    yield from (markdown_escaped(words) for words in relation(first) if words != "renamed")
    if first.kind is not None and first.status == "changed":
        remarks = {change.info for change in one.changes}
        plain = [f"{k}={v}" for k, v in first.info if k != "change"] if len(remarks) == 1 else []
        yield markdown_text(" ".join([first.kind, *plain]))
    changed, count = sum(m.changed for m in measures), sum(c.count for c in one.changes)
    if measures and 0 < 2 * changed < count:
        yield f"{changed:,} of {count:,} entries"


def _outside(found: Comparison) -> list[str]:
    """What changed besides the tensors: the container, and at most 50 facts."""
    container = []
    if found.old_format and found.new_format and found.old_format != found.new_format:
        then, now = markdown_code(found.old_format), markdown_code(found.new_format)
        container = [f"container: {then} → {now}\n"]
    if not found.notes:
        return container
    rows = [
        f"| {_code(note.name)} | {_code(note.old)} | {_code(note.new)} |"
        for note in found.notes[:50]
    ]
    more = f"\n\n… and {len(found.notes) - 50:,} more" if len(found.notes) > 50 else ""
    table = "\n".join(["| outside the tensors | before | after |", "|---|---|---|", *rows])
    if len(found.notes) <= _OPEN_ROWS:
        return [*container, table + "\n"]
    head = f"<details><summary>{len(found.notes):,} changes outside the tensors</summary>\n\n"
    return [*container, f"{head}{table}{more}\n\n</details>\n"]


def _path(text: str) -> str:
    """A path as code, its middle left out where it is so long that it would crowd out others."""
    half = _SHOWN // 2
    return markdown_code(text if len(text) <= _SHOWN else f"{text[:half]}…{text[-half:]}")


def _code(text: str | None) -> str:
    """The beginning of a name or value as code, nothing where there is none."""
    if text is None:
        return ""
    return markdown_code(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
