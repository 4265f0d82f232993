"""`git theta show`: the tensors of a version of a checkpoint, or one of them; what a patch does."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from git_theta_ext.checkpoints.read import Checkpoint, open_checkpoint
from git_theta_ext.cli.shown import merges
from git_theta_ext.core import advice, patterns
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.text import near_name, plural, printable, size, table, to_json
from git_theta_ext.core.values import as_floats, values_dtype
from git_theta_ext.git.paths import version_typed
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Link, UpdateRef
from git_theta_ext.packages.patches import words
from git_theta_ext.packages.patches.opened import is_patch, opened

_PATCHES = (".patch", ".bundle", ".eml", ".mbox")
_BYTES_FOR_VALUE = 17
"""What the numbers of a value take: as float64, those that are finite, and which are."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `show`."""
    parser = subparsers.add_parser(
        "show",
        help="show a version of a checkpoint, one of its tensors, a merge, or a patch",
        description="Without TENSOR, list the tensors of a version with dtype, shape and how each "
        "is stored. With TENSOR, show each tensor that matches with the numbers of its values. "
        "Of a merge, show for each tensor which side it is as in, or how the merge made it. "
        "Of a patch that git theta format-patch wrote, show what it does, tensor by tensor.",
    )
    parser.add_argument(
        "file",
        metavar="[REV:]FILE | MERGE",
        help="without REV, of HEAD; or a merge commit, or a patch, anywhere",
    )
    parser.add_argument(
        "tensors", nargs="*", default=[], metavar="TENSOR", help="names or patterns"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show."""
    if not args.tensors and is_patch(Path(args.file)):
        return _show_patch(args.file, args.json)
    try:
        repository = Repository.discover()
        version = version_typed(repository, args.file)
        commit = merges.commit_named(repository, args.file)
        if commit is not None and repository.resolve(version) is None:
            return _show_commit(repository, commit, args)
        checkpoint = open_checkpoint(repository, version)
    except (UsageError, RepositoryError):
        if args.tensors or not _called_patch(Path(args.file)):
            raise
        return _show_patch(args.file, args.json)  # which says why it is none
    if args.tensors:
        return _show_tensors(checkpoint, args.tensors, args.json)
    records = checkpoint.to_records()
    if args.json:
        print(to_json({"file": args.file, **_summary(checkpoint), "tensors": records}))
        return 0
    summary = _summary(checkpoint)
    print(
        f"{printable(args.file)}  {checkpoint.format}  {plural(len(records), 'tensor')}, "
        f"{plural(summary['parameters'], 'parameter')}"
    )
    for key, value in checkpoint.metadata.items():
        print(f"  {printable(key)}: {printable(value)}")
    rows = [
        ["", printable(row["name"]), row["dtype"], str(list(row["shape"])), size(row["bytes"]),
         f"stored in {size(row['stored'])}", " + ".join(row["updates"])]
        for row in records
    ]  # fmt: skip
    for line in table(rows):
        print(line)
    return 0


def _show_commit(repository: Repository, commit: str, args: argparse.Namespace) -> int:
    """Show a merge.

    Raises:
        UsageError: the commit is none.
    """
    if len(merges.parents_of(repository, commit)) < 2:
        named = args.file if printable(args.file) == args.file else commit
        raise UsageError(
            f"{args.file!r} is a commit, and no merge",
            hint=f"git theta diff {shlex.quote(f'{named}^')} {shlex.quote(named)}"
            "   shows what it changed",
        )
    merges.show(repository, commit, args.tensors, as_json=args.json)
    return 0


def _called_patch(path: Path) -> bool:
    """Whether a file is there that its name says to be a patch, or a mail."""
    return path.suffix in _PATCHES and path.is_file()


def _show_patch(name: str, as_json: bool) -> int:
    """Print what a patch does; no repository is needed."""
    with opened(name) as patch:
        if as_json:
            print(to_json(words.record(patch)))
            return 0
        print(f"{printable(name)}: a patch")
        for line in words.lines(patch):
            print(line)
    return 0


def _summary(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "format": checkpoint.format,
        "parameters": sum(checkpoint.info(name).count for name in checkpoint),
        "metadata": checkpoint.metadata,
    }


def _show_tensors(checkpoint: Checkpoint, wanted: list[str], as_json: bool) -> int:
    """Print the values in figures and the storage of each tensor whose name matches."""
    names = patterns.select(checkpoint, wanted)
    if not names:
        near = near_name(wanted[0], list(checkpoint))
        raise UsageError(
            f"{checkpoint.name} has no tensor {wanted[0]!r}",
            hint=advice.with_name("git theta show FILE   lists them", checkpoint.name)
            if near is None
            else f"did you mean: {printable(near)}",
        )
    checkpoint.fetch(names)
    found = [_describe(checkpoint, name) for name in names]
    if as_json:
        print(to_json({"file": checkpoint.name, "tensors": found}))
        return 0
    for row in found:
        print(f"{printable(row['name'])}  {row['dtype']} {row['shape']}  {size(row['bytes'])}")
        if row["order"] is not None:
            print(f"  memory order  {row['order']}")
        if row["values"] is not None:
            numbers = "  ".join(f"{key} {value:.6g}" for key, value in row["values"].items())
            print(f"  values        {numbers}")
        for at, block in enumerate(row["blocks"]):
            label = "stored" if len(row["blocks"]) == 1 else f"block {at}"
            print(f"  {label:<12}  sha256:{block['sha256']}")
            for update in block["chain"] or [{"kind": "inline", "size": None, "info": {}}]:
                info = "".join(f"  {key}={value}" for key, value in update["info"].items())
                length = "" if update["size"] is None else f"  {size(update['size'])}"
                print(f"                {update['kind']}{length}{printable(info)}")
    return 0


def _describe(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """One tensor as a record: its type, figures on its values, and the chain of each block."""
    entry = checkpoint.entry(name)
    info = entry.tensor
    return {
        "name": name,
        "dtype": info.dtype.name,
        "shape": list(info.shape),
        "order": None if info.order is None else list(info.order),
        "bytes": info.nbytes,
        "values": _numbers(checkpoint, name),
        "blocks": [
            {
                "sha256": block.sha256,
                "bytes": block.nbytes,
                "chain": [_link(link) for link in block.chain],
            }
            for block in entry.blocks
        ],
    }


def _link(link: Link) -> dict[str, Any]:
    """A parameter file as a record, with the part of its object; or a merge with its parents."""
    if isinstance(link, UpdateRef):
        part = {} if link.part is None else {"part": list(link.part)}
        return {
            "kind": link.kind, "oid": link.oid, "size": link.size, **part, "info": dict(link.info),
        }  # fmt: skip
    return {
        "kind": link.kind,
        "strategy": link.strategy,
        "recipe": link.number,
        "settings": dict(link.settings),
        "parents": [
            {"name": parent.name, "chain": [_link(ref) for ref in parent.chain]}
            for parent in link.parents
        ],
    }


def _numbers(checkpoint: Checkpoint, name: str) -> dict[str, float] | None:
    """Mean, deviation and extremes of the finite values; None where there are no numbers."""
    info = checkpoint.info(name)
    checkpoint.check_held([name], _BYTES_FOR_VALUE * info.count)
    array = np.ascontiguousarray(checkpoint[name]).reshape(-1)
    if info.dtype.kind in ("int", "uint") and array.dtype.kind in "iu":
        floats = array.astype(np.float64)
    else:
        found = as_floats(info.dtype, array.view(values_dtype(info.dtype)))
        if found is None:
            return None
        with np.errstate(invalid="ignore"):
            floats = found.astype(np.float64)
    finite = floats[np.isfinite(floats)]
    numbers = {"zeros": float(np.count_nonzero(floats == 0))}
    if len(finite) < len(floats):
        numbers["not finite"] = float(len(floats) - len(finite))
    if len(finite):
        numbers = {
            "mean": float(finite.mean()), "std": float(finite.std()),
            "min": float(finite.min()), "max": float(finite.max()), **numbers,
        }  # fmt: skip
    return numbers
