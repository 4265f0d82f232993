"""`git theta log`: the commits that changed a checkpoint, or some of its tensors."""

from __future__ import annotations

import argparse
from typing import Any

from git_theta_ext import patterns
from git_theta_ext.blocks import Blocks
from git_theta_ext.comparison.compare import Change, Comparison, compare
from git_theta_ext.comparison.history import Version, changes, versions
from git_theta_ext.comparison.sides import StoredSide
from git_theta_ext.report.groups import group
from git_theta_ext.repository import Repository
from git_theta_ext.text import printable, size, to_json

_LISTED = 6


def add_parser(subparsers: Any) -> None:
    """Add the parser of `log`."""
    parser = subparsers.add_parser(
        "log",
        help="show the commits that changed a checkpoint, or some of its tensors",
        description="Show the commits that changed a checkpoint, newest first, each with what it "
        "changed. With TENSOR, only those that changed a tensor whose name matches. Reads "
        "manifests only.",
    )
    parser.add_argument("file", metavar="[REV:]FILE", help="without REV, from HEAD")
    parser.add_argument("tensors", nargs="*", metavar="TENSOR", help="names or patterns")
    parser.add_argument("-n", "--max-count", type=int, metavar="N", help="at most N commits")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def split(name: str) -> tuple[str, str]:
    """Revision and path of `REV:FILE`; HEAD where there is no revision."""
    revision, colon, path = name.partition(":")
    return (revision or "HEAD", path) if colon else ("HEAD", name)


def run(args: argparse.Namespace) -> int:
    """Print the log."""
    repository = Repository.discover()
    revision, path = split(args.file)
    blocks = Blocks.open(repository)
    rows: list[dict[str, Any]] = []
    for version, before in changes(versions(repository, revision, path)):
        if args.max_count is not None and len(rows) >= args.max_count:
            break
        comparison = _compare(version, before, blocks)
        touched = _touched(comparison, args.tensors)
        if args.tensors and not touched:
            continue
        rows.append(_row(version, comparison, touched))
        if not args.json:
            _show(rows[-1], touched, len(rows) > 1)
    if args.json:
        print(to_json({"file": path, "commits": rows}))
    return 0


def _compare(version: Version, before: Version | None, blocks: Blocks) -> Comparison:
    sides = [
        None if one is None or one.manifest is None else StoredSide(one.manifest, blocks)
        for one in (before, version)
    ]
    return compare(sides[0], sides[1], measured=False)


def _touched(comparison: Comparison, wanted: list[str]) -> list[Change]:
    changed = list(comparison.changes)
    if not wanted:
        return changed
    names = set(patterns.select([change.name for change in changed], wanted))
    return [change for change in changed if change.name in names]


def _row(version: Version, comparison: Comparison, touched: list[Change]) -> dict[str, Any]:
    return {
        "commit": version.commit,
        "author": version.author,
        "date": version.date,
        "subject": version.subject,
        "tensors": comparison.tensors,
        "changed": len(comparison.changes),
        "stored": comparison.stored,
        "deleted": comparison.new_format is None,
        "changes": [
            {
                "name": change.name, "status": change.status, "update": change.kind,
                "remarks": dict(change.info), "stored": change.stored,
            }
            for change in touched
        ],
    }  # fmt: skip


def _show(row: dict[str, Any], touched: list[Change], gap: bool) -> None:
    if gap:
        print()
    print(f"{row['commit'][:9]}  {row['date'][:10]}  {printable(row['author'])}")
    print(f"    {printable(row['subject'])}")
    if row["deleted"]:
        print("    deleted")
        return
    counts = f"{row['changed']:,} of {row['tensors']:,} tensors changed"
    print(f"    {counts}, stores {size(row['stored'])}")
    groups = group(touched)
    for one in groups[:_LISTED]:
        first = one.changes[0]
        sign = {"added": "+", "removed": "-", "renamed": ">"}.get(first.status, "~")
        kind = first.kind or ("" if first.status == "removed" else first.status)
        remarks = [f"{key}={value}" for key, value in first.info] if len(one.changes) == 1 else []
        print("      " + " ".join([sign, printable(one.name), "", kind, *remarks]).rstrip())
    left = sum(len(one.changes) for one in groups[_LISTED:])
    if left:
        print(f"      … and {left:,} more")
