"""Tensors that changed alike, under one name with braces: `layer.{0..5}.{query,value}.weight`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from git_theta_ext.comparison.compare import Change
from git_theta_ext.comparison.report.words import is_training_state, relation
from git_theta_ext.core.braces import fold
from git_theta_ext.core.names import natural_key


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
