"""Quantised weights that differ, in words: those that did so alike under one name with braces."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from git_theta_ext.checkpoints.coupled.schemes import Scheme
from git_theta_ext.comparison.compare import Comparison
from git_theta_ext.comparison.quantised import Requantised
from git_theta_ext.core.braces import fold
from git_theta_ext.core.names import natural_key

_MOVED = {"quantised": "error", "dequantised": "change", "re-quantised": "dequantised change"}


@dataclass(frozen=True, slots=True)
class Row:
    """Some weights: their name, how many they are, and what became of them."""

    name: str
    count: int
    words: str


def rows(found: Comparison) -> list[Row]:
    """A row for the weights that were treated alike, in the order of their names."""
    alike: dict[Hashable, list[Requantised]] = {}
    for one in found.quantised:
        key = one.verb, one.old, one.new, one.unmeasured, one.measure is None
        alike.setdefault(key, []).append(one)
    made = []
    for members in alike.values():
        named = {one.name: one for one in members}
        made += [
            Row(name, len(names), "; ".join(_words([named[one] for one in names])))
            for name, names in fold(named)
        ]
    return sorted(made, key=lambda row: natural_key(row.name))


def _words(alike: Sequence[Requantised]) -> Iterator[str]:
    """`GPTQ, 4-bit, groups of 128, re-quantised`, then `dequantised change 0.4 %`."""
    one = alike[0]
    ends = [_end(scheme) for scheme in (one.old, one.new) if scheme is not None]
    yield f"{' → '.join(dict.fromkeys(ends))}, {one.verb}"
    moved = [
        change.measure.relative
        for change in alike
        if change.measure is not None and change.measure.relative is not None
    ]
    if moved:
        low, high = _percentage(min(moved)), _percentage(max(moved))
        yield f"{_MOVED[one.verb]} {low if low == high else f'{low} … {high}'}"
    elif one.unmeasured is not None:
        yield f"not dequantised: {one.unmeasured}"


def _percentage(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 100 else f"{percent:.2g} %"


def _end(scheme: Scheme | str) -> str:
    return scheme if isinstance(scheme, str) else scheme.words


def records(found: Comparison) -> list[dict[str, Any]]:
    """One record for each weight; every key is documented in `docs/commands/diff.md`."""
    return [
        {
            "name": one.name,
            "what": one.verb,
            "old": _record(one.old),
            "new": _record(one.new),
            "change": None if one.measure is None else one.measure.relative,
            "unmeasured": one.unmeasured,
        }
        for one in found.quantised
    ]


def _record(end: Scheme | str | None) -> dict[str, Any] | None:
    if end is None:
        return None
    if isinstance(end, str):
        return {"dtype": end}
    return {"kind": end.kind, "bits": end.bits, "group": end.group, "words": end.words}
