"""Decide coupled groups: whole from the side that changed them, or one conflict with one reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from git_theta_ext.checkpoints.adapters.peft_config import CONFIG
from git_theta_ext.core.names import natural_key
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.merge.decide.blends import Blend
from git_theta_ext.merge.decide.decisions import Action, Decision, Side, content_of, entries_of
from git_theta_ext.merge.decide.groups import Group
from git_theta_ext.merge.decide.kinds import Kind
from git_theta_ext.merge.decide.products import (
    STRATEGIES,
    other_scaling,
    plain_alone,
    plan_blend,
)
from git_theta_ext.merge.decide.scaling import GROWS, Scalings, Unknown
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice

SIDES: tuple[Side, ...] = ("ours", "theirs", "base")
_KINDS: Mapping[str, Kind] = {"training": "optimizer", "factors": "weights", "renamed": "weights"}
_SHOWN = 3
BLENDS_PRODUCT = "; average blends the product"
"""In the reason of factors that strategies can settle which are a weighted sum."""

Versions = Mapping[Side, Mapping[str, Entry]]


@dataclass(slots=True)
class Settled:
    """What deciding the groups gave besides the decisions.

    `side` is the version whose skeleton must stand because a contested group has a part in it, or
    None, and `label` that group. `blends` are products of factors, by the leaders of their groups.
    """

    side: Side | None = None
    label: str = ""
    blends: dict[str, Blend] = field(default_factory=dict)


def settle_groups(
    decisions: dict[str, Decision],
    groups: Sequence[Group],
    manifests: tuple[Manifest | None, Manifest, Manifest],
    choose: Callable[[str], Choice],
    scalings: Scalings,
) -> Settled:
    """Replace the decisions of the members of groups that both sides changed.

    Args:
        decisions: of every tensor, made as if it stood alone.
        groups: of these three versions.
        manifests: base, ours and theirs.
        choose: gives the strategy for each tensor.
        scalings: what an adapter's configuration says of its factors.
    """
    base, ours, theirs = manifests
    tables: Versions = {
        "base": entries_of(base), "ours": entries_of(ours), "theirs": entries_of(theirs)
    }  # fmt: skip
    settled = Settled()
    for group in groups:
        kind = _KINDS.get(group.kind, "quantised")
        for name in group.members:
            decisions[name] = replace(decisions[name], kind=kind, leader=group.leader)
        states = [
            state_of(group, base, tables["base"]),
            state_of(group, ours, tables["ours"]),
            state_of(group, theirs, tables["theirs"]),
        ]
        if states[1] == states[2] or (base is not None and states[0] in states[1:]):
            continue
        if group.kind == "factors":
            choices = set(map(choose, group.members))
            blended = _blended(decisions, group, tables, choices, scalings)
            if isinstance(blended, Blend):
                settled.blends[group.leader] = blended
            if blended:
                continue
        side = _settle(decisions, group, tables, choose)
        if group.kind == "factors":
            _say_what_blends(decisions, group, tables, choices, scalings)
            _say_what_scales(decisions, group, tables, side, scalings)
        if group.holds and side is not None:
            settled.side, settled.label = side, group.label
    return settled


def state_of(
    group: Group, manifest: Manifest | None, table: Mapping[str, Entry]
) -> tuple[object, ...]:
    """What is equal of a group in two versions exactly if all of it is."""
    entries = (table.get(name) for name in group.members)
    contents = [None if entry is None else content_of(entry) for entry in entries]
    if group.holds == "belongs" and manifest is not None:
        contents.append((manifest.skeleton.sha256,))
    return tuple(contents)


def _settle(
    decisions: dict[str, Decision],
    group: Group,
    tables: Versions,
    choose: Callable[[str], Choice],
) -> Side | None:
    """Decide a contested group; the side whose skeleton is to stand, or None if any may."""
    choices = {name: choose(name) for name in group.members}
    named = {one.strategy for one in choices.values()}
    sides = named_sides(choices.values())
    if len(sides) == 1 and (sides[0] != "base" or tables["base"]):
        for name in group.members:
            decisions[name] = taken(decisions[name], sides[0], tables[sides[0]].get(name))
        return sides[0]
    if group.kind == "training" and named == {"zero"} and _reset(decisions, group):
        return None
    why = reason_of(group, len(sides) > 1)
    for name in group.members:
        if group.kind == "renamed" and decisions[name].action in ("ours", "theirs"):
            continue  # what one side added stands while it is open what becomes of the old one
        mine = tables["ours"].get(name)
        decisions[name] = replace(
            decisions[name],
            action="open",
            standing=mine.tensor if mine else None,
            choice=CONFLICT,
            reason=why if name == group.leader else "",
        )
    return "ours"


def _blended(
    decisions: dict[str, Decision],
    group: Group,
    tables: Versions,
    choices: set[Choice],
    scalings: Scalings,
) -> Blend | bool:
    """Decide factors that the strategy chosen for them blends by their product, if it does.

    Returns:
        The blend, or True where the one that changed may be merged by itself.
    """
    if len(choices) > 1:
        return False
    (choice,) = choices
    versions = [tables[side] for side in SIDES]
    name = group.leader
    if decisions[name].action == "merge" and (
        plain_alone(group.members, versions, choice, scalings) is True
    ):
        decisions[name] = replace(decisions[name], leader="")
        return True
    found = plan_blend(group.members, versions, choice, scalings)
    if not isinstance(found, Blend):
        return False
    for tensor in (found.left, found.right):
        decisions[tensor.name] = replace(
            decisions[tensor.name], action="merge", choice=choice, standing=tensor, reason=""
        )
    return found


def _say_what_blends(
    decisions: dict[str, Decision],
    group: Group,
    tables: Versions,
    choices: set[Choice],
    scalings: Scalings,
) -> None:
    """Add to the reason of open factors that their product can be blended, or why not."""
    one = decisions[group.leader]
    if one.action != "open" or not one.reason:
        return
    mean = Choice("average")
    if len(choices) == 1 and (chosen := next(iter(choices))).strategy in STRATEGIES:
        mean = chosen
    versions = [tables[side] for side in SIDES]
    found = plan_blend(group.members, versions, mean, scalings) or plain_alone(
        group.members, versions, mean, scalings
    )
    more = ""
    if isinstance(found, Unknown):
        more = f"; their product cannot be blended: {found.why}"
        if found.why == GROWS:
            one = replace(one, choice=mean)
    elif isinstance(found, Blend):
        more = f"{BLENDS_PRODUCT} and cuts it to rank {found.rank:,}"
    elif found:
        more = BLENDS_PRODUCT
    decisions[group.leader] = replace(one, reason=one.reason + more)


def _say_what_scales(
    decisions: dict[str, Decision],
    group: Group,
    tables: Versions,
    side: Side | None,
    scalings: Scalings,
) -> None:
    """Warn of factors taken from a side whose configuration is not the one that the merge has."""
    one = decisions[group.leader]
    if side is None or one.action == "open":
        return
    why = other_scaling(
        group.members, [tables[name] for name in SIDES], SIDES.index(side), scalings
    )
    if why:
        warning = f"factors are taken from {side}, but {why}; take {CONFIG} of {side} too"
        decisions[group.leader] = replace(one, warning=warning)


def named_sides(choices: Iterable[Choice]) -> list[Side]:
    """The sides that some strategies name; those that compute anything name none."""
    named = {one.strategy for one in choices}
    return [side for side in SIDES if side in named]


def taken(decision: Decision, side: Side, entry: Entry | None) -> Decision:
    """The decision to take a tensor from a side, or to drop it where that side lacks it."""
    action: Action = side if entry is not None else "drop"
    standing = entry.tensor if entry is not None else None
    return replace(decision, action=action, standing=standing, choice=Choice(side), reason="")


def _reset(decisions: dict[str, Decision], group: Group) -> bool:
    """Set a state of training to zeros; False where some part of it cannot be."""
    if any(decisions[name].action not in ("merge", "same", "drop") for name in group.members):
        return False
    for name in group.members:
        one = decisions[name]
        if one.action == "merge":
            decisions[name] = replace(one, choice=Choice("zero"), reason="")
    return True


_WHY = {
    "model": "both sides changed {label}, which mean something only together: take one side for "
    "all of it",
    "quantised": "both sides changed the quantised {label}: take one side for all of it",
    "integers": "both sides changed the integers of {label}: take one side for all of it",
    "sparse": "both sides changed the sparse {label}, whose tensors belong together: take "
    "one side for all of it",
    "training": "{label} is never blended: take one side for all of it, or reset it (zero)",
    "factors": "both sides changed the factors of {label}, and only their product has a "
    "meaning: take one side for all of it",
    "renamed": "{label}; if it was renamed, the change would be lost: take one side for all of it",
}


def reason_of(group: Group, torn: bool = False) -> str:
    """Why a group is open; `torn` where the strategies name more than one side for it."""
    why = _WHY[group.kind].format(label=group.label)
    if torn:
        why = f"the strategies take parts of {group.label} from different sides"
    others = group.members[1 : 1 + _SHOWN]
    if not others:
        return why
    more = len(group.members) - 1 - len(others)
    return f"{why} (with {', '.join(others)}{f' and {more:,} more' if more else ''})"


def whole_groups(names: Iterable[str], groups: Sequence[Group]) -> list[str]:
    """Some tensors, and all others that are in a group with one of them."""
    names = set(names)
    for group in groups:
        if names & set(group.members):
            names |= set(group.members)
    return sorted(names, key=natural_key)
