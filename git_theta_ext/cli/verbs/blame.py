"""`git theta blame`: for every tensor of a checkpoint, the commit that last changed it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from git_theta_ext.checkpoints.contents import LFS_FETCH, Content
from git_theta_ext.checkpoints.coupled.beside import in_revision
from git_theta_ext.checkpoints.coupled.read import quantised
from git_theta_ext.checkpoints.versions import Side
from git_theta_ext.cli import parts
from git_theta_ext.cli.verbs.log import split
from git_theta_ext.comparison.history import Blame, History, blame, entries_of, first_versions
from git_theta_ext.comparison.overlap import Pair, measure_pairs
from git_theta_ext.comparison.report.text import percentage
from git_theta_ext.core import advice, patterns
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, table, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Block, Entry
from git_theta_ext.packages.assemble.origin import Origins


def add_parser(subparsers: Any) -> None:
    """Add the parser of `blame`."""
    parser = subparsers.add_parser(
        "blame",
        help="show which commit last changed each tensor of a checkpoint",
        description="For every tensor: the commit that last changed it to the bit, its author and "
        "date, the kind of update with its remarks; of a checkpoint that was assembled also the "
        "part that it is from. A checkpoint that was renamed is followed. A ^ before a commit says "
        "that an earlier one, which is not here, may have made the change. "
        "Reads manifests only, unless --drift is given.",
    )
    parser.add_argument("file", metavar="[REV:]FILE", help="without REV, of HEAD")
    parser.add_argument(
        "tensors", nargs="*", default=[], metavar="TENSOR", help="names or patterns"
    )
    parts.add_module(parser, "also its tensors, as if they were named")
    parser.add_argument(
        "--drift", action="store_true",
        help="also how far each moved since its first version (reads both)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print who changed what.

    Raises:
        UsageError: there is no such checkpoint or tensor, or its values are not here.
    """
    repository = Repository.discover()
    revision, path = split(repository, args.file)
    wanted = [*args.tensors, *parts.patterns_of(repository, args.module, path)]
    history = History(repository, revision, path)
    content = history.content(history.newest)
    entries = entries_of(None if content is None else content.manifest)
    if content is None or not entries:
        why = history.absent(history.newest) if content is None else _without(content)
        raise UsageError(f"{path!r} is {why} in {revision}")
    found = blame(history)
    names = patterns.select(entries, wanted) if wanted else list(entries)
    if not names:
        raise UsageError(
            f"{path!r} has no {parts.described(args.tensors, args.module)} in {revision}",
            hint=advice.about_version("git theta show VERSION   lists them", revision, path),
        )
    drift = _drift(history, content, entries, names) if args.drift else {}
    schemes = _schemes(history, content, repository, revision)
    rows = [_row(entries[name], found[name], content, drift.get(name)) for name in names]
    origins = Origins(repository, revision, path)
    for row in rows:
        row["quantised"] = schemes.get(row["name"])
        origin = origins.find(row["commit"], row["path"], entries[row["name"]])
        row["origin"] = None if origin is None else origin.record()
    if args.json:
        print(to_json({"file": path, "tensors": rows}))
        return 0
    for line in table([_cells(row, args.drift) for row in rows]):
        print(line)
    _tell_of_doubts(rows)
    return 0


def _without(content: Content) -> str:
    return f"{content.words} and has no tensors"


def _tell_of_doubts(rows: list[dict[str, Any]]) -> None:
    """Say what a ^ means, where there is one."""
    doubtful = [row for row in rows if not row["certain"]]
    if not doubtful:
        return
    if any(row["boundary"] for row in doubtful):
        why, way = "the history of this clone ends there (shallow)", "git fetch --unshallow"
    else:
        why, way = "the version before is not on this machine", LFS_FETCH
    count = plural(len(doubtful), "tensor")
    print(
        f"git theta: ^: {count} may have been changed earlier: {why}\n  hint: {way}",
        file=sys.stderr,
    )


def _drift(
    history: History, content: Content, entries: Mapping[str, Entry], names: list[str]
) -> dict[str, float | None]:
    """The relative change of each tensor since its first version, None where it cannot be said."""
    with ExitStack() as opened:
        sides: dict[str, Side] = {}

        def side_of(one: Content) -> Side | None:
            if one.oid not in sides and (side := history.contents.open(one)) is not None:
                opened.callback(side.close)
                sides[one.oid] = side
            return sides.get(one.oid)

        pairs = {}
        for name, version in first_versions(history, names).items():
            first = history.content(version)
            old, new = None if first is None else side_of(first), side_of(content)
            if old is not None and new is not None:
                pairs[name] = Pair(old, new, entries_of(old.manifest)[name], entries[name])
        measures = measure_pairs(list(pairs.values()))
    return {
        name: None if measure is None else measure.relative
        for name, measure in zip(pairs, measures, strict=True)
    }


def _schemes(
    history: History, content: Content, repository: Repository, revision: str
) -> dict[str, str]:
    """How the weights are quantised that tensors are part of, as far as this machine can tell."""
    side = history.contents.open(content) if content.storage == "tensors" else None
    if side is None:
        return {}
    store = history.contents.blocks.store

    def at_hand(blocks: Sequence[Block]) -> bool:
        return all(store.has(ref.oid, ref.size) for one in blocks for ref in one.objects())

    config = partial(in_revision, repository, revision, history.newest.path)
    found = quantised(side, config, at_hand).values()
    return {part: weight.scheme.words for weight in found for part in weight.parts}


def _row(entry: Entry, found: Blame, newest: Content, drift: float | None) -> dict[str, Any]:
    """One tensor as a record for `--json`, which the text is made from, too."""
    version = found.version
    kind, info = _update(entry, newest)
    return {
        "name": entry.tensor.name,
        "commit": version.commit,
        "author": version.author,
        "date": version.date,
        "subject": version.subject,
        "path": version.path,
        "certain": found.certain,
        "boundary": version.boundary,
        "update": kind,
        "remarks": dict(info),
        "drift": drift,
    }


def _update(entry: Entry, newest: Content) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The kind of update that the newest version has of a tensor, and its remarks."""
    if newest.storage != "tensors":
        return newest.storage, ()
    last = {(chain[-1].kind, chain[-1].info) for b in entry.blocks if (chain := b.chain)}
    if len(last) == 1:
        return last.pop()
    return ("several" if last else "inline"), ()


def _cells(row: dict[str, Any], with_drift: bool) -> list[str]:
    remarks = [f"{key}={value}" for key, value in row["remarks"].items()]
    cells = [
        ("" if row["certain"] else "^") + row["commit"][:9], row["date"][:10],
        printable(row["author"])[:20], printable(row["name"]), " ".join([row["update"], *remarks]),
    ]  # fmt: skip
    if with_drift:
        cells.append("" if row["drift"] is None else f"drift {percentage(row['drift'])}")
    if row["quantised"] is not None:
        cells.append(printable(row["quantised"]))
    if row["origin"] is not None:
        cells.append(f"from {printable(row['origin']['words'])}")
    return cells
