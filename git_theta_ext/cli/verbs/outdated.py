"""`git theta outdated`: which models have newer versions than those that are locked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from git_theta_ext.core.text import printable, table, to_json
from git_theta_ext.packages.locking.project import find
from git_theta_ext.packages.locking.update import Standing, standings


def add_parser(subparsers: Any) -> None:
    """Add the parser of `outdated`."""
    parser = subparsers.add_parser(
        "outdated",
        help="show which models of theta.lock have newer versions",
        description="Show the locked version of each model, the newest that models.toml allows, "
        "and the newest of all. Exits with 1 if git theta update would move one.",
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    found = standings(find(Path.cwd()))
    if args.json:
        print(to_json([_record(one) for one in found]))
    elif not found:
        print("models.toml names no models")
    else:
        rows = [["model", "locked", "allowed", "newest"]]
        rows += [[one.name, *map(printable, _cells(one))] for one in found]
        print("\n".join(table(rows)))
    return 1 if any(one.outdated for one in found) else 0


def _cells(one: Standing) -> list[str]:
    locked = "-" if one.locked is None else one.locked.label
    labels = [locked, one.allowed.label, one.newest.label]
    if one.locked is None or not one.outdated or locked != one.allowed.label:
        return labels
    commits = (one.locked.commit, one.allowed.commit, one.newest.commit)  # a tag that was moved
    return [
        f"{label} ({commit[:10]})" if label == locked else label
        for label, commit in zip(labels, commits, strict=True)
    ]


def _record(one: Standing) -> dict[str, Any]:
    locked, allowed, newest = _cells(one)
    return {
        "name": one.name,
        "locked": None if one.locked is None else locked,
        "allowed": allowed,
        "newest": newest,
        "outdated": one.outdated,
    }
