"""`git theta cache`: what was got of other repositories, how much it takes, and its end."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.errors import CorruptObjectError, UsageError
from git_theta_ext.core.text import plural, printable, size, table, to_json
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.remote import without_secret
from git_theta_ext.packages.trimming import (
    LIMIT,
    Rules,
    Trimmed,
    Version,
    limit_set,
    prune,
    size_named,
    total,
    verify,
    versions,
)

_DAY = 24 * 3600


def add_parser(subparsers: Any) -> None:
    """Add the parser of `cache`."""
    parser = subparsers.add_parser(
        "cache",
        help="show, check and empty the cache of models of other repositories",
        description="The cache holds what was fetched of other repositories: the versions of all "
        "share one store of objects. It is safe to empty.",
    )
    parser.add_argument(
        "action", choices=list(_ACTIONS), nargs="?", default="list",
        help="list (default): the versions, what was used last first; prune: remove versions, and "
        "what none needs; verify: hash every object, and remove what is damaged",
    )  # fmt: skip
    parser.add_argument(
        "urls", nargs="*", metavar="URL", help="prune: all versions of this repository"
    )
    parser.add_argument("--all", action="store_true", help="prune: everything")
    parser.add_argument(
        "--unused", metavar="DAYS", help="prune: what was not used for so many days"
    )
    parser.add_argument(
        "--limit", metavar="SIZE",
        help="prune: what was longest not used, until the cache takes no more than SIZE, such as "
        "50GB (default: theta.cacheLimit)",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", "-n", "-d", action="store_true", help="prune: only say what would be removed"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, answers=lambda args: args.action != "prune")


def run(args: argparse.Namespace) -> int:
    """Do what was asked for.

    Raises:
        UsageError: an option is not one of that action.
    """
    pruning = args.urls or args.all or args.unused or args.limit or args.dry_run
    if args.action != "prune" and pruning:
        raise UsageError(
            f"{args.action} takes no URL and no option but --json",
            hint="git theta cache prune -h",
        )
    return _ACTIONS[args.action](args)


def _list(args: argparse.Namespace) -> int:
    """Show the versions, and what all of them take."""
    cache = Cache.open()
    found, taken = versions(cache), total(cache)
    if args.json:
        records = [_record(one) for one in found]
        print(to_json({"cache": str(cache.root), "bytes": taken, "versions": records}))
        return 0
    rows = [
        [
            printable(without_secret(one.url)), _named(one), one.commit[:12], size(one.size),
            datetime.fromtimestamp(one.used).strftime("%Y-%m-%d %H:%M"),
        ]
        for one in found
    ]  # fmt: skip
    for line in table(
        [["URL", "VERSION", "COMMIT", "OBJECTS", "LAST USED"], *rows] if rows else []
    ):
        print(line)
    print(f"{plural(len(found), 'version')}, {size(taken)} in {printable(str(cache.root))}")
    return 0


def _named(version: Version) -> str:
    return printable(", ".join(name for name in version.names if name != version.commit) or "-")


def _record(version: Version) -> dict[str, Any]:
    return {
        "url": without_secret(version.url),
        "names": list(version.names),
        "commit": version.commit,
        "objects": len(version.objects),
        "bytes": version.size,
        "used": int(version.used),
    }


def _prune(args: argparse.Namespace) -> int:
    """Remove what the options name, or what is too much, and say what it was."""
    cache = Cache.open()
    limit = args.limit
    where = "--limit"
    if limit is None and not (args.urls or args.all or args.unused):
        limit, where = limit_set(), LIMIT
    rules = Rules(
        args.all,
        tuple(args.urls),
        None if args.unused is None else _days(args.unused) * _DAY,
        None if limit is None else size_named(limit, where),
    )
    done = prune(cache, rules, dry_run=args.dry_run)
    if args.json:
        print(to_json(_trimmed(done, args.dry_run)))
        return 0
    verb = "would remove" if args.dry_run else "removed"
    for one in done.versions:
        print(f"  {printable(without_secret(one.url))}  {_named(one)}  {one.commit[:12]}")
    print(
        f"{verb} {plural(len(done.versions), 'version')} and {plural(len(done.objects), 'object')}"
        f" ({size(done.bytes)}); the cache takes {size(done.left)}"
    )
    return 0


def _trimmed(done: Trimmed, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "versions": [_record(one) for one in done.versions],
        "objects": len(done.objects),
        "bytes": done.bytes,
        "left": done.left,
    }


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days < 36_500:
        raise UsageError(f"{printable(text)} is not a number of days")
    return days


def _verify(args: argparse.Namespace) -> int:
    """Check everything; what is damaged was removed when this says so."""
    cache = Cache.open()
    with Progress("Checking", 0 if args.json else total(cache)) as progress:
        found = verify(cache, progress)
    wrong = bool(found.damaged or found.repositories)
    if args.json:
        print(
            to_json(
                {
                    "objects": found.objects,
                    "bytes": found.bytes,
                    "damaged": list(found.damaged),
                    "repositories": [without_secret(url) for url in found.repositories],
                }
            )
        )
        return CorruptObjectError.exit_code if wrong else 0
    for oid in found.damaged:
        print(f"object {oid} was damaged: removed")
    for url in found.repositories:
        print(f"what Git had of {printable(without_secret(url))} was damaged: removed")
    problems = len(found.damaged) + len(found.repositories)
    print(
        f"checked {plural(found.objects, 'object')} ({size(found.bytes)}):"
        f" {plural(problems, 'problem')}"
    )
    if wrong:
        print("what was removed is fetched again when it is next needed")
    return CorruptObjectError.exit_code if wrong else 0


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "prune": _prune,
    "verify": _verify,
}
