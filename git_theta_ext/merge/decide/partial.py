"""Some tensors of another version, the rest as it is: a merge in which each side changed its own.

So tensors that mean something only together, and the structure, are looked after as in any merge.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from git_theta_ext.core.names import natural_key
from git_theta_ext.manifest.model import Block, Entry, Manifest
from git_theta_ext.merge.decide.decisions import TIE_BYTES, Plan, content_of
from git_theta_ext.merge.decide.groups import find_groups
from git_theta_ext.merge.decide.plan import make_plan
from git_theta_ext.merge.strategies.choice import Choice

_NO_STRUCTURE = Block(0, "0" * 64)
"""A skeleton that no version has. It is never read."""


def plan_part(now: Manifest, source: Manifest, wanted: Collection[str]) -> Plan:
    """The plan of a merge of `now` (ours) and `source` (theirs).

    It is made with a base that has the wanted tensors as they are now and all others as in the
    source, so that only the source changed the former, and only the present version the latter.
    Both changed the structure, if it differs: whatever has a part in it goes with it, or is open.
    The plan that is returned calls the source the base: then the structure is kept as it is now,
    where the tensors fit into it.

    Args:
        now: gives all that is not wanted, and the structure where the result fits into it.
        source: gives the tensors that are wanted; one that it lacks is dropped.
        wanted: names.
    """
    mine, yours = now.by_name(), source.by_name()
    held = {name: entry for name, entry in yours.items() if name not in wanted}
    held |= {name: entry for name, entry in mine.items() if name in wanted}
    entries = sorted(held.values(), key=lambda entry: natural_key(entry.tensor.name))
    alike = now.skeleton.sha256 == source.skeleton.sha256
    base = Manifest(source.format, source.skeleton if alike else _NO_STRUCTURE, tuple(entries))

    def choose(name: str) -> Choice:
        return Choice("theirs" if name in wanted else "ours")

    groups = find_groups(base, (now, source))
    plan = make_plan(base, now, source, choose, groups=groups)
    return replace(plan, base=source)


def expected(now: Manifest, source: Manifest, wanted: Collection[str]) -> dict[str, Entry]:
    """What the result is to hold, by name."""
    found = {name: one for name, one in now.by_name().items() if name not in wanted}
    return found | {name: one for name, one in source.by_name().items() if name in wanted}


def why_open(plan: Plan, wanted: Collection[str]) -> dict[str, str]:
    """The tensors that cannot be taken by themselves, and why.

    Of tensors that mean something only together one is named.
    """
    found: dict[str, str] = {}
    for one in plan.decisions:
        group = plan.group_of.get(one.name)
        if one.action != "open" or (group is not None and group.leader != one.name):
            continue
        if group is None:
            found[one.name] = one.reason
            continue
        chosen = [name for name in group.members if name in wanted]
        others = [name for name in group.members if name not in wanted]
        name = (chosen or list(group.members))[0]
        more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
        found[name] = (
            f"it means something only together with {others[0]}{more}" if others else one.reason
        )
    return found


def untied(now: Manifest, result: Manifest) -> list[tuple[str, str]]:
    """Tensors that were the same values until now, and no longer are: each with the other one."""
    first: dict[tuple[object, ...], str] = {}
    after, found = result.by_name(), []
    for entry in now.entries:
        if entry.opaque or entry.tensor.nbytes < TIE_BYTES:
            continue
        name = entry.tensor.name
        other = first.setdefault(content_of(entry), name)
        if name in after and other in after and content_of(after[name]) != content_of(after[other]):
            found.append((name, other))
    return found
