"""`git theta blame`: for every tensor of a checkpoint, the commit that last changed it."""

from __future__ import annotations

import argparse
from typing import Any

from git_theta_ext import patterns
from git_theta_ext.blocks import Blocks
from git_theta_ext.cli.log import split
from git_theta_ext.comparison.history import Version, blame, first_versions, versions
from git_theta_ext.comparison.overlap import Pair, measure_pairs
from git_theta_ext.comparison.sides import StoredSide
from git_theta_ext.errors import UsageError
from git_theta_ext.report.text import percentage
from git_theta_ext.repository import Repository
from git_theta_ext.text import printable, table, to_json


def add_parser(subparsers: Any) -> None:
    """Add the parser of `blame`."""
    parser = subparsers.add_parser(
        "blame",
        help="show which commit last changed each tensor of a checkpoint",
        description="For every tensor: the commit that last changed it to the bit, its author and "
        "date, the kind of update with its remarks. Reads manifests only, unless --drift is given.",
    )
    parser.add_argument("file", metavar="[REV:]FILE", help="without REV, of HEAD")
    parser.add_argument("tensors", nargs="*", metavar="TENSOR", help="names or patterns")
    parser.add_argument(
        "--drift", action="store_true",
        help="also how far each moved since its first version (reads both)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print who changed what."""
    repository = Repository.discover()
    revision, path = split(args.file)
    history = versions(repository, revision, path)
    found = blame(history)
    if not found:
        raise UsageError(f"{path!r} is not stored tensor by tensor in {revision}")
    names = [name for name in history[0].entries if name in found]
    if args.tensors:
        names = patterns.select(names, args.tensors)
    drift = _drift(repository, history, names) if args.drift else {}
    rows = [_row(name, found[name], history[0], drift.get(name)) for name in names]
    if args.json:
        print(to_json({"file": path, "tensors": rows}))
        return 0
    for line in table([_cells(row, args.drift) for row in rows]):
        print(line)
    return 0


def _drift(
    repository: Repository, history: list[Version], names: list[str]
) -> dict[str, float | None]:
    """The relative change of each tensor since its first version, None where it cannot be said."""
    blocks = Blocks.open(repository)
    first = first_versions(history, set(names))
    entries = {version.commit: version.entries for version in (history[0], *first.values())}
    pairs = {}
    for name, version in first.items():
        old, new = version.manifest, history[0].manifest
        if old is not None and new is not None:
            then, now = entries[version.commit][name], entries[history[0].commit][name]
            pairs[name] = Pair(StoredSide(old, blocks), StoredSide(new, blocks), then, now)
    measures = measure_pairs(list(pairs.values()))
    return {
        name: None if measure is None else measure.relative
        for name, measure in zip(pairs, measures, strict=True)
    }


def _row(name: str, version: Version, newest: Version, drift: float | None) -> dict[str, Any]:
    chains = [block.chain for block in newest.entries[name].blocks]
    last = {(chain[-1].kind, chain[-1].info) for chain in chains if chain}
    kind, info = last.pop() if len(last) == 1 else ("inline" if not last else "several", ())
    return {
        "name": name,
        "commit": version.commit,
        "author": version.author,
        "date": version.date,
        "subject": version.subject,
        "update": kind,
        "remarks": dict(info),
        "drift": drift,
    }


def _cells(row: dict[str, Any], with_drift: bool) -> list[str]:
    remarks = [f"{key}={value}" for key, value in row["remarks"].items()]
    cells = [
        row["commit"][:9], row["date"][:10], printable(row["author"])[:20], printable(row["name"]),
        " ".join([row["update"], *remarks]),
    ]  # fmt: skip
    if with_drift:
        cells.append("" if row["drift"] is None else f"drift {percentage(row['drift'])}")
    return cells
