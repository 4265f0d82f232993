"""`git theta merge A B …`: the part of the verb that merges several branches at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping

from git_theta_ext.cli.verbs.merge_plan import frozen_lines
from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.core.text import from_program, plural, printable, table
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.merge.branches.octopus import (
    Branches,
    colliding,
    commit_merge,
    fixed,
    merge_branches,
    merge_group,
    stage_merge,
)
from git_theta_ext.merge.branches.tune import Contest
from git_theta_ext.merge.combine.statistics import measured_strategies, unused_statistics
from git_theta_ext.merge.conflicts.explain import notes, open_lines
from git_theta_ext.merge.conflicts.hints import common
from git_theta_ext.merge.conflicts.owned import Owned, ends_by_module
from git_theta_ext.merge.decide.changed_on_both import Group
from git_theta_ext.merge.decide.plan_several import Row, check_weights, plan_several
from git_theta_ext.merge.strategies import policy
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.merge.strategies.policy import Policy
from git_theta_ext.objects.blocks import Blocks


def policies(
    repository: Repository, choice: Choice | None, environment: Mapping[str, str]
) -> Callable[[str], Policy]:
    """What is to be used for each checkpoint: a choice for everything, else what is configured.

    Statistics have a strategy of their own.
    """

    def find(path: str) -> Policy:
        if choice and not path.endswith(policy.STATISTICS):
            return fixed(choice)
        return policy.policy_for(repository, path, "merge", environment)

    return find


def merge(
    repository: Repository, args: argparse.Namespace, branches: Branches, choice: Choice | None
) -> int:
    """Merge several branches; 1 where something collides that nothing settles.

    Args:
        repository: one with a work tree.
        args: `message` and `no_commit` of the command line, and the executor.
        branches: the commits to merge.
        choice: the strategy for all tensors; None: what is configured for each checkpoint.
    """
    if choice is not None:
        check_weights(choice, len(branches.commits))
    chosen = policies(repository, choice, os.environ)
    blocks = Blocks.open(repository, args.executor)
    tree, results = merge_branches(repository, branches, chosen, blocks)
    for one in results:
        for line in notes(one.merged):
            print(f"{printable(one.group.path)}: {line}")
        commits = [branches.commits[number] for number in one.group.numbers]
        remark = unused_statistics(repository, one.group.path, commits, one.merged.outcomes)
        if remark:
            print(f"{printable(one.group.path)}: {remark}", file=sys.stderr)
    if not tree:
        for one in results:
            owned = Owned.at_head(repository, one.group.path)
            for line in open_lines(one.merged.open, owned=owned):
                print(f"open in {printable(one.group.path)}: {line}", file=sys.stderr)
        found = common([one.merged for one in results if one.merged.open])
        chosen_by = (
            f"Choose a strategy (--strategy {found[0]}, or .theta.toml), or m" if found else "M"
        )
        print(
            "Nothing was changed: several branches at once are merged only if everything is "
            f"settled.\n  {chosen_by}erge one at a time: git theta merge BRANCH",
            file=sys.stderr,
        )
        return 1
    finish = stage_merge if args.no_commit else commit_merge
    status, output, errors = finish(repository, branches, tree, args.message or branches.message)
    sys.stdout.write(from_program(output))
    sys.stderr.write(from_program(errors))
    if not status and args.no_commit:
        print("Merged, but not committed.")
        print("  to conclude it: git commit\n  to take it back: git merge --abort")
    return RepositoryError.exit_code if status else 0


def plan(repository: Repository, branches: Branches, choice: Choice | None) -> int:
    """Say what would be done."""
    chosen = policies(repository, choice, os.environ)
    found = colliding(repository, branches)
    for group in found:
        policy_ = chosen(group.path)
        came = f" (was {printable(group.renamed)})" if group.renamed else ""
        print(f"{printable(group.path)}{came}  (strategy: {policy_.source})")
        names = [branches.names[number] for number in group.numbers]
        rows = plan_several(group.base, group.sides, policy_.choose).rows
        shown = [row for row in rows if any(did not in ("-", "kept") for did in row.did)]
        cells = [
            [
                printable(row.decision.name),
                *map(" ".join, zip(names, row.did, strict=True)),
                _will(row),
            ]
            for row in shown
        ]
        for line in table(cells):
            print(f"  {line}")
        print(f"  as they were on all sides: {plural(len(rows) - len(shown), 'tensor')}")
        ends = ((row.decision.name, _end(row)) for row in shown)
        for line in ends_by_module(ends, Owned.at_head(repository, group.path)):
            print(f"  {line}")
    for name, commit in zip(branches.names, branches.commits, strict=True):
        if name != "HEAD":
            for line in frozen_lines(repository, branches.base, commit, printable(name)):
                print(line)
    print(f"{plural(len(found), 'checkpoint')} changed on several sides")
    return 0


def _will(row: Row) -> str:
    if row.decision.action == "open":
        return f"open: {row.decision.reason or f'with {printable(row.decision.leader)}'}"
    if row.movers:
        after = "open" if row.decision.choice == CONFLICT else str(row.decision.choice)
        return f"entry by entry; where several changed: {after}"
    return "removed" if row.entry is None else "the changed one"


def _end(row: Row) -> str:
    """What becomes of a tensor, as the lines by module say it."""
    if row.decision.action == "open":
        return "open"
    return "entry by entry" if row.movers else "removed" if row.entry is None else "one side"


def contests(repository: Repository, branches: Branches, blocks: Blocks) -> list[Contest]:
    """What `--tune` may choose from: each checkpoint that several branches changed."""
    return [
        _contest(repository, branches, group, blocks)
        for group in colliding(repository, branches)
        if not group.path.endswith(policy.STATISTICS)
    ]


def _contest(repository: Repository, branches: Branches, group: Group, blocks: Blocks) -> Contest:
    left: dict[str, int] = {}

    def make(choice: Choice) -> Manifest:
        merged = merge_group(repository, branches, group, fixed(choice), blocks)
        left[str(choice)] = len(merged.open)
        return merged.manifest

    names = [branches.names[number] for number in group.numbers]
    commits = [branches.commits[number] for number in group.numbers]
    measured = measured_strategies(repository, group.path, commits)
    sides = dict(zip(names, group.sides, strict=True))
    return Contest(group.path, group.base, sides, make, measured, left)
