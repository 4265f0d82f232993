"""`git theta export A..B --to peft|...`: the options, the export, and what is said of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints.adapters.layers import Told
from git_theta_ext.cli.progress import Progress
from git_theta_ext.core import advice
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, size, table, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.packages.adapter import base, entries, gguf_lora, ia3, lora
from git_theta_ext.packages.adapter import ends as versions
from git_theta_ext.packages.adapter.ends import Ends
from git_theta_ext.packages.adapter.error import Error
from git_theta_ext.packages.adapter.plan import REST, Plan, Wanted

KINDS = ("peft", "ia3", "sparse", "diff", "gguf-lora")
"""What `--to` may be besides a container: what a commit is exported as."""

_LAYERS = ("conv1d", "embedding", "linear")
_OURS = ("rank", "tolerance", "rest", "base_model", "prefix", *_LAYERS, "exact", "json")
_RESHAPING = ("tensors", "drop", "strip_prefix", "dtype", "allow_overflow", "max_shard_size")
_DEFAULT = {"rest": "refuse"}
_TAKEN = {
    "peft": frozenset(_OURS),
    "gguf-lora": frozenset(("rank", "tolerance", *_LAYERS, "json")),
    "ia3": frozenset(("base_model", "prefix", *_LAYERS, "json")),
    "sparse": frozenset(("json",)),
    "diff": frozenset(("json",)),
}
"""The options that each kind of export takes."""


def add_options(parser: Any) -> None:
    """The options of an export of a commit."""
    group = parser.add_argument_group(
        "a commit as an adapter", "A..B in place of [REV:]FILE, with --to peft"
    )
    group.add_argument(
        "--rank", type=_natural, metavar="N",
        help="fit factors of up to this rank where the update is of none; default: refuse it",
    )  # fmt: skip
    group.add_argument(
        "--tolerance", type=_share, metavar="X",
        help="the smallest rank that misses no more than this share of the change, such as 0.01",
    )  # fmt: skip
    group.add_argument(
        "--rest", choices=REST, default="refuse",
        help="what becomes of tensors without factors (default: refuse)",
    )  # fmt: skip
    group.add_argument(
        "--base-model", metavar="NAME", help="what adapter_config.json calls the base model"
    )
    group.add_argument(
        "--prefix", default="", metavar="TEXT",
        help="put this before every name, such as 'transformer.', where the model that loads the "
        "adapter has it and the checkpoint does not",
    )  # fmt: skip
    for kind, what in (("conv1d", "GPT-2's Conv1D"), ("embedding", "an embedding"),
                       ("linear", "a linear layer")):  # fmt: skip
        group.add_argument(
            f"--{kind}", action="append", default=[], metavar="PATTERN",
            help=f"tensors that are the weights of {what}",
        )  # fmt: skip
    exact = group.add_mutually_exclusive_group()
    exact.add_argument(
        "--exact", action="store_true", default=None,
        help="also write what the factors miss, however much it is, so that they give the commit",
    )  # fmt: skip
    exact.add_argument("--no-exact", dest="exact", action="store_false", help="never write that")
    group.add_argument("--json", action="store_true", help="print the report as JSON")


def _natural(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number between 0 and 1")
    return number


_NAMED = 8


def run(args: argparse.Namespace) -> int:
    """Export what changed between two versions, and report what it misses."""
    _require_taken(args, _TAKEN[args.to], f"--to {args.to}")
    repository = Repository.discover()
    ends = versions.open_ends(repository, args.file)
    try:
        status = _EXPORTS[args.to](repository, ends, args)
        if ends.left_out:
            named = [printable(one) for one in ends.left_out]
            more = ["…"] if len(named) > _NAMED else []
            said = ", ".join([*named[:_NAMED], *more])
            print(f"git-theta: differs, too, and is not in it: {said}", file=sys.stderr)
        return status
    finally:
        ends.close()


def refuse(args: argparse.Namespace) -> None:
    """Refuse what is about adapters where tensors of one version are exported.

    Raises:
        UsageError: two versions are named, or an option is given that has no meaning there.
    """
    if versions.is_range(args.file):
        raise UsageError(
            f"{args.file} names two versions: what changed between them is an adapter",
            hint=advice.with_name("git theta export RANGE --to peft -o FOLDER", args.file, "RANGE"),
        )
    _require_taken(args, frozenset({*_RESHAPING, "json"}), "a file of one version")


def _require_taken(args: argparse.Namespace, taken: frozenset[str], what: str) -> None:
    """Refuse options that would be given for nothing."""
    for name in (*_OURS, *_RESHAPING):
        value = getattr(args, name, None)
        if name not in taken and value not in (None, [], "", False, _DEFAULT.get(name)):
            raise UsageError(f"--{name.replace('_', '-')} has no meaning for {what}")


def _told(ends: Ends, args: argparse.Namespace) -> Told:
    options = {kind: getattr(args, kind) for kind in _LAYERS}
    return Told.of(list(ends.after), options)


def _progress(ends: Ends) -> Progress:
    return Progress("Exporting", sum(ends.after[name].tensor.nbytes for name in ends.changed))


def _peft(repository: Repository, ends: Ends, args: argparse.Namespace) -> int:
    """Write a LoRA, and say what it misses module by module and in all."""
    wanted = Wanted(args.rank, args.tolerance, args.rest, _told(ends, args))
    with _progress(ends) as progress:
        done = lora.export(
            ends,
            Path(args.output),
            args.file,
            wanted,
            base=args.base_model or base.locked_as(repository, ends),
            record=base.record_of(repository, ends),
            prefix=args.prefix,
            exact=args.exact,
            work_tree=repository.work_tree,
            advance=progress,
        )
    if args.json:
        print(to_json(lora.report(done, ends, args.output)))
        return 0
    found = done.plan
    _print_modules(found)
    whole = [(found.biases, "bias", "biases"), (found.saved, "module", "modules")]
    said = [f"{plural(len(names), one, many)} in full" for names, one, many in whole if names]
    ranks = sorted({one.factored.rank for one in found.modules})
    rank = f"rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else "")
    what = ", ".join(["lora", plural(len(found.modules), "module"), rank, *said])
    print(f"{printable(args.output)}: {what}, {size(done.nbytes)}; {error_text(found.total)}")
    if done.corrections:
        print(f"  corrections.safetensors, {size(done.corrections)}: with it git theta add "
              "--update gives the commit exactly")  # fmt: skip
    if done.lacking:
        print(f"  --exact adds what git theta add --update needs to give the commit exactly: "
              f"{size(done.lacking)}")  # fmt: skip
    if done.base is None:
        print("  adapter_config.json names no base model: --base-model NAME writes one")
    return 0


def error_text(error: Error) -> str:
    """How far from the commit, in words."""
    if error.exact:
        return "exact"
    share = 100 * error.differ / max(error.count, 1)
    return (
        f"{share:.2g} % of the entries differ, by at most {plural(error.most, 'ulp')}; "
        f"{error.relative:.2g} of the change is missed"
    )


def _gguf(repository: Repository, ends: Ends, args: argparse.Namespace) -> int:
    """Write a LoRA for llama.cpp, and say what it misses module by module and in all."""
    wanted = Wanted(args.rank, args.tolerance, told=_told(ends, args))
    with _progress(ends) as progress:
        done = gguf_lora.export(
            ends,
            Path(args.output),
            args.file,
            wanted,
            work_tree=repository.work_tree,
            advance=progress,
        )
    if args.json:
        print(to_json({**_ends_record(ends, args), "kind": "gguf-lora",
                       "architecture": done.architecture, "modules": lora.modules(done.plan),
                       "error": lora.error_record(done.plan.total),
                       "bytes": done.nbytes}))  # fmt: skip
        return 0
    _print_modules(done.plan)
    print(f"{printable(args.output)}: lora for llama.cpp ({printable(done.architecture)}), "
          f"{plural(len(done.plan.modules), 'module')}, {size(done.nbytes)}; "
          f"{error_text(done.plan.total)}")  # fmt: skip
    return 0


def _print_modules(found: Plan) -> None:
    rows = [
        [printable(one.name), one.layer, f"rank {one.factored.rank}", one.factored.source,
         error_text(one.error)]
        for one in found.modules
    ]  # fmt: skip
    for line in table(rows):
        print(f"  {line}")


def _ia3(repository: Repository, ends: Ends, args: argparse.Namespace) -> int:
    """Write an IA3 adapter, and say what it misses."""
    with _progress(ends) as progress:
        done = ia3.export(
            ends,
            Path(args.output),
            args.file,
            _told(ends, args),
            base=args.base_model or base.locked_as(repository, ends),
            record=base.record_of(repository, ends),
            prefix=args.prefix,
            work_tree=repository.work_tree,
            advance=progress,
        )
    if args.json:
        modules = [
            {"name": one.name, "layer": one.layer, "scales": "outputs" if one.outputs else "inputs",
             **lora.error_record(one.error)}
            for one in done.modules
        ]  # fmt: skip
        print(to_json({**_ends_record(ends, args), "kind": "ia3", "modules": modules,
                       "error": lora.error_record(done.total), "bytes": done.nbytes,
                       "exact": done.total.exact}))  # fmt: skip
        return 0
    rows = [
        [printable(one.name), one.layer, "outputs" if one.outputs else "inputs",
         error_text(one.error)]
        for one in done.modules
    ]  # fmt: skip
    for line in table(rows):
        print(f"  {line}")
    print(f"{printable(args.output)}: ia3, {plural(len(done.modules), 'module')}, "
          f"{size(done.nbytes)}; {error_text(done.total)}")  # fmt: skip
    return 0


def _entries(repository: Repository, ends: Ends, args: argparse.Namespace) -> int:
    """Write a file of entries or differences, and say how many are listed."""
    with _progress(ends) as progress:
        done = entries.export(ends, Path(args.output), args.to, repository.work_tree, progress)
    listed = sum(count for _, count in done.tensors.values())
    if args.json:
        tensors = [{"name": name, "entries": count, "listed": some}
                   for name, (count, some) in done.tensors.items()]  # fmt: skip
        print(to_json({**_ends_record(ends, args), "kind": args.to, "tensors": tensors,
                       "bytes": done.nbytes, "exact": True}))  # fmt: skip
        return 0
    for line in table(
        [
            [printable(name), f"{some:,} of {count:,} entries listed"]
            for name, (count, some) in done.tensors.items()
        ]
    ):
        print(f"  {line}")
    print(f"{printable(args.output)}: {args.to}, {plural(len(done.tensors), 'tensor')}, "
          f"{listed:,} entries listed, {size(done.nbytes)}; exact")  # fmt: skip
    return 0


def _ends_record(ends: Ends, args: argparse.Namespace) -> dict[str, Any]:
    return {"path": ends.path, "from": ends.first, "to": ends.last, "output": args.output,
            "left_out": ends.left_out}  # fmt: skip


_Export = Callable[[Repository, Ends, argparse.Namespace], int]
_EXPORTS: dict[str, _Export] = {
    "peft": _peft,
    "ia3": _ia3,
    "sparse": _entries,
    "diff": _entries,
    "gguf-lora": _gguf,
}
