"""Which parameter of an optimizer is which tensor of the model: proven by order and shapes.

PyTorch numbers the parameters of each group in the order in which the module lists them. A group
has some of them (those without weight decay are often a group of their own), and frozen ones are
in no group. So every group is a part of the module's list, in its order. All ways to deal out the
list that fit the shapes are looked at together; a parameter that is not the same tensor in all of
them is ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from git_theta_ext.checkpoints.optimizers.file import Shape

_STATES = 1_000_000
"""Places in groups that are looked at, over all ways, before it counts as ambiguous."""

_TOLD = 5
"""Tensors that are kept for a place that several fit."""

_NO_DECAY = re.compile(
    r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)|(?:^|\.)ln_?\w*(?:$|\.)", re.I
)
"""What transformers' Trainer gives no weight decay (`get_decay_parameter_names`), by name."""

Slot = tuple[int, int]
"""A group, and a place in it."""

State = tuple[int, ...]


def by_order(
    groups: Sequence[Sequence[Shape | None]], order: Sequence[Shape | None]
) -> dict[Slot, set[int]] | None:
    """For every place of every group: which of `order` it can be.

    Args:
        groups: the shapes of each group's parameters; None where a shape is not known.
        order: the shapes of the module's tensors, in its order.

    Returns:
        Nothing for a place if no way fits at all; None if there are too many to look at.
    """
    goal = tuple(len(group) for group in groups)
    spare = len(order) - sum(goal)
    layers: list[set[State]] = [{tuple(0 for _ in groups)}]
    total = 0
    for count, shape in enumerate(order):
        reached: set[State] = set()
        for state in layers[-1]:
            reached |= {after for _, after in _ways(groups, goal, state, shape)}
            if count + 1 - sum(state) <= spare:
                reached.add(state)
        layers.append(reached)
        total += len(reached) * len(groups)
        if total > _STATES:
            return None
    found: dict[Slot, set[int]] = {
        (number, place): set() for number, group in enumerate(groups) for place in range(len(group))
    }
    alive = layers[-1] & {goal}
    for count in range(len(order) - 1, -1, -1):
        before: set[State] = set()
        for state in layers[count]:
            if state in alive:
                before.add(state)
            for number, after in _ways(groups, goal, state, order[count]):
                if after in alive:
                    before.add(state)
                    found[number, state[number]].add(count)
        alive = before
    return found


def _ways(
    groups: Sequence[Sequence[Shape | None]], goal: State, state: State, shape: Shape | None
) -> Iterator[tuple[int, State]]:
    """Each group whose next parameter may have this shape, and what is dealt out then."""
    for number, place in enumerate(state):
        if place == goal[number]:
            continue
        wanted = groups[number][place]
        if wanted is None or shape is None or wanted == shape:
            yield number, (*state[:number], place + 1, *state[number + 1 :])


def by_shape(
    groups: Sequence[Sequence[Shape | None]], shapes: Sequence[Shape]
) -> dict[Slot, set[int]]:
    """As `by_order`, where no order is known: only a shape that both sides have once is proof.

    Of several tensors that fit, some are given.
    """
    at: dict[Shape, list[int]] = {}
    for number, shape in enumerate(shapes):
        at.setdefault(shape, []).append(number)
    return {
        (number, place): set(at.get(shape, [])[:_TOLD]) if shape is not None else set()
        for number, group in enumerate(groups)
        for place, shape in enumerate(group)
    }


def undecided(found: dict[Slot, set[int]]) -> list[Slot]:
    """The places that can be several tensors, none, or one that another place can be as well."""
    taken: dict[int, int] = {}
    for ways in found.values():
        for one in ways:
            taken[one] = taken.get(one, 0) + 1
    return [
        slot for slot, ways in found.items() if len(ways) != 1 or any(taken[w] > 1 for w in ways)
    ]


def by_decay(
    groups: Sequence[Sequence[Shape | None]],
    names: Sequence[str],
    shapes: Sequence[Shape | None],
    without: Sequence[int],
) -> dict[Slot, set[int]] | None:
    """The two groups that transformers' Trainer makes, if every shape fits; else None.

    Args:
        groups: the shapes of each group's parameters.
        names: the module's tensors, in its order.
        shapes: theirs.
        without: the groups that have no weight decay.
    """
    if len(groups) != 2 or len(without) != 1 or sum(map(len, groups)) != len(names):
        return None
    found: dict[Slot, set[int]] = {}
    places = [0, 0]
    for at, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        plain = _NO_DECAY.search(name) is not None
        group = without[0] if plain else 1 - without[0]
        place = places[group]
        places[group] += 1
        if place >= len(groups[group]) or groups[group][place] not in (None, shape):
            return None
        found[group, place] = {at}
    return found
