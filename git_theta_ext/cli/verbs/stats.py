"""`git theta stats`: what the Fisher and RegMean merges need, measured or from an optimizer."""

from __future__ import annotations

import argparse
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from git_theta_ext.checkpoints.exporting.outgoing import write_layout
from git_theta_ext.checkpoints.optimizers import fisher
from git_theta_ext.checkpoints.write import ArraysSource
from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.core.text import plural, printable
from git_theta_ext.core.values import raw_bytes
from git_theta_ext.formats import safetensors
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
        help="what the Fisher and RegMean merges need, measured or from an optimizer",
        description="Write Gram matrices or Fisher diagonals beside the checkpoint: with --from, "
        "of the second moments in Adam's file, without any data; with --with, measured by a Python "
        "script of yours that loads the model and gives batches of data.",
    )
    parser.add_argument("file", metavar="FILE", help="a checkpoint")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from", dest="optimizer", metavar="OPTIMIZER", action="append",
        help="a file with the state of Adam, such as optimizer.pt, or the folder of a distributed "
        "checkpoint; given several times: the files of DeepSpeed's ranks; nothing is executed",
    )  # fmt: skip
    source.add_argument(
        "--with", dest="script", metavar="SCRIPT",
        help="a Python script with load(path), batches(), and forward(model, batch) for gram or "
        "loss(model, batch) for fisher; it is executed",
    )  # fmt: skip
    parser.add_argument(
        "--kind", choices=("gram", "fisher"),
        help="gram for regmean (default with --with), fisher for fisher (what --from gives)",
    )  # fmt: skip
    parser.add_argument("--batches", type=int, metavar="N", help="take at most N batches")
    parser.add_argument(
        "--order", metavar="NAMES",
        help="with --from: a text with the names of model.named_parameters(), or a PyTorch file of "
        "the model, where nothing else tells the order of its parameters",
    )  # fmt: skip
    parser.add_argument(
        "--beta2", type=float, metavar="X",
        help="with --from: Adam's second beta, for files of Optax and weights of Keras, which "
        "do not have it",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Find the statistics, and write them."""
    repository = Repository.discover()
    path = from_top(repository, args.file)
    if args.batches is not None and args.batches < 1:
        raise UsageError(f"--batches takes a number from 1, not {args.batches}")
    if not (repository.top / path).is_file():
        raise UsageError(f"{args.file} does not exist")
    if args.optimizer is not None:
        kind, count = "fisher", _from_optimizer(repository, path, args)
    else:
        kind, count = args.kind or "gram", _measured(repository, path, args)
    target = statistics_path(path, kind)
    for name, value in (("file", target), ("kind", kind), ("tensors", count)):
        fact(name, value)
    print(f"{printable(target)}: {kind} statistics of {plural(count, 'tensor')}")
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


def _measured(repository: Repository, path: str, args: argparse.Namespace) -> int:
    """Measure with the user's script, and write; how many tensors."""
    if args.order is not None or args.beta2 is not None:
        raise UsageError("--order and --beta2 go with --from")
    kind = args.kind or "gram"
    parts = _script(Path(args.script), kind)
    model = parts["load"](str(repository.top / path))
    work = collect_statistics.gram if kind == "gram" else collect_statistics.fisher
    found = work(model, parts["batches"](), parts[_NEEDED[kind][2]], args.batches)
    with WorkTree(repository.top).replacing(statistics_path(path, kind)) as file:
        ArraysSource(dict(sorted(found.items())), {}).write(file)
    return len(found)


def _from_optimizer(repository: Repository, path: str, args: argparse.Namespace) -> int:
    """Write the second moments of Adam, one tensor at a time; how many."""
    if args.kind == "gram" or args.batches is not None:
        raise UsageError("an optimizer has Fisher diagonals only: leave out --kind and --batches")
    if args.beta2 is not None and not 0 <= args.beta2 < 1:
        raise UsageError(f"--beta2 takes a number from 0 to 1, not {args.beta2}")
    given = [Path(one) for one in args.optimizer]
    order = None if args.order is None else Path(args.order)
    with fisher.opened(Path(args.file), given, order, args.beta2) as found:
        infos = {name: TensorInfo(name, DTYPES["F32"], found.shape(name)) for name in found.moments}
        layout = safetensors.build(infos)
        with WorkTree(repository.top).replacing(statistics_path(path, "fisher")) as file:
            write_layout(
                layout, lambda name: [raw_bytes(np.ascontiguousarray(found.read(name)))], file
            )
        if found.unmeasured:
            left = plural(len(found.unmeasured), "tensor")
            print(f"  {left} of the checkpoint without: the optimizer has no moments of them")
    return len(infos)


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
