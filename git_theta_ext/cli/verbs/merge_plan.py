"""`git theta merge OTHER --plan`: the part of the verb that says what a merge of two would do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.comparison.division import divided
from git_theta_ext.comparison.files import changed_checkpoints
from git_theta_ext.core.text import plural, printable
from git_theta_ext.evaluation.gates.ends import empty_tree
from git_theta_ext.evaluation.gates.ownership import asked
from git_theta_ext.git.operations import Heads
from git_theta_ext.git.repository import Repository
from git_theta_ext.merge.combine.apply import measure
from git_theta_ext.merge.combine.values import Measure
from git_theta_ext.merge.conflicts.explain import advice, figures, plan_lines
from git_theta_ext.merge.conflicts.owned import Owned, plan_by_module
from git_theta_ext.merge.decide.beside_adapter import scalings_ahead
from git_theta_ext.merge.decide.changed_on_both import pairs
from git_theta_ext.merge.decide.decisions import Plan
from git_theta_ext.merge.decide.plan import make_plan
from git_theta_ext.merge.strategies import policy
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.objects.blocks import Blocks


def plan(repository: Repository, heads: Heads, choice: Choice | None) -> int:
    """Show what a merge would do with each checkpoint that both sides changed; the exit code."""
    found = list(pairs(repository, heads))
    blocks = Blocks.open(repository)
    records: list[dict[str, Any]] = []
    for pair in found:
        chosen = policy.policy_for(repository, pair.path, "merge", os.environ)
        choose = chosen.choose if choice is None else lambda _: choice
        scalings = scalings_ahead(repository, pair.path, lambda: heads, writable=True)
        made = make_plan(pair.base, pair.ours, pair.theirs, choose, scalings=scalings)
        source = "--strategy" if choice is not None else chosen.source
        came = f" (was {printable(pair.renamed)})" if pair.renamed else ""
        print(f"{printable(pair.path)}{came}  (strategy: {source})")
        for line in plan_lines(made):
            print(f"  {line}")
        measured = measure(made, blocks)
        records.append(_record(pair.path, pair.renamed, source, made, measured))
        for name, one in measured.items():
            share = f"{100 * one.share:.3g} % of its entries changed on both sides"
            print(f"  {printable(name)}: {share}{figures(one)}")
        for line in advice(measured.values()):
            print(f"  {line}")
        for line in plan_by_module(made, Owned.at_head(repository, pair.path), measured):
            print(f"  {line}")
    fact("plan", records)
    for line in frozen_lines(repository, heads.base, heads.theirs, "theirs"):
        print(line)
    print(f"{plural(len(found), 'checkpoint')} changed on both sides")
    return 0


def _record(
    path: str, renamed: str, source: str, made: Plan, measured: Mapping[str, Measure]
) -> dict[str, Any]:
    """What a merge would do with one checkpoint: what is decided, and why it is open if it is."""
    rows: list[dict[str, Any]] = []
    for one in made.decisions:
        row: dict[str, Any] = {
            "name": one.name, "ours": one.ours, "theirs": one.theirs, "action": one.action,
            "strategy": str(one.choice) if one.action == "merge" else None,
            "reason": one.reason or None, "share": None, "cosine": None, "ratio": None,
        }  # fmt: skip
        if (figure := measured.get(one.name)) is not None:
            row |= {"share": figure.share, "cosine": figure.cosine, "ratio": figure.ratio}
        rows.append(row)
    return {"path": path, "renamed_from": renamed or None, "source": source, "tensors": rows}


def frozen_lines(repository: Repository, base: str | None, side: str, label: str) -> Iterator[str]:
    """A line for each module that HEAD has frozen and a side changes; no value is read.

    Args:
        repository: where the commits are.
        base: the common ancestor; None where there is none.
        side: the commit that is to be merged.
        label: what the lines call it.
    """
    owned = Owned.at_head(repository, "")
    yield from owned.to_ask(())
    if not any(one.frozen for one in owned.modules):
        return
    old = base or empty_tree(repository)
    for pair in changed_checkpoints(repository, [old, side], []):
        path = printable(pair.path)
        with closing(pair):
            found = pair.compare(measured=False)
        if not found.compared and any(one.frozen and one.is_in(pair.path) for one in owned.modules):
            yield f"{path}: it cannot be read here whether {label} changes a frozen module"
        division = divided(found, owned.modules, pair.path)
        for part in () if division is None or found.old_format is None else division.parts:
            if part.module.frozen and part.changed:
                yield (
                    f"{path}: module {part.module.name} is frozen, and {label} changes "
                    f"{part.changed:,} of {plural(part.tensors, 'tensor')}; "
                    f"to ask: {asked(part.module)}"
                )
