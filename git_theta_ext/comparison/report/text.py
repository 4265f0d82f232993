"""A comparison as lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from git_theta_ext.comparison.compare import Change, Comparison, Spectrum
from git_theta_ext.comparison.measure import Measure, histogram
from git_theta_ext.comparison.report import quantised
from git_theta_ext.comparison.report.groups import Group, group, weight
from git_theta_ext.comparison.report.words import conversion, relation, rounded
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.core.terminal import ALARM, BOLD, CYAN, DIM, END, GREEN, RED
from git_theta_ext.core.text import plural, printable, size

MAX_LINES = 400
"""Groups of tensors listed; the rest is counted."""
_COLOURS = {"added": GREEN, "removed": RED, "changed": "", "renamed": CYAN}
_SIGNS = {"added": "+", "removed": "-", "changed": "~", "renamed": ">"}
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=+*#@"


@dataclass(frozen=True, slots=True)
class Style:
    """How to write: with colours, and with characters beyond ASCII."""

    colour: bool = False
    unicode: bool = True

    def paint(self, start: str, text: str) -> str:
        """`text` in a colour, where colours are wanted."""
        return f"{start}{text}{END}" if self.colour and start else text


def render(
    path: str,
    comparison: Comparison,
    style: Style = Style(),
    *,
    brief: bool = False,
    grouped: bool = True,
    by_name: bool = False,
) -> Iterator[str]:
    """A summary line for the file, then what happened to each group of tensors.

    Args:
        path: what to call the checkpoint.
        comparison: what differs.
        style: colours and characters.
        brief: one line for each group, without the numbers of its values.
        grouped: put tensors that changed alike together, what matters first; else each stands
            alone, in the order of the comparison.
        by_name: the groups in the order of their names.
    """
    yield style.paint(BOLD, "  ".join([printable(path), summary(comparison)]))
    alone = [Group(change.name, (change,)) for change in comparison.changes]
    groups = group(comparison.changes) if grouped else alone
    if grouped and not by_name:
        groups.sort(key=weight)
    listed = groups[:MAX_LINES]
    names = min(64, max((len(_name(one)) for one in listed), default=0))
    for one in listed:
        yield _line(one, names, style)
        if not brief:
            yield from _numbers(one, style)
    if len(groups) > len(listed):
        rest = sum(len(one.changes) for one in groups[MAX_LINES:])
        yield f"  … and {plural(rest, 'more tensor')}"
    yield from _quantised(comparison, style)
    yield from _outside(comparison, style)


def summary(comparison: Comparison) -> str:
    """What happened to the file, in one line."""
    parts = []
    if comparison.renamed_from is not None:
        parts.append(f"was {printable(comparison.renamed_from)}")
    if not comparison.compared:
        return " · ".join([*parts, *comparison.remarks])
    if comparison.old_format is None:
        parts.append(f"new, {plural(comparison.tensors, 'tensor')}")
        parts.append(f"{magnitude(comparison.parameters)} parameters")
    elif comparison.new_format is None:
        parts.append(f"deleted, {plural(comparison.tensors, 'tensor')}")
    else:
        parts.append(
            f"{len(comparison.changes):,} of {plural(comparison.tensors, 'tensor')} changed"
        )
        parts.append(
            f"{magnitude(comparison.changed_parameters)} of {magnitude(comparison.parameters)} "
            "parameters"
        )
        if (words := conversion(comparison.changes)) is not None:
            parts.append(words)
        if (moved := comparison.measure.relative) is not None:
            parts.append(f"change {percentage(moved)}")
    if comparison.stored:
        parts.append(f"stores {size(comparison.stored)} of {size(comparison.size)}")
    return " · ".join([*parts, *comparison.remarks])


def _line(one: Group, names: int, style: Style) -> str:
    first = one.changes[0]
    alarm = _alarm(one)
    sign = "!" if alarm else _SIGNS[first.status]
    times = f"{len(one.changes):,} × " if len(one.changes) > 1 else ""
    facts = [times + _type(first), *_facts(one)]
    text = f"  {sign} {_name(one):{names}}  {'   '.join(facts)}".rstrip()
    return style.paint(ALARM if alarm else _COLOURS[first.status], text)


def _name(one: Group) -> str:
    first = one.changes[0]
    if first.status == "renamed" and first.old is not None:
        return f"{printable(first.old.name)} → {printable(first.name)}"
    return printable(one.name)


def _alarm(one: Group) -> bool:
    return any(change.measure and change.measure.not_finite for change in one.changes)


def _facts(one: Group) -> Iterator[str]:
    """What happened, in words: retyped, reshaped, the kind of update, what it stores."""
    first = one.changes[0]
    yield from relation(first)
    if first.kind is not None and first.status == "changed":
        remarks = {change.info for change in one.changes}
        plain = [f"{k}={v}" for k, v in first.info if k != "change"] if len(remarks) == 1 else []
        if len(remarks) > 1:
            plain = _common(one.changes)
        yield printable(" ".join([first.kind, *plain]))
    stored = sum(change.stored for change in one.changes)
    if stored:
        yield f"stores {size(stored)}"


def _common(changes: Sequence[Change]) -> list[str]:
    """The remarks that all updates share, and the range of those in which they differ."""
    keys = [key for key, _ in changes[0].info if key != "change"]
    found = []
    for key in keys:
        values = [dict(change.info).get(key) for change in changes]
        if len(set(values)) == 1:
            found.append(f"{key}={values[0]}")
    return found


def _numbers(one: Group, style: Style) -> Iterator[str]:
    """How the values moved, on a line of their own; nothing where none were compared."""
    measures = [change.measure for change in one.changes if change.measure is not None]
    if not measures or one.changes[0].new is None:
        return
    whole = sum(measures, Measure())
    parts = [*_moved(one, measures), *_entries(one, measures)]
    if whole.largest > 0:
        bars = spark(histogram(whole.sample, whole.largest), style.unicode)
        at = ""
        if len(measures) == 1 and whole.largest_at is not None:
            at = f" at {position(whole.largest_at, one.changes[0].new)}"
        parts.append(f"Δ {bars} ±{whole.largest:.2g}{at}")
    if whole.old.mean is not None and whole.new.mean is not None and len(measures) == 1:
        parts.append(_before_after("mean", whole.old.mean, whole.new.mean))
        parts.append(_before_after("std", whole.old.std or 0.0, whole.new.std or 0.0))
    if whole.grown.mean is not None:
        name = "added: mean" if one.changes[0].old is not None else "mean"
        parts += [f"{name} {whole.grown.mean:.3g}", f"std {whole.grown.std or 0.0:.3g}"]
    if parts:
        yield style.paint(DIM, f"      {'   '.join(parts)}")
    for change in one.changes:
        if change.spectrum is not None:
            name = f"{printable(change.name)}: " if len(one.changes) > 1 else ""
            yield style.paint(DIM, f"      {name}{singular(change.spectrum, style.unicode)}")
    for change in one.changes:
        if change.measure is not None and change.measure.not_finite and change.new is not None:
            where = position(change.measure.not_finite_at or 0, change.new)
            new = "" if change.old is None else "new "
            text = f"{change.measure.not_finite:,} {new}NaN or infinite, the first at {where}"
            yield style.paint(ALARM, f"      {printable(change.name)}: {text}")


def _moved(group: Group, measures: Sequence[Measure]) -> Iterator[str]:
    moved = [one.relative for one in measures if one.relative is not None]
    if not any(moved) and not any(one.changed for one in measures):
        return
    if moved:
        low, high = percentage(min(moved)), percentage(max(moved))
        name = "rounding" if rounded(group.changes[0]) else "change"
        yield f"{name} {low}" if low == high else f"{name} {low} … {high}"
    cosines = [one.cosine for one in measures if one.cosine is not None]
    if cosines:
        yield f"cos {min(cosines):.4f}"


def _entries(one: Group, measures: Sequence[Measure]) -> Iterator[str]:
    changed = sum(measure.changed for measure in measures)
    count = sum(change.count for change in one.changes)
    if 0 < 2 * changed < count:
        yield f"{plural(changed, 'entry', 'entries')} of {count:,}"


def _before_after(name: str, old: float, new: float) -> str:
    a, b = f"{old:.3g}", f"{new:.3g}"
    return f"{name} {a}" if a == b else f"{name} {a} → {b}"


def singular(spectrum: Spectrum, unicode: bool = True) -> str:
    """Singular values in a line: the largest ones, and how they fall off."""
    values = spectrum.values
    tops = ", ".join(f"{value:.3g}" for value in values[:4])
    bars = spark([math.ceil(1000 * value / values[0]) for value in values], unicode)
    about = "about " if spectrum.estimated else ""
    part = " of its low-rank part" if spectrum.partial else ""
    return f"singular values{part} {about}{tops}{', …' if len(values) > 4 else ''} {bars}"


def position(flat: int, tensor: TensorInfo) -> str:
    """A flat index, in memory order, as the indices of the tensor's axes."""
    if not tensor.shape:
        return "[]"
    indices = []
    for length in reversed(tensor.memory_shape):
        flat, index = divmod(flat, length or 1)
        indices.append(index)
    indices.reverse()
    if tensor.order is not None:
        placed = dict(zip(tensor.order, indices, strict=True))
        indices = [placed[axis] for axis in range(len(indices))]
    return str(indices)


