"""`git theta stats`: measure what the Fisher and RegMean merges need, with a script of the user."""

from __future__ import annotations

import argparse
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints.write import ArraysSource
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.paths import advise, from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.merge.combine.statistics import statistics_path
from git_theta_ext.merge.strategies import collect_statistics

_NEEDED = {"gram": ("load", "batches", "forward"), "fisher": ("load", "batches", "loss")}


def add_parser(subparsers: Any) -> None:
    """Add the parser of `stats`."""
    parser = subparsers.add_parser(
        "stats",
        help="measure what the Fisher and RegMean merges need",
        description="Run a Python script of yours that loads the model and gives batches of data, "
        "measure Gram matrices or Fisher diagonals, and write them beside the checkpoint.",
    )
    parser.add_argument("file", metavar="FILE", help="a checkpoint")
    parser.add_argument(
        "--with", dest="script", metavar="SCRIPT", required=True,
        help="a Python script with load(path), batches(), and forward(model, batch) for gram or "
        "loss(model, batch) for fisher; it is executed",
    )  # fmt: skip
    parser.add_argument(
        "--kind", choices=("gram", "fisher"), default="gram",
        help="gram for regmean (default), fisher for fisher",
    )  # fmt: skip
    parser.add_argument("--batches", type=int, metavar="N", help="take at most N batches")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, and write the statistics."""
    repository = Repository.discover()
    path = from_top(repository, args.file)
    if args.batches is not None and args.batches < 1:
        raise UsageError(f"--batches takes a number from 1, not {args.batches}")
    if not (repository.top / path).is_file():
        raise UsageError(f"{args.file} does not exist")
    parts = _script(Path(args.script), args.kind)
    model = parts["load"](str(repository.top / path))
    work = collect_statistics.gram if args.kind == "gram" else collect_statistics.fisher
    found = work(model, parts["batches"](), parts[_NEEDED[args.kind][2]], args.batches)
    target = statistics_path(path, args.kind)
    with WorkTree(repository.top).replacing(target) as file:
        ArraysSource(dict(sorted(found.items())), {}).write(file)
    print(f"{printable(target)}: {args.kind} statistics of {plural(len(found), 'tensor')}")
    if repository.attribute("filter", target) != "theta":
        print(advise(repository, "  it is not tracked: git theta track --filename FILE", target))
    print(
        advise(
            repository,
            "  to use them in merges, on each branch: git add FILE && git commit",
            target,
        )
    )
    return 0


def _script(path: Path, kind: str) -> Mapping[str, Callable[..., Any]]:
    """The functions of the user's script."""
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    found = runpy.run_path(str(path))
    for name in _NEEDED[kind]:
        if not callable(found.get(name)):
            raise UsageError(
                f"{path} has no function {name!r}",
                hint="git theta help stats   shows what it needs",
            )
    return found
