"""Plans and results as lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from git_theta_ext.checkpoints.shards import model_of
from git_theta_ext.core.advice import word
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.paths import where_git_was_started
from git_theta_ext.merge.combine.values import Measure
from git_theta_ext.merge.conflicts.owned import Owned
from git_theta_ext.merge.strategies.choice import CONFLICT

if TYPE_CHECKING:
    from git_theta_ext.merge.combine.apply import Merged, Outcome
    from git_theta_ext.merge.decide.decisions import Decision, Plan

MAX_LINES = 20
_ALIKE = 0.5
"""Shards of one task had updates with cosines of 0.79 to 0.91, different tasks under 0.35."""
_UNLIKE = 0.35
_UNEQUAL = 10.0
_DENSE = 0.5


def plan_lines(plan: Plan) -> Iterator[str]:
    """What each side did to each tensor, and what will be done; unchanged tensors are counted."""
    rows = [
        (printable(one.name), f"ours {one.ours}", f"theirs {one.theirs}", _will(one))
        for one in plan.decisions
        if one.action not in ("same", "drop") or one.ours != one.theirs
        if not (one.ours == one.theirs == "kept")
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[3]])
    yield f"as they were on both sides: {_tensors(len(plan.decisions) - len(rows))}"


def _tensors(count: int) -> str:
    return f"{count:,} tensor" + ("" if count == 1 else "s")


def _will(decision: Decision) -> str:
    if decision.action == "open":
        return f"open: {decision.reason or f'with {printable(decision.leader)}'}"
    if decision.action == "merge":
        after = "open" if decision.choice == CONFLICT else str(decision.choice)
        return f"entry by entry; where both changed: {after}"
    return {
        "same": "the same on both sides",
        "ours": "ours",
        "theirs": "theirs",
        "base": "as it was",
        "drop": "removed",
    }[decision.action]


def conflict_lines(
    path: str, merged: Merged, options: str = "", owned: Owned | None = None
) -> list[str]:
    """What to tell of a merge that is not clean, in Git's manner.

    Args:
        path: of the checkpoint, from the top.
        merged: the result so far.
        options: those of `git add`; see `paths.add_options`.
        owned: whose tensors they are, where that is to be told.
    """
    owned = owned or Owned(path)
    lines = [f"CONFLICT (content): Merge conflict in {printable(path)}"]
    found = list(merged.open.items())
    measures = {one.name: one.measure for one in merged.outcomes}
    for name, reason in found[:MAX_LINES]:
        told = f"{printable(reason)}{figures(measures.get(name))}{owned.tag(name)}"
        lines.append(f"    {printable(name)}: {told}")
    if len(found) > MAX_LINES:
        lines.append(f"    … and {len(found) - MAX_LINES} more: git theta status")
    lines += [f"  {line}" for line in owned.to_ask(merged.open)]
    lines.append("  the file has our version for now; everything else is merged. To go on:")
    from git_theta_ext.merge.conflicts.hints import commands

    name = word(where_git_was_started(path))
    model = model_of(path)
    if model is not None and any(map(_moved, merged.outcomes)):
        lines.append("  if tensors moved to other shards, settle all shards together:")
        lines.append(f"    git theta resolve {word(where_git_was_started(model))}")
        lines.append("  if they were removed from the model:")
    return lines + commands(name, merged, options)


def _moved(outcome: Outcome) -> bool:
    """Whether an open tensor is missing on a side, as one that went to another shard is."""
    decision = outcome.decision
    return bool(outcome.open) and "removed" in (decision.ours, decision.theirs)


def figures(measure: Measure | None) -> str:
    """The cosine of two updates and how their lengths compare; empty where there is no base."""
    if measure is None or measure.cosine is None or measure.ratio is None:
        return ""
    return f" (cosine {measure.cosine:.2f}, lengths 1 : {measure.ratio:.2g})"


def notes(merged: Merged, *, reapplied: bool = False) -> list[str]:
    """What was blended and what the user should know of it; nothing if the merge was exact."""
    blended = [one for one in merged.outcomes if _blended(one)]
    products = [printable(one.note) for one in merged.outcomes if one.note]
    products += _of_groups(merged.outcomes)
    if not blended:
        return products
    total = sum((one.measure for one in blended if one.measure), Measure())
    names = sorted({str(one.decision.choice) for one in blended})
    lines = [
        f"{', '.join(names)}: {_tensors(len(blended))}, {100 * total.share:.3g} % of their entries "
        f"changed on both sides{figures(total)}"
    ]
    lines += _warnings(blended, total, reapplied)
    return lines + products


def _of_groups(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """What the groups that were taken from a side warn of: each sentence once, and of how many."""
    found = Counter(one.decision.warning for one in outcomes if one.decision.warning)
    for warning, count in found.items():
        yield f"warning: {plural(count, 'module')}: {printable(warning)}"


def advice(measures: Iterable[Measure]) -> list[str]:
    """What the figures of a plan suggest, all tensors together; nothing without figures."""
    total = sum(measures, Measure())
    if total.cosine is None:
        return []
    line = f"together: {100 * total.share:.3g} % of the entries collide{figures(total)}"
    if total.cosine > _ALIKE:
        return [line, "both sides made nearly the same change: average is a safe choice"]
    if total.cosine < _UNLIKE:
        return [line, "the sides learned different things: evaluate what you merge (--tune)"]
    return [line]


def _blended(outcome: Outcome) -> bool:
    collided = outcome.measure is not None and outcome.measure.collided > 0
    return collided and not outcome.open and outcome.decision.choice.strategy != "larger"


def _warnings(blended: Sequence[Outcome], total: Measure, reapplied: bool) -> Iterator[str]:
    if reapplied and total.cosine is not None and total.cosine > _ALIKE:
        yield (
            f"warning: both sides made nearly the same change (cosine {total.cosine:.2f}); "
            "it is now applied twice"
        )
    if reapplied and total.share > _DENSE:
        yield (
            "warning: most entries changed on both sides; evaluate the result: it may have "
            "lost what the new base had learned"
        )
    if total.ratio is not None and not 1 / _UNEQUAL < total.ratio < _UNEQUAL:
        yield f"warning: one update is much longer than the other, 1 : {total.ratio:.2g}"
    if any(one.decision.kind == "batchnorm" for one in blended):
        yield "note: BatchNorm statistics were averaged; a few hundred samples recalibrate them"


def open_lines(
    found: Mapping[str, str], limit: int = MAX_LINES, owned: Owned | None = None
) -> Iterable[str]:
    """What is open, one line each, and whom to ask where it is known whose tensors they are."""
    for name, reason in list(found.items())[:limit]:
        tag = "" if owned is None else owned.tag(name)
        yield f"{printable(name)}: {printable(reason)}{tag}"
    if len(found) > limit:
        yield f"… and {len(found) - limit} more"
    if owned is not None:
        yield from owned.to_ask(found)
