"""Tensors that changed alike, under one name with braces: `layer.{0..5}.{query,value}.weight`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from git_theta_ext.core.names import natural_key
from git_theta_ext.diff.compare import Change
from git_theta_ext.diff.report.words import is_training_state, relation

_MAX_CHOICES = 6
"""Alternatives listed between braces; more are counted."""

Parts = tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Changes that are shown together; `name` stands for the names of all of them."""

    name: str
    changes: tuple[Change, ...]


def group(changes: Iterable[Change]) -> list[Group]:
    """Put changes together whose names differ in a few parts and that are otherwise alike.

    Alike: the same status, element types, shapes and kind of update, with or without new NaN, and
    in what a new type or shape left as it was.
    A group stands for exactly the names that its braces list. Order: that of the first change.
    """
    alike: dict[Hashable, list[Change]] = {}
    for change in changes:
        alike.setdefault(_key(change), []).append(change)
    groups = []
    for members in alike.values():
        named = {change.name: change for change in members}
        groups += [Group(name, tuple(named[one] for one in found)) for name, found in fold(named)]
    return sorted(groups, key=lambda one: natural_key(one.changes[0].name))


def weight(one: Group) -> tuple[int, float, tuple[object, ...]]:
    """What matters first: alarms, then tensors that came or went, then by how far they moved.

    To sort groups by; those that moved alike stand in the order of their names. What only training
    needs (the state of an optimizer) comes after the model.
    """
    measures = [change.measure for change in one.changes if change.measure is not None]
    key = natural_key(one.changes[0].name)
    if any(measure.not_finite for measure in measures):
        return (0, 0.0, key)
    after = 2 if is_training_state(one.changes[0].name) else 0
    if one.changes[0].status != "changed" or not measures:
        return (1 + after, 0.0, key)
    return (2 + after, -max(measure.relative or 0.0 for measure in measures), key)


def _key(change: Change) -> Hashable:
    tensors = tuple(
        None if tensor is None else (tensor.dtype.name, tensor.shape)
        for tensor in (change.old, change.new)
    )
    alarm = change.measure is not None and change.measure.not_finite > 0
    alone = change.name if change.status == "renamed" else None
    unread = change.lacking is not None
    return change.status, tensors, change.kind, alarm, alone, unread, tuple(relation(change))


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
    if all(name.isdecimal() and name.isascii() for name in names):
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
