"""What would settle the open parts of a merge: hints are made of nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from git_theta_ext.checkpoints.adapters.peft_config import CONFIG
from git_theta_ext.core.text import plural
from git_theta_ext.merge.combine.apply import UNFIT, Merged, Outcome
from git_theta_ext.merge.decide.scaling import GROWS, SETTLE
from git_theta_ext.merge.decide.together import BLENDS_PRODUCT

_SIDES = ("ours", "theirs")
_BLENDS = ("average", "ours", "theirs", "ties", "…")


def settling(outcome: Outcome) -> tuple[str, ...]:
    """The strategies that settle an open tensor, the likeliest first; none if no strategy does."""
    one = outcome.decision
    if outcome.open == UNFIT or "removed" in (one.ours, one.theirs):
        return _SIDES
    base = () if "added" in (one.ours, one.theirs) else ("base",)
    if one.leader and GROWS in outcome.open:
        return (str(one.choice), *_SIDES, *base)
    if one.leader and BLENDS_PRODUCT in outcome.open:
        return ("average", *_SIDES, *base)
    if one.leader:
        reset = ("zero",) if one.kind == "optimizer" else ()
        return (*_SIDES, *base, *reset)
    measure = outcome.measure
    if "stack keeps both" in outcome.open:
        return (*_SIDES, "stack")
    if one.action == "open" or one.kind not in ("weights", "batchnorm"):
        return (*_SIDES, *base)
    if measure is not None and (measure.nan_ours or measure.nan_theirs):
        return (*_SIDES, *base)
    if "NaN" in outcome.open and "beyond the range" not in outcome.open:
        return (*_SIDES, *base)
    return _BLENDS


def common(merged: Iterable[Merged]) -> tuple[str, ...]:
    """The strategies that settle all that is open in some merges; none if no single one does."""
    found: list[tuple[str, ...]] = []
    for one in merged:
        found += [settling(outcome) for outcome in one.outcomes if outcome.open]
        if one.structure:
            found.append(_SIDES)
    first = found[0] if found else ()
    return tuple(name for name in first if all(name in other for other in found))


def commands(name: str, merged: Merged, options: str = "") -> list[str]:
    """The commands that settle a checkpoint, as lines; each of them settles all that is open.

    Args:
        name: of the file, as a word of a shell.
        merged: with something open.
        options: those of `git add`, with a blank behind them; see `paths.add_options`.
    """
    return [*resolving(name, merged), f"    git add {options}{name}"]


def resolving(name: str, merged: Merged) -> list[str]:
    """The calls of `git theta resolve` among `commands`: they write, and say what to add."""
    names = common([merged]) or _SIDES
    others = f"   (or {', '.join(names[1:])})" if names[1:] else ""
    lines = [f"    git theta resolve {name} --strategy {names[0]}{others}"]
    blended = sum("average" in settling(one) for one in merged.outcomes if one.open)
    if blended and "average" not in names:
        parts = plural(blended, "part")
        lines.append(
            f"    {parts} of {len(merged.open)} can be blended: --tensor NAME --strategy average"
        )
    if any(SETTLE in one.open for one in merged.outcomes):
        lines.append(
            f"    once {CONFIG} is settled and added: git theta resolve {name} --strategy average"
        )
    return lines
