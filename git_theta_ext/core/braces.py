"""Many names under few, with braces: `layer.{0..5}.{query,value}.weight`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from git_theta_ext.core.names import natural_key

_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
"""A number as it would be written again: `01` is a name of its own."""

_MAX_CHOICES = 6
"""Alternatives listed between braces; more are counted."""

Parts = tuple[frozenset[str], ...]


def fold(names: Iterable[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Names under fewer names with braces: merged where they agree in all parts but one.

    Part by part, until none do. Each name with braces stands for exactly those behind it.
    """
    found: dict[Parts, list[str]] = {
        tuple(frozenset([part]) for part in name.split(".")): [name] for name in names
    }
    depth = max((len(parts) for parts in found), default=0)
    for position in range(depth):
        found = _merged(found, position)
    return [(_shown(parts), tuple(members)) for parts, members in found.items()]


def _merged(found: dict[Parts, list[str]], position: int) -> dict[Parts, list[str]]:
    buckets: dict[tuple[Parts, Parts, int], tuple[set[str], list[str]]] = {}
    for parts, members in found.items():
        if position >= len(parts):
            buckets[parts, (), len(parts)] = (set(), members)
            continue
        rest = (parts[:position], parts[position + 1 :], len(parts))
        choices, together = buckets.setdefault(rest, (set(), []))
        choices |= parts[position]
        together += members
    merged = {}
    for (before, after, _), (choices, members) in buckets.items():
        parts = (*before, frozenset(choices), *after) if choices else before
        merged[parts] = members
    return merged


def _shown(parts: Parts) -> str:
    return ".".join(_choices(part) for part in parts)


def _choices(part: frozenset[str]) -> str:
    names = sorted(part, key=natural_key)
    if len(names) == 1:
        return names[0]
    if all(_NUMBER.fullmatch(name) for name in names):
        return "{" + ",".join(_runs([int(name) for name in names])) + "}"
    more = [f"… {len(names) - _MAX_CHOICES} more"] if len(names) > _MAX_CHOICES else []
    return "{" + ",".join([*names[:_MAX_CHOICES], *more]) + "}"


def _runs(numbers: Sequence[int]) -> list[str]:
    """`0..3`, `5`: consecutive numbers as ranges."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [f"{a}" if a == b else f"{a},{b}" if b == a + 1 else f"{a}..{b}" for a, b in runs]
