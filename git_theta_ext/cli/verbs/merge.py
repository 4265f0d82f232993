"""`git theta merge`: git merge with a strategy, the plan of a merge, or the best one by score."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from git_theta_ext.checkpoints.adapters.peft_config import CONFIG
from git_theta_ext.cli import consent, where
from git_theta_ext.cli.choices import add_options, choice_of
from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.cli.verbs import merge_assembled, merge_gate, merge_plan, merge_several
from git_theta_ext.cli.verbs.merge_assembled import Assembled
from git_theta_ext.core.advice import word
from git_theta_ext.core.errors import RepositoryError, ThetaError, UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.terminal import ask
from git_theta_ext.core.text import from_program, plural, printable, table
from git_theta_ext.evaluation.tuned import Trials
from git_theta_ext.git.operations import (
    MERGE_STATES,
    Heads,
    is_merging,
    keeps_from_merging,
    unmerged,
)
from git_theta_ext.git.paths import from_here
from git_theta_ext.git.process import run_program
from git_theta_ext.git.repository import Repository, literal
from git_theta_ext.git.setup import installation
from git_theta_ext.merge.branches.models import ModelConflict, chosen_policy, reopen, resharded
from git_theta_ext.merge.branches.octopus import Branches
from git_theta_ext.merge.branches.tune import (
    Contest,
    Memory,
    Trial,
    Verdict,
    command_of,
    evaluator,
    judge,
    tune,
)
from git_theta_ext.merge.combine.statistics import (
    measured_strategies,
    statistics_of,
    unused_statistics,
)
from git_theta_ext.merge.conflicts.explain import notes, open_lines
from git_theta_ext.merge.conflicts.hints import common
from git_theta_ext.merge.conflicts.owned import Owned
from git_theta_ext.merge.conflicts.resolve import Conflict
from git_theta_ext.merge.conflicts.shard_index import changed_on_both, how_to_settle, in_conflict
from git_theta_ext.merge.decide.beside_adapter import scalings_ahead
from git_theta_ext.merge.decide.changed_on_both import pairs
from git_theta_ext.merge.decide.scaling import GROWS
from git_theta_ext.merge.strategies import policy
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.executor import Executor

_FROM_FILE = ""
"""What `--tune` without a command stands for."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `merge`."""
    parser = subparsers.add_parser(
        "merge",
        help="merge a branch with a strategy, show the plan, or find the best merge",
        description="Run git merge with a strategy for the tensors that both sides changed. With "
        "--plan, only show what would be done. With --tune, evaluate candidates and merge with "
        "the best. With --gate, merge only what the gates accept.",
    )
    parser.add_argument(
        "others", metavar="OTHER", nargs="+", help="the branch or commit to merge; several at once"
    )
    add_options(parser)
    parser.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    parser.add_argument(
        "--tune", metavar="CMD", nargs="?", const=_FROM_FILE,
        help="evaluate candidates with this command; {checkpoint} in it is the file, and the last "
        "line that it prints has the score and the number of examples (default: evaluate in "
        ".theta.toml)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-evaluation", action="store_true",
        help="with --tune or --gate: this once, run the commands in .theta.toml without asking",
    )  # fmt: skip
    parser.add_argument(
        "--gate", action="store_true",
        help="merge only what the gates of HEAD accept, against both sides; without --strategy, "
        "try what --tune would try until they do",
    )  # fmt: skip
    parser.add_argument("--file", metavar="FILE", help="the checkpoint to tune for")
    parser.add_argument("--yes", "-y", action="store_true", help="with --tune: do not ask")
    parser.add_argument(
        "--no-commit", action="store_true", help="merge, but stop before the commit"
    )
    parser.add_argument("-m", "--message", metavar="TEXT", help="the message of the merge commit")
    where.add_option(parser)
    parser.set_defaults(run=run, answers=lambda args: args.plan)


def run(args: argparse.Namespace) -> int:
    """Merge, plan or tune."""
    repository = Repository.discover()
    choice = choice_of(args)
    if args.plan:
        return _merge_with(repository, args, choice)
    code = _carried_out(repository, args, choice)
    fact("head", repository.resolve("HEAD"))
    fact("conflicts", unmerged(repository))
    return code