def spark(counts: Sequence[int], unicode: bool = True) -> str:
    """Counts as a row of bars; the highest is full, a bar is drawn wherever there is any."""
    bars = _BARS if unicode else _ASCII_BARS
    top = max(counts, default=0)
    return "".join(
        " " if not count else bars[math.ceil(count / top * len(bars)) - 1] for count in counts
    )


def _quantised(comparison: Comparison, style: Style) -> Iterator[str]:
    """What became of quantised weights, each of which is several tensors, or one of blocks."""
    found = quantised.rows(comparison)
    names = min(64, max((len(printable(row.name)) for row in found), default=0))
    sign = "≈" if style.unicode else "="
    for row in found[:MAX_LINES]:
        times = f"{row.count:,} × " if row.count > 1 else ""
        yield f"  {sign} {printable(row.name):{names}}  {times}{printable(row.words)}"
    if len(found) > MAX_LINES:
        yield f"  … and {sum(row.count for row in found[MAX_LINES:]):,} more quantised weights"


def _outside(comparison: Comparison, style: Style) -> Iterator[str]:
    """What differs outside the tensors."""
    if comparison.old_format is None or comparison.new_format is None:
        return
    if comparison.new_format != comparison.old_format:
        then, now = printable(comparison.old_format), printable(comparison.new_format)
        yield f"    container  {then} → {now}"
    width = min(40, max((len(printable(note.name)) for note in comparison.notes), default=0))
    for note in comparison.notes[:MAX_LINES]:
        old, new = (None if text is None else printable(text) for text in (note.old, note.new))
        name = f"{printable(note.name):{width}}"
        if old is None:
            yield style.paint(_COLOURS["added"], f"  + {name}  {new}")
        elif new is None:
            yield style.paint(_COLOURS["removed"], f"  - {name}  {old}")
        else:
            yield f"    {name}  {old} → {new}"
    if comparison.structure_changed and not comparison.notes and not comparison.changes:
        yield "    structure changed: padding, or order or encoding of bytes outside the tensors"


def _type(change: Change) -> str:
    then, now = change.old, change.new
    if then is None or now is None or (then.dtype, then.shape) == (now.dtype, now.shape):
        tensor = now or then
        return "" if tensor is None else described(tensor)
    if then.dtype == now.dtype:
        return f"{now.dtype.name} {_shape(then)} → {_shape(now)}"
    return f"{described(then)} → {described(now)}"


def described(tensor: TensorInfo) -> str:
    """`F32 [384, 384]`."""
    return f"{tensor.dtype.name} {_shape(tensor)}"


def _shape(tensor: TensorInfo) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"


def percentage(share: float) -> str:
    """`0.94 %`, `130 %`, `2.1e-06 %`: two digits that count."""
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 100 else f"{percent:.2g} %"


def magnitude(count: int) -> str:
    """A number for a reader: `950`, `10.7 M`, `7.2 B`."""
    if count < 10_000:
        return f"{count:,}"
    amount = float(count)
    for unit in ("k", "M", "B", "T"):
        amount /= 1000
        if amount < 999.5 or unit == "T":
            break
    return f"{amount:.1f} {unit}"
