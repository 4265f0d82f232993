"""A comparison as lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator

from git_theta_ext.diff.compare import Change, Comparison
from git_theta_ext.tensors import TensorInfo

MAX_LINES = 400
"""Tensors listed; the rest is counted."""
_COLOURS = {"added": "\x1b[32m", "removed": "\x1b[31m", "changed": "", "renamed": "\x1b[36m"}
_ALARM, _BOLD, _END = "\x1b[1;31m", "\x1b[1m", "\x1b[m"
_SIGNS = {"added": "+", "removed": "-", "changed": "~", "renamed": ">"}


def render(path: str, comparison: Comparison, colour: bool = False) -> Iterator[str]:
    """A summary line for the file, then a line for each tensor that differs."""
    head = "  ".join([shown(path), _summary(comparison)])
    yield f"{_BOLD}{head}{_END}" if colour else head
    changes = comparison.changes[:MAX_LINES]
    names = max((len(_names(change)) for change in changes), default=0)
    types = max((len(_type(change)) for change in changes), default=0)
    for change in changes:
        yield _line(change, min(names, 64), min(types, 40), colour)
    if len(comparison.changes) > len(changes):
        yield f"  … and {len(comparison.changes) - len(changes):,} more tensors"
    if comparison.old_format and comparison.new_format != comparison.old_format:
        yield f"  container: {comparison.old_format} → {comparison.new_format or 'none'}"
    elif comparison.structure_changed:
        yield "  structure changed: metadata, order of the tensors, or what is pickled with them"


def _summary(comparison: Comparison) -> str:
    differing = len(comparison.changes)
    parts = []
    if comparison.old_format is None:
        parts.append(f"new, {_count(comparison.tensors, 'tensor')}")
        parts.append(f"{magnitude(comparison.parameters)} parameters")
    elif comparison.new_format is None:
        parts.append(f"deleted, {_count(comparison.tensors, 'tensor')}")
    else:
        parts.append(f"{differing:,} of {_count(comparison.tensors, 'tensor')} changed")
        parts.append(
            f"{magnitude(comparison.changed_parameters)} of {magnitude(comparison.parameters)} "
            "parameters"
        )
    if comparison.stored:
        parts.append(f"stores {size(comparison.stored)}")
    return " · ".join(parts)


def _line(change: Change, names: int, types: int, colour: bool) -> str:
    details = list(_details(change))
    alarm = change.measure is not None and change.measure.not_finite > 0
    sign = "!" if alarm else _SIGNS[change.status]
    text = f"  {sign} {_names(change):{names}}  {_type(change):{types}}  {'   '.join(details)}"
    text = text.rstrip()
    if not colour:
        return text
    start = _ALARM if alarm else _COLOURS[change.status]
    return f"{start}{text}{_END}" if start else text


def _names(change: Change) -> str:
    if change.status == "renamed" and change.old is not None:
        return f"{shown(change.old.name)} → {shown(change.name)}"
    return shown(change.name)


def _type(change: Change) -> str:
    then, now = change.old, change.new
    if then is None or now is None or (then.dtype, then.shape) == (now.dtype, now.shape):
        tensor = now or then
        return "" if tensor is None else _described(tensor)
    return f"{_described(then)} → {_described(now)}"


def _described(tensor: TensorInfo) -> str:
    return f"{tensor.dtype.name} [{', '.join(map(str, tensor.shape))}]"


def _details(change: Change) -> Iterator[str]:
    then, now, measure = change.old, change.new, change.measure
    if then is not None and now is not None:
        if then.dtype != now.dtype:
            yield "retyped"
        if then.shape != now.shape:
            yield "reshaped"
        elif then.order != now.order:
            yield "reordered"
    if change.status == "renamed":
        yield "renamed"
    if change.kind is not None and change.status == "changed":
        yield change.kind
    if measure is not None and now is not None:
        if measure.relative is not None:
            yield f"change {100 * measure.relative:.2g} %"
        if measure.not_finite:
            yield f"{measure.not_finite:,} new NaN or infinite"
        if 2 * measure.changed < now.count:
            yield f"{_count(measure.changed, 'entry', 'entries')} of {now.count:,}"
    if change.stored:
        yield f"stores {size(change.stored)}"


def shown(name: str) -> str:
    """A name as it may be printed: control and direction-changing characters are escaped."""
    return name if name.isprintable() else json.dumps(name)[1:-1]


def size(count: int) -> str:
    """Bytes for a reader: `24.8 kB`, `1.2 MB` (powers of 1000, as disks and hosts count)."""
    if count < 1000:
        return f"{count} B"
    amount, unit = _scaled(count, ("kB", "MB", "GB", "TB"))
    return f"{amount:.1f} {unit}" if amount < 99.95 else f"{amount:.0f} {unit}"


def magnitude(count: int) -> str:
    """A number for a reader: `950`, `10.7 M`, `7.2 B`."""
    if count < 10_000:
        return f"{count:,}"
    amount, unit = _scaled(count, ("k", "M", "B", "T"))
    return f"{amount:.1f} {unit}"


def _scaled(count: int, units: tuple[str, ...]) -> tuple[float, str]:
    """A number of at least 1000 in the first unit that fits; each is a thousand of the last."""
    steps = 1
    while steps < len(units) and count >= 999.5 * 1000**steps:
        steps += 1
    return count / 1000**steps, units[steps - 1]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