def _carried_out(repository: Repository, args: argparse.Namespace, choice: Choice | None) -> int:
    """Merge, or tune and merge, where nothing else is under way."""
    installation.require(repository, "filter.theta.process", "merge.theta.driver")
    _require_nothing_under_way(repository)
    with where.executor(repository, args) as args.executor:
        return _merge_with(repository, args, choice)


def _merge_with(repository: Repository, args: argparse.Namespace, choice: Choice | None) -> int:
    """Merge, plan or tune; `args.executor` does the work on blocks of what is merged here."""
    branches = Branches.find(repository, args.others) if len(args.others) > 1 else None
    if branches is not None and len(branches.commits) < 3 and "HEAD" in branches.names:
        # Of several names one branch is left that HEAD does not contain, if any: Git's own merge.
        args.others = [name for name in branches.names if name != "HEAD"] or ["HEAD"]
        branches = None
    elif branches is not None and len(branches.commits) < 2:
        args.others, branches = list(branches.names), None
    args.other = " ".join(args.others)
    if args.gate and (args.plan or args.tune is not None or branches is not None):
        raise UsageError("--gate merges one branch: leave out --plan, --tune and other branches")
    if args.tune is not None:
        if choice is not None or args.plan:
            raise UsageError("--tune finds the strategy itself: leave out --strategy and --plan")
        choice = _tuned(repository, args, branches)
        if choice is None:
            return 1
    if branches is not None:
        if args.plan:
            return merge_several.plan(repository, branches, choice)
        return merge_several.merge(repository, args, branches, choice)
    heads = Heads.find(repository, args.other)
    if args.plan:
        return merge_plan.plan(repository, heads, choice)
    if args.gate and heads.base != heads.theirs:
        contests = _contests(repository, args, None, Blocks.open(repository))
        accepted = merge_gate.choose(
            repository, heads, choice, contests, allowed=args.allow_evaluation
        )
        if accepted is None:
            return 1
        status = _merge(repository, args, accepted.choice)
        return merge_gate.verified(repository, accepted) if status == 0 else status
    assembled = merge_assembled.find(repository, heads)
    if assembled and choice is None:
        return _merge_assembled(repository, args, assembled)
    models = {*resharded(repository, heads), *changed_on_both(repository, heads)}
    if models:
        return _merge_models(repository, args, choice, heads, sorted(models, key=natural_key))
    return _merge(repository, args, choice)


def _require_nothing_under_way(repository: Repository) -> None:
    """Refuse to begin where Git would, before what another merge left is taken for this one's.

    Raises:
        RepositoryError: a merge or a pick is not concluded, or a path is in conflict.
    """
    if keeps_from_merging(repository):
        raise RepositoryError(
            "nothing was merged: an earlier merge is not concluded, or files are in conflict",
            hint="git status   shows how to conclude it, and how to take it back",
        )


def _merge(repository: Repository, args: argparse.Namespace, choice: Choice | None) -> int:
    """Run git merge; see `_code`."""
    if choice is not None:
        os.environ[policy.VARIABLE] = str(choice)
    message = ["-m", args.message] if args.message else ["--no-edit"]
    if args.no_commit:
        message = ["--no-commit", *message]
    status, output, errors = _git(repository, "merge", *message, "--", args.other)
    _pass_on(output, errors)
    if status and _settle_grown(repository, args.executor):
        if args.no_commit:
            return 0
        status, output, errors = _git(repository, "commit", "--no-edit", "--cleanup=strip")
        _pass_on(output, errors)
        return RepositoryError.exit_code if status else 0
    _tell_of_indices(repository)
    return _code(repository, status)


