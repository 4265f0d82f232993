"""Comparisons as one HTML file: no network, no library, legible in light and dark and on a phone.

Every name is text by way of `html.escape`, or data in a JSON island; nothing of a checkpoint
becomes markup or script. The map's colours are a single hue from pale to strong (readable without
colour vision); what was added or is not finite has a sign besides. Without script the map and the
plots are there all the same.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

from git_theta_ext.comparison.compare import Change, Comparison
from git_theta_ext.comparison.division import Division, Divisions
from git_theta_ext.comparison.measure import histogram
from git_theta_ext.comparison.named import Version
from git_theta_ext.comparison.report import quantised
from git_theta_ext.comparison.report.division import HEADS, MOST, cells, changed, remarks
from git_theta_ext.comparison.report.text import described, percentage, summary
from git_theta_ext.comparison.report.words import is_training_state, relation
from git_theta_ext.comparison.spectrum import SHOWN
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.text import plural, printable

_MAX_PLOTS = 12
_MAX_KINDS = 120
_MAX_ALARMS = 20
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_BINS = 41
_WIDTH, _HEIGHT = 246, 84


def render(
    comparisons: Sequence[tuple[str, Comparison]],
    between: tuple[Version, Version] | None = None,
    notes: Sequence[str] = (),
    divisions: Divisions | None = None,
) -> str:
    """The report on some checkpoints, those of models first.

    Args:
        comparisons: paths, and what differs.
        between: the commits that were compared.
        notes: what a reader must know before the tensors.
        divisions: by the paths of checkpoints, their modules, of which there is a table.
    """
    ordered = sorted(comparisons, key=lambda item: is_training_state(item[0]))
    body = "".join(
        _section(path, found, divisions.get(path) if divisions else None) for path, found in ordered
    )
    style = files("git_theta_ext.comparison.report").joinpath("report.css").read_text("utf-8")
    script = files("git_theta_ext.comparison.report").joinpath("report.js").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>Checkpoints</title><style>{style}</style></head>\n"
        f"<body><h1>Checkpoints</h1>{_between(between)}"
        + "".join(f"<p><strong>{_text(note)}</strong></p>" for note in notes)
        + f"{body or '<p>No checkpoint changed.</p>'}"
        f"<script>{script}</script></body></html>\n"
    )


def _between(between: tuple[Version, Version] | None) -> str:
    """Which commits were compared."""
    if between is None:
        return ""
    words = (
        f"<code>{version.oid[:12]}</code> {_text(version.subject)} ({_text(version.date)})"
        for version in between
    )
    return f"<p>{' → '.join(words)}</p>"


def _section(path: str, found: Comparison, division: Division | None) -> str:
    return (
        f"<section><h2>{_text(path)}</h2>{_figures(found)}{_alarms(found)}{_modules(division)}"
        f"{_map(found)}{_table(found)}{_quantised(found)}{_outside(found)}{_plots(found)}{_spectra(found)}</section>\n"
    )


def _text(text: str) -> str:
    return escape(printable(text))


def _breakable(name: str) -> str:
    """A name whose lines may be broken after dots."""
    return _text(name).replace(".", ".<wbr>")


def _figures(found: Comparison) -> str:
    """The summary line, one figure to a box."""
    boxes = "".join(f"<li>{_text(part)}</li>" for part in summary(found).split(" · "))
    if found.old_format and found.new_format and found.old_format != found.new_format:
        boxes += f"<li>{_text(found.old_format)} → {_text(found.new_format)}</li>"
    return f'<ul class="figures">{boxes}</ul>'


def _alarms(found: Comparison) -> str:
    """Tensors with values that are not numbers any more, before all else."""
    bad = [change for change in found.changes if change.measure and change.measure.not_finite]
    if not bad:
        return ""
    names = "".join(
        f"<li>{_text(change.name)}: {change.measure.not_finite if change.measure else 0:,}</li>"
        for change in bad[:_MAX_ALARMS]
    )
    more = f"<li>… and {len(bad) - _MAX_ALARMS:,} more</li>" if len(bad) > _MAX_ALARMS else ""
    words = plural(len(bad), "tensor has", "tensors have")
    return (
        f'<div class="alarm" role="alert"><strong>! {words} new NaN or infinite values</strong>'
        f"<ul>{names}{more}</ul></div>"
    )


def _modules(found: Division | None) -> str:
    """The modules that changed, with their owners; nothing where none did."""
    parts = changed(found)
    if found is None or not (parts or found.outside):
        return ""
    heads = "".join(f'<th scope="col">{head}</th>' for head in HEADS)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in cells(part))}</tr>"
        for part in parts[:MOST]
    )
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    said = f"<p>{_text('; '.join(remarks(found)))}</p>"
    return f'<h3>Modules</h3><div class="scroll">{table}</div>{said}'


# -- the map of the model --------------------------------------------------------------------------


def _place(name: str) -> tuple[str, str]:
    """Layer and kind: the first number in the name is the layer, the rest is the kind."""
    match = _NUMBER.search(name)
    if match is None:
        return "", name
    return match[0], f"{name[: match.start()]}*{name[match.end() :]}"


def _map(found: Comparison) -> str:
    """Layers by kinds of tensor, each cell as strong as the tensor changed."""
    cells: dict[tuple[str, str], str] = {}
    for name in found.unchanged:
        cells[_place(name)] = f'<i title="{_text(name)}: unchanged"></i>'
    for change in found.changes:
        if change.new is not None:
            cells[_place(change.name)] = _cell(change)
    layers = sorted({layer for layer, _ in cells}, key=natural_key)
    kinds = sorted({kind for _, kind in cells}, key=natural_key)
    if len(layers) < 2 or not found.changes:
        return ""
    head = "".join(f"<b>{_text(layer) or '–'}</b>" for layer in layers)
    rows = "".join(
        f'<div class="kind"><span>{_breakable(kind)}</span>'
        + "".join(cells.get((layer, kind), "<u></u>") for layer in layers)
        + "</div>"
        for kind in kinds[:_MAX_KINDS]
    )
    left = len(kinds) - _MAX_KINDS
    more = f"<p>… and {plural(left, 'more kind')} of tensors</p>" if left > 0 else ""
    return (
        '<h3>Where it changed</h3><div class="scroll"><div class="map" role="img" '
        'aria-label="relative change of each tensor, kinds of tensors by layers; the table below '
        f'has the same figures" style="--n:{len(layers)}">'
        f'<div class="kind head"><span>layer</span>{head}</div>{rows}</div></div>{more}'
        '<p class="key"><i></i> unchanged <i style="--d:.06"></i><i style="--d:.37"></i>'
        '<i style="--d:.69"></i><i style="--d:1"></i> 0.01 %, 0.1 %, 1 %, 10 % and more '
        '<i class="new"></i> added or not measured <i class="bad" style="--d:.5"></i> '
        "new NaN or infinite</p>"
    )


def _cell(change: Change) -> str:
    measure = change.measure
    moved = measure.relative if measure is not None else None
    bad = measure is not None and measure.not_finite > 0
    depth = 0.0
    if moved:
        depth = 0.06 + 0.94 * min(1.0, max(0.0, (math.log10(moved) + 4) / 3))
    words = ", ".join(
        [change.status if moved is None else percentage(moved), *relation(change)]
        + (["new NaN or infinite"] if bad else [])
    )
    kind = "bad" if bad else "new" if moved is None else ""
    name = f' class="{kind}"' if kind else ""
    shade = f' style="--d:{depth:.2f}"' if depth else ""
    return f'<i{name}{shade} title="{_text(change.name)}: {_text(words)}"></i>'


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
    if not figures:
        return ""
    return f'<h3>How the most changed tensors moved</h3><div class="plots">{figures}</div>'


def _plot(change: Change) -> str:
    """The differences of a tensor, over four root mean squares to either side."""
    measure = change.measure
    if measure is None or not measure.old.count:
        return ""
    reach = min(measure.largest, 4 * math.sqrt(measure.step / measure.old.count))
    if not 0 < reach < math.inf:
        return ""
    counts = histogram(measure.sample, reach, _BINS)
    whole = change.new is not None and change.new.dtype.kind in ("int", "uint")
    if sum(count > 0 for count in counts) < 2 and (whole or change.count == 1):
        return ""  # a counter: the table has its one difference
    label = f"change {percentage(measure.relative or 0.0)}, largest {measure.largest:.2g}"
    drawing = _bars(counts, (f"−{reach:.1g}", "0", f"{reach:.1g}"))
    return _figure(change.name, label, f"differences of {change.name}", drawing)


def _spectra(found: Comparison) -> str:
    """Singular values of what changed in matrices."""
    changes = [change for change in found.changes if change.spectrum is not None]
    changes.sort(key=lambda one: (-((one.measure and one.measure.relative) or 0.0), one.name))
    figures = "".join(_spectrum(change) for change in changes[:SHOWN])
    if not figures:
        return ""
    return f'<h3>Singular values of the updates</h3><div class="plots">{figures}</div>'


def _spectrum(change: Change) -> str:
    spectrum = change.spectrum
    if spectrum is None or not spectrum.values:
        return ""
    values = spectrum.values
    about = "about " if spectrum.estimated else f"rank {len(values)}, "
    part = ", its low-rank part" if spectrum.partial else ""
    label = f"{about}{values[0]:.3g} … {values[-1]:.3g}{part}"
    drawing = _bars(values, ("1", "", str(len(values))))
    return _figure(change.name, label, f"singular values of the update of {change.name}", drawing)


def _bars(values: Sequence[float], labels: tuple[str, str, str]) -> str:
    """Values as bars over a line, with what stands below its beginning, middle and end."""
    top, step = max(values) or 1, _WIDTH / len(values)
    gap = 1 if step > 3 else 0
    room = _HEIGHT - 16
    bars = "".join(
        f'<rect x="{at * step:.1f}" y="{room - room * value / top:.1f}" '
        f'width="{step - gap:.1f}" height="{room * value / top:.1f}"/>'
        for at, value in enumerate(values)
        if value
    )
    anchors = ((0, "start"), (_WIDTH / 2, "middle"), (_WIDTH, "end"))
    texts = "".join(
        f'<text x="{x:g}" y="{_HEIGHT - 3}" text-anchor="{anchor}">{_text(label)}</text>'
        for (x, anchor), label in zip(anchors, labels, strict=True)
    )
    return f'{bars}<path d="M0 {room}.5H{_WIDTH}"/>{texts}'


def _figure(name: str, label: str, alternative: str, drawing: str) -> str:
    return (
        f'<figure><svg role="img" aria-label="{_text(alternative)}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">{drawing}</svg>'
        f"<figcaption>{_breakable(name)}<small>{_text(label)}</small></figcaption></figure>"
    )


# -- the table -------------------------------------------------------------------------------------

_HEADS = ("tensor", "what", "type", "update", "change", "cosine", "largest", "stores")


def _table(found: Comparison) -> str:
    """All tensors that changed, sorted and searched in the browser."""
    if not found.changes:
        return ""
    rows = [list(_row(change)) for change in found.changes]
    # `</` would end the script element, whatever the JSON says; every string in it is printable.
    data = json.dumps(rows, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")
    cells = "".join(
        f'<th scope="col"><button type="button" data-column="{at}">{head}</button></th>'
        for at, head in enumerate(_HEADS)
    )
    return (
        '<h3>Tensors</h3><p class="search"><label>search <input type="search" '
        'placeholder="query layer.3 low-rank" autocomplete="off" spellcheck="false"></label> '
        '<output></output></p><div class="scroll tall"><table>'
        f"<thead><tr>{cells}</tr></thead><tbody></tbody></table></div>"
        f'<script type="application/json">{data}</script>'
    )


def _row(change: Change) -> Iterator[object]:
    """A row: name, what happened, type, update, then numbers, or None where there is none."""
    tensor = change.new or change.old
    measure = change.measure
    what = relation(change) or [change.status]
    if change.lacking is not None:
        what.append(f"values not available: {change.lacking}")
    if measure is not None and measure.not_finite:
        new = "" if change.old is None else "new "
        what = [f"{measure.not_finite:,} {new}NaN or infinite", *what]
    yield printable(change.name)
    yield ", ".join(what)
    yield "" if tensor is None else described(tensor)
    remarks = (f"{key}={value}" for key, value in change.info if key != "change")
    yield printable(" ".join([change.kind or "", *remarks]))
    numbers = (None, None, None) if measure is None or not measure.old.count else (
        measure.relative, measure.cosine, measure.largest
    )  # fmt: skip
    for number in numbers:
        yield None if number is None or not math.isfinite(number) else float(f"{number:.4g}")
    yield change.stored


def _quantised(found: Comparison) -> str:
    """What became of quantised weights, as one value each."""
    rows = quantised.rows(found)
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td>{_text(row.name)}</td><td>{row.count:,}</td><td>{_text(row.words)}</td></tr>"
        for row in rows
    )
    return (
        '<h3>Quantised weights</h3><div class="scroll tall"><table class="wrap">'
        '<thead><tr><th scope="col">weight</th><th scope="col">number</th>'
        f'<th scope="col">what</th></tr></thead><tbody>{cells}</tbody></table></div>'
    )


def _outside(found: Comparison) -> str:
    if not found.notes:
        return ""
    rows = "".join(
        f"<tr><td>{_text(note.name)}</td><td>{_text(note.old or '')}</td>"
        f"<td>{_text(note.new or '')}</td></tr>"
        for note in found.notes
    )
    return (
        '<h3>Outside the tensors</h3><div class="scroll tall"><table class="wrap">'
        '<thead><tr><th scope="col">what</th><th scope="col">before</th>'
        f'<th scope="col">after</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )
