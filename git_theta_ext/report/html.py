"""Comparisons as one HTML file: no network, no library, legible in light and dark and on a phone.

Every name is text by way of `html.escape`, or data in a JSON island; nothing of a checkpoint
becomes markup or script. The heat map's colours are a single hue from light to dark (readable
without colour vision), and every cell says its number on hover and to screen readers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

from git_theta_ext.comparison.compare import Change, Comparison
from git_theta_ext.names import natural_key
from git_theta_ext.report.text import described, percentage, shown, summary

_MAX_PLOTS = 12
_MAX_COLUMNS = 60
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_CELL = 18


def render(comparisons: Sequence[tuple[str, Comparison]]) -> str:
    """The report on some checkpoints."""
    body = "".join(_section(path, found) for path, found in comparisons)
    style = files("git_theta_ext.report").joinpath("report.css").read_text("utf-8")
    script = files("git_theta_ext.report").joinpath("report.js").read_text("utf-8")
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; "
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>Checkpoints</title><style>{style}</style></head>\n"
        f"<body><h1>Checkpoints</h1>{body or '<p>No checkpoint changed.</p>'}"
        f"<script>{script}</script></body></html>\n"
    )


def _section(path: str, found: Comparison) -> str:
    return (
        f"<section><h2>{_text(path)}</h2><p>{_text(summary(found))}</p>"
        f"{_map(found)}{_plots(found)}{_table(found)}{_outside(found)}</section>\n"
    )


def _text(text: str) -> str:
    return escape(shown(text))


# -- the map of the model --------------------------------------------------------------------------


def _place(name: str) -> tuple[str, str]:
    """Row and column: the first number in the name is the layer, the rest is the kind."""
    match = _NUMBER.search(name)
    if match is None:
        return "", name
    return match[0], f"{name[: match.start()]}*{name[match.end() :]}"


def _map(found: Comparison) -> str:
    """Layers by kinds of tensor, each cell as dark as the tensor changed."""
    cells: dict[tuple[str, str], Change] = {}
    for change in found.changes:
        row, column = _place(change.name)
        if row and change.measure is not None and change.measure.relative is not None:
            cells[row, column] = change
    rows = sorted({row for row, _ in cells}, key=natural_key)
    columns = sorted({column for _, column in cells}, key=natural_key)[:_MAX_COLUMNS]
    if len(rows) < 2 or not columns:
        return ""
    left = 60
    width, height = left + _CELL * len(rows) + 460, _CELL * (len(columns) + 1) + 8
    parts = [
        f"<text x={left + _CELL * at + _CELL // 2} y=12 class=n>{_text(row)}</text>"
        for at, row in enumerate(rows)
    ]
    for y, column in enumerate(columns):
        for x, row in enumerate(rows):
            if (row, column) in cells:
                parts.append(_cell(cells[row, column], left + x * _CELL, (y + 1) * _CELL))
        label = left + _CELL * len(rows) + 8
        parts.append(f"<text x={label} y={(y + 1) * _CELL + 13}>{_text(column)}</text>")
    return (
        "<h3>Where it changed</h3><div class=scroll>"
        f'<svg role=img aria-label="relative change of each tensor by layer" width={width} '
        f"height={height}><text x=0 y=12>layer</text>{''.join(parts)}</svg></div>"
        "<p class=key>relative change: <span class=ramp></span> 0.01 % to 10 % and more</p>"
    )


def _cell(change: Change, x: int, y: int) -> str:
    moved = (change.measure.relative if change.measure else None) or 0.0
    depth = 0.0 if moved <= 0 else min(1.0, max(0.0, (math.log10(moved) + 4) / 3))
    alarm = " class=alarm" if change.measure and change.measure.not_finite else ""
    return (
        f"<rect x={x} y={y} width={_CELL - 2} height={_CELL - 2} "
        f"fill-opacity={0.06 + 0.94 * depth:.2f}{alarm}>"
        f"<title>{_text(change.name)}: {percentage(moved)}</title></rect>"
    )


# -- distributions ---------------------------------------------------------------------------------


def _plots(found: Comparison) -> str:
    """How the values of the most changed tensors moved."""
    moved = [
        (change.measure.relative, change)
        for change in found.changes
        if change.measure is not None and change.measure.relative and change.measure.sample
    ]
    moved.sort(key=lambda item: (-(item[0] or 0.0), item[1].name))
    figures = "".join(_plot(change) for _, change in moved[:_MAX_PLOTS])
    return f"<h3>How the most changed tensors moved</h3><div class=plots>{figures}</div>" * bool(
        figures
    )


def _plot(change: Change) -> str:
    measure = change.measure
    if measure is None:
        return ""
    counts = measure.histogram()
    top = max(counts) or 1
    bars = "".join(
        f"<rect x={at * 18} y={60 - 56 * count / top:.1f} width=16 height={56 * count / top:.1f}>"
        f"<title>{count}</title></rect>"
        for at, count in enumerate(counts)
    )
    label = f"{percentage(measure.relative or 0.0)}, largest {measure.largest:.2g}"
    return (
        f'<figure><svg role=img aria-label="differences of {_text(change.name)}" '
        f"width={len(counts) * 18} height=62>{bars}</svg>"
        f"<figcaption>{_text(change.name)}<br>{_text(label)}</figcaption></figure>"
    )


# -- the table -------------------------------------------------------------------------------------


def _table(found: Comparison) -> str:
    """All tensors that changed, sorted and searched in the browser."""
    if not found.changes:
        return ""
    rows = [list(_row(change)) for change in found.changes]
    # `</` would end the script element, whatever the JSON says.
    data = json.dumps(rows, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")
    heads = ["tensor", "what", "type", "update", "change", "cosine", "largest", "stores"]
    cells = "".join(
        f"<th scope=col><button type=button data-column={at}>{head}</button></th>"
        for at, head in enumerate(heads)
    )
    return (
        f"<h3>Tensors</h3><label>search <input type=search></label> <output></output>"
        f"<div class=scroll><table><thead><tr>{cells}</tr></thead><tbody></tbody></table></div>"
        f"<script type=application/json>{data}</script>"
    )


def _row(change: Change) -> Iterator[object]:
    tensor = change.new or change.old
    measure = change.measure
    alarm = measure is not None and measure.not_finite
    yield shown(change.name)
    yield f"{measure.not_finite} new NaN or infinite" if measure and alarm else change.status
    yield "" if tensor is None else described(tensor)
    yield " ".join([change.kind or "", *(f"{k}={v}" for k, v in change.info if k != "change")])
    numbers = (None, None, None) if measure is None else (
        measure.relative, measure.cosine, measure.largest
    )  # fmt: skip
    for number in numbers:
        yield None if number is None or not math.isfinite(number) else float(f"{number:.4g}")
    yield change.stored


def _outside(found: Comparison) -> str:
    if not found.notes:
        return ""
    rows = "".join(
        f"<tr><td>{_text(note.name)}<td>{_text(note.old or '')}<td>{_text(note.new or '')}"
        for note in found.notes
    )
    return (
        "<h3>Outside the tensors</h3><div class=scroll><table>"
        f"<thead><tr><th>what<th>before<th>after</thead><tbody>{rows}</tbody></table></div>"
    )