def _settle_grown(repository: Repository, executor: Executor) -> bool:
    """Settle what is open only because the driver may not write an adapter's configuration.

    Returns:
        Whether something was settled, and nothing is left in conflict.
    """
    settled = False
    for path in unmerged(repository):
        try:
            conflict = Conflict.find(repository, path, os.environ)
        except ThetaError:
            continue  # no checkpoint, or deleted on one side: the merge has said so
        if not any(GROWS in reason for reason in conflict.state.open.values()):
            continue
        merged = conflict.finish(Blocks.open(repository, executor))
        for line in notes(merged):
            print(f"{printable(path)}: {line}")
        if not merged.open:
            repository.git("add", "--", literal(path))
            print(f"{printable(path)}: settled, with {CONFIG} beside it")
            settled = True
    return settled and not unmerged(repository)


def _tell_of_indices(repository: Repository) -> None:
    """Say what settles indices of shards that are in conflict, for Git takes them for texts."""
    for path, merged in in_conflict(repository):
        print(f"  to settle the index of shards: {how_to_settle(repository, path, merged=merged)}")


def _code(repository: Repository, status: int) -> int:
    """Our exit code for git merge's: 1 where something is left in conflict, 10 where it failed."""
    if status == 0:
        return 0
    return 1 if unmerged(repository) else RepositoryError.exit_code


def _git(repository: Repository, *arguments: str) -> tuple[int, bytes, bytes]:
    return run_program(["git", *arguments], repository.cwd)


def _pass_on(output: bytes, errors: bytes) -> None:
    for stream, data in ((sys.stdout, output), (sys.stderr, errors)):
        stream.write(from_program(data))
        stream.flush()


def _merge_models(
    repository: Repository,
    args: argparse.Namespace,
    choice: Choice | None,
    heads: Heads,
    models: Sequence[str],
) -> int:
    """Merge where tensors moved between shards: Git all else, each such model as one."""
    if choice is not None:
        os.environ[policy.VARIABLE] = str(choice)
    message = ["-m", args.message] if args.message else []
    status, output, errors = _git(repository, "merge", "--no-commit", *message, "--", args.other)
    if not is_merging(repository):
        _pass_on(output, errors)
        return _code(repository, status)
    blocks = Blocks.open(repository, args.executor)
    left = 0
    for pattern in models:
        chosen = chosen_policy(repository, pattern, choice, os.environ)
        conflict = ModelConflict.between(repository, pattern, heads, chosen)
        merged = conflict.finish(blocks)
        name = printable(pattern)
        print(
            f"{name}: tensors moved between shards, a coupled group is in several shards, or both "
            "sides changed the index, so all shards are merged as one model"
        )
        for line in notes(merged):
            print(line)
        sides, stem = (heads.ours, heads.theirs), pattern.replace("-*-of-*", "")
        if remark := unused_statistics(repository, stem, sides, merged.outcomes):
            print(f"{name}: {remark}", file=sys.stderr)
        if not merged.open:
            _git(repository, "add", "-A", "--", *(f":(top,glob){one}" for one in conflict.paths))
            continue
        left += 1
        reopen(conflict, list(merged.open))
        print(
            f"CONFLICT (content): {plural(len(merged.open), 'part')} open; "
            "the file has our version for now:"
        )
        for line in open_lines(merged.open, owned=Owned.at_head(repository, pattern)):
            print(f"    {line}")
        found = common([merged]) or ("ours",)
        place = word(from_here(repository, name))
        print(f"  to go on: git theta resolve {place} --strategy {found[0]}")
    in_conflict_now = unmerged(repository)
    if left or in_conflict_now:
        for path in in_conflict_now:
            print(f"in conflict: {printable(path)}")
        return 1
    if args.no_commit:
        return 0
    status, output, errors = _git(repository, "commit", "--no-edit")
    _pass_on(output, errors)
    return RepositoryError.exit_code if status else 0


def _merge_assembled(
    repository: Repository, args: argparse.Namespace, assembled: Sequence[Assembled]
) -> int:
    """Merge where both sides assembled a checkpoint: Git the recipes, then it is built anew."""
    message = ["-m", args.message] if args.message else []
    status, output, errors = _git(repository, "merge", "--no-commit", *message, "--", args.other)
    _pass_on(output, errors)
    if not is_merging(repository):
        return _code(repository, status)
    if not merge_assembled.build_anew(repository, assembled) or unmerged(repository):
        return 1
    if args.no_commit:
        return 0
    status, output, errors = _git(repository, "commit", "--no-edit", "--cleanup=strip")
    _pass_on(output, errors)
    return RepositoryError.exit_code if status else 0


