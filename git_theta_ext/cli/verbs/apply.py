"""`git theta apply`: add the update of a patch to a model of the same origin, or take it back."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from git_theta_ext.cli import choices
from git_theta_ext.cli.choices import choice_of
from git_theta_ext.core.errors import MissingObjectError, UsageError
from git_theta_ext.core.text import plural, printable, to_json
from git_theta_ext.git.paths import from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation
from git_theta_ext.merge.conflicts.explain import MAX_LINES, advice, figures, notes, open_lines
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.packages.patches import applied, apply, receive
from git_theta_ext.packages.patches.apply import How, Result
from git_theta_ext.packages.patches.opened import Patch, opened
from git_theta_ext.packages.patches.rename import parse_renames

_LONGEST = 1000.0


def add_parser(subparsers: Any) -> None:
    """Add the parser of `apply`."""
    parser = subparsers.add_parser(
        "apply",
        help="add the update of a patch to a model of the same origin, or take it back",
        description="Add what a patch changes to the checkpoints of the index and the work tree, "
        "and commit nothing. They may be another fine-tune of the same base: what both changed is "
        "reapplied, unless another strategy is named.",
    )
    parser.add_argument("patch", metavar="PATCH", help="a patch, or a mail with one")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the checkpoint that it is for")
    choices.add_options(parser)
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="S", help="how much of the update is added"
    )
    parser.add_argument(
        "--map", action="append", default=[], metavar="OLD=NEW",
        help="what tensors are called here, such as 'old.*=new.*'; may be repeated",
    )  # fmt: skip
    parser.add_argument("--reverse", "-R", action="store_true", help="take the update back")
    parser.add_argument("--dry-run", "-n", action="store_true", help="only say what would be done")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Apply; 1 where a part of the update was left out."""
    repository = Repository.discover()
    if not math.isfinite(args.scale) or abs(args.scale) > _LONGEST:
        raise UsageError(f"--scale takes a number up to {_LONGEST:g}, not {args.scale:g}")
    file = None if args.file is None else from_top(repository, args.file)
    how = How(args.reverse, args.scale, parse_renames(args.map), choice_of(args), file)
    if not args.dry_run:
        installation.require(repository)
    with (
        nullcontext() if args.dry_run else applied.alone(repository),
        opened(args.patch) as patch,
        receive.scratch(Blocks.open(repository)) as aside,
    ):
        made = apply.unfinished(repository, patch, how)
        if made is None:
            apply.require_staged(
                repository, [entry.path for _, entry in apply.targets(repository, patch, how)]
            )
            made = apply.results(repository, patch, how, aside)
        _require_some(patch, made)
        if not args.dry_run and any(one.written for one in made):
            apply.carry_out(repository, patch, how, made, aside)
        others, names = apply.left_out(patch, how), apply.keeping_names(patch, how, made)
    return _report(args, made, others, names)


def _require_some(patch: Patch, made: Sequence[Result]) -> None:
    """Refuse a patch of which nothing fits.

    Raises:
        MissingObjectError: the base is nowhere here; says which tensors.
    """
    unfit = {name: why for one in made if one.fitted is not None
             for name, why in one.fitted.unfit.items()}  # fmt: skip
    if unfit and not any(one.fitted is None or one.fitted.changed for one in made):
        lines = "\n".join(f"  {line}" for line in open_lines(unfit))
        raise MissingObjectError(
            f"nothing of {printable(patch.name)} fits what is here:\n{lines}",
            hint="git theta show PATCH   says what it changes",
        )


def _report(
    args: argparse.Namespace, made: Sequence[Result], others: Sequence[str],
    names: Mapping[str, str],
) -> int:  # fmt: skip
    """Say what was done and what was left out; 1 where something was."""
    left = bool(names) or bool(others and args.file is None) or any(_left_out(one) for one in made)
    if args.json:
        files = [_record(one) for one in made]
        print(to_json({"patch": args.patch, "reverse": args.reverse, "dry_run": args.dry_run,
                       "files": files, "others": list(others),
                       "keeping_names": dict(names)}))  # fmt: skip
        return 1 if left else 0
    for one in made:
        for line in _lines(one, args.reverse):
            print(line)
    for path, other in names.items():
        print(f"{printable(path)}: keeps its name; in the patch it becomes {printable(other)}")
    for path in others[:MAX_LINES]:
        print(f"{printable(path)}: left out; git theta am PATCH takes whole commits")
    if len(others) > MAX_LINES:
        print(f"{len(others) - MAX_LINES:,} more files: left out")
    if args.dry_run:
        print("nothing was changed (--dry-run)")
    elif any(one.written for one in made):
        print("staged; git commit records it")
    else:
        print("nothing was changed")
    return 1 if left else 0


def _left_out(one: Result) -> Mapping[str, str]:
    """The parts that were not applied, and why."""
    unfit = {} if one.fitted is None else one.fitted.unfit
    return {**unfit, **({} if one.merged is None else one.merged.open)}


def _lines(one: Result, reverse: bool) -> Iterator[str]:
    """What became of a checkpoint: how much of it changed, what met, and what was left out."""
    path, count = printable(one.path), plural(len(one.changed), "tensor")
    if one.restored:
        yield f"{path}: {count} changed: the version from before the patch, to the byte"
        return
    if one.merged is not None and not one.changed and not _left_out(one):
        yield f"{path}: has {'nothing of this update' if reverse else 'this update already'}"
        return
    yield f"{path}: {count} changed"
    if one.merged is None:
        return
    met = [each for each in one.merged.outcomes if each.measure and each.measure.collided]
    for each in met[:MAX_LINES]:
        if each.measure is not None:
            share = f"{100 * each.measure.share:.3g} % of its entries changed on both sides"
            yield f"  {printable(each.name)}: {share}{figures(each.measure)}"
    if len(met) > MAX_LINES:
        yield f"  … and {len(met) - MAX_LINES} more"
    for line in (*advice(each.measure for each in met if each.measure), *notes(one.merged)):
        yield f"  {line}"
    left = _left_out(one)
    if left:
        yield f"  left out: {plural(len(left), 'part')}, which are as they were"
        for line in open_lines(left):
            yield f"    {line}"


def _record(one: Result) -> dict[str, Any]:
    outcomes = () if one.merged is None else one.merged.outcomes
    met = [
        {
            "name": each.name,
            "share": each.measure.share,
            "cosine": each.measure.cosine,
            "ratio": each.measure.ratio,
        }
        for each in outcomes
        if each.measure is not None and each.measure.collided
    ]
    return {"path": one.path, "changed": one.changed, "restored": one.restored, "met": met,
            "left_out": dict(_left_out(one))}  # fmt: skip