def _tuned(
    repository: Repository, args: argparse.Namespace, branches: Branches | None
) -> Choice | None:
    """The strategy that scored best, or None if there is nothing to merge with."""
    text = args.tune or _allowed(repository, policy.committed(repository).evaluate, args)
    if not text:
        raise UsageError(
            "--tune needs a command: .theta.toml has none",
            hint=f"git theta merge {args.other} --tune 'python evaluate.py {{checkpoint}}'",
        )
    words = command_of(text)
    blocks = Blocks.open(repository)
    contest = _one(_contests(repository, args, branches, blocks), args.file)
    print(f"Evaluating {printable(contest.path)} with: {printable(text)}")
    trials = []
    kept = Trials(repository, contest.path, words)
    memory = Memory.of(repository.git_dir / MERGE_STATES, contest, words)
    for trial in tune(contest, blocks, evaluator(words, repository.top), memory):
        again = "  (evaluated before)" if trial.remembered else ""
        parts = plural(trial.left, "part")
        again += f"  ({parts} stay open, with our version)" if trial.left else ""
        print(f"  {printable(trial.label)}: {_score(trial)}{again}", flush=True)
        kept.keep(trial)
        trials.append(trial)
    verdict = judge(trials)
    _show(trials, verdict)
    if not verdict.worth_it or verdict.best.choice is None:
        print("Nothing was merged.")
        return None
    return verdict.best.choice if _accepted(args, verdict.best) else None


def _allowed(repository: Repository, command: str | None, args: argparse.Namespace) -> str | None:
    """The evaluation command that the repository names, once its user lets it run.

    Raises:
        UsageError: the user did not.
    """
    if command:
        consent.require(repository, [command], once=args.allow_evaluation)
    return command


def _contests(
    repository: Repository, args: argparse.Namespace, branches: Branches | None, blocks: Blocks
) -> list[Contest]:
    """What can be tuned in this merge: one contest for each checkpoint that is merged by itself."""
    if branches is not None:
        return merge_several.contests(repository, branches, blocks)
    heads = Heads.find(repository, args.other)
    models = resharded(repository, heads)
    if models:
        raise UsageError(
            f"{models[0]} must be merged as one model: no shard can be evaluated by itself",
            hint=f"choose a strategy: git theta merge {args.other} --strategy average",
        )
    sides = (heads.ours, heads.theirs)
    return [
        Contest.of(
            pair,
            blocks,
            statistics_of(repository, pair.path, sides, blocks),
            measured_strategies(repository, pair.path, sides),
            scalings_ahead(repository, pair.path, lambda: heads),
        )
        for pair in pairs(repository, heads)
        if not pair.path.endswith(policy.STATISTICS)
    ]


def _one(found: list[Contest], name: str | None) -> Contest:
    matching = [pair for pair in found if name in (None, pair.path)]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise UsageError("no checkpoint was changed on both sides: git merge needs no strategy")
    names = ", ".join(printable(pair.path) for pair in matching)
    raise UsageError(f"several checkpoints were changed on both sides: {names}", hint="--file FILE")


def _score(trial: Trial) -> str:
    error = trial.score.error
    return f"{trial.score.value:.4g}" + (f" ± {error:.2g}" if error is not None else "")


def _show(trials: list[Trial], verdict: Verdict) -> None:
    print()
    ordered = sorted(trials, key=lambda trial: -trial.score.value)
    for line in table([["score", "candidate"], *([_score(one), one.label] for one in ordered)]):
        print(line)
    for remark in verdict.remarks:
        print(remark)


def _accepted(args: argparse.Namespace, best: Trial) -> bool:
    """Whether the user takes the best; without a terminal only `--yes` says so."""
    if args.yes:
        return True
    if sys.stdin.isatty() and sys.stdout.isatty():
        return ask(f"Merge {args.other} with {best.label}? [y/N]").lower() == "y"
    print(f"To take it: git theta merge {printable(args.other)} --strategy {best.label}")
    return False
