"""`git theta prune`: remove local objects that are not needed, or that the remote has."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, size, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects import prune
from git_theta_ext.objects.prune import Plan, Rules
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import endpoints, presence
from git_theta_ext.objects.transfer.endpoints import Endpoint

_KEEP_DAYS = "14"
"""As long as `git gc` leaves what nothing names."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `prune`."""
    parser = subparsers.add_parser(
        "prune",
        help="remove local objects that the remote has",
        description="Remove objects of the local store that only older versions need and that the "
        "remote has, and objects that nothing names.",
    )
    parser.add_argument(
        "--dry-run", "-n", "-d", action="store_true", help="only say what would be removed"
    )
    parser.add_argument("--verbose", "-v", action="store_true", help="name each object")
    parser.add_argument(
        "--keep-days", metavar="N", help="keep what commits of the last N days need (default: 14)"
    )
    parser.add_argument("--remote", metavar="NAME", help="the remote to ask")
    verify = parser.add_mutually_exclusive_group()
    verify.add_argument(
        "--verify-remote", "-c", action="store_true", default=None,
        help="ask the remote what it has (the default)",
    )  # fmt: skip
    verify.add_argument(
        "--no-verify-remote", action="store_false", dest="verify_remote",
        help="trust the record of earlier pushes",
    )  # fmt: skip
    parser.add_argument(
        "--verify-unreachable", action="store_true",
        help="remove an object that nothing names only if the remote has it, too",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan, carry out unless it is a dry run, and print."""
    repository = Repository.discover()
    prune.refuse_shared(repository)
    ask = args.verify_remote
    rules = Rules(
        _days(repository, args.keep_days),
        repository.flag("theta.pruneVerifyRemote", True) if ask is None else ask,
        args.verify_unreachable,
    )
    remote = args.remote or repository.setting("theta.pruneRemote")
    remote = remote or endpoints.keeping_remote(repository)
    endpoint = presence.endpoint_of(repository, remote) if remote else None
    total = sum(found.st_size for _, found in store_of(repository).entries())
    with Progress(f"Asking {remote}", total if remote else 0) as progress:
        found = prune.plan(repository, endpoint, rules, progress)
    removed = found.removable
    if not args.dry_run and removed:
        with Progress("Removing", sum(removed.values())) as progress:
            removed = prune.carry_out(repository, endpoint, found, rules, progress)
    if args.json:
        print(to_json(_record(found, removed, endpoint, args.dry_run)))
        return 0
    if args.verbose:
        for oid, count in sorted(removed.items()):
            print(f"  {oid} ({size(count)})")
    verb = "would remove" if args.dry_run else "removed"
    left = sum(map(len, (found.kept, found.young, found.lacking, found.unpushed)))
    print(
        f"{verb} {plural(len(removed), 'object')} ({size(sum(removed.values()))}), "
        f"kept {plural(left, 'object')}"
    )
    if endpoint is not None:
        print(f"  relied on: {printable(endpoint.remote)} ({endpoint})")
    if found.dead:
        print(f"  of the packs that are kept, {size(found.dead)} is of other versions")
    _explain(found, remote)
    return 0


def _explain(found: Plan, remote: str | None) -> None:
    """Say on stderr what of older versions stays, why, and what to type."""
    if found.unpushed:
        where = f"never pushed to {printable(remote)}" if remote else "there is no remote"
        print(
            f"  {plural(len(found.unpushed), 'object')} of other versions stay: {where}",
            file=sys.stderr,
        )
    if found.lacking and remote:
        shown = printable(remote)
        print(
            f"  {plural(len(found.lacking), 'object')} of older versions stay: not at {shown}\n"
            f"  hint: git theta push {shown} --all",
            file=sys.stderr,
        )


def _days(repository: Repository, option: str | None) -> float:
    text = option if option is not None else repository.setting("theta.pruneKeepDays", _KEEP_DAYS)
    try:
        days = float(text or "")
    except ValueError:
        days = math.nan
    if not 0 <= days < 36_500:
        raise UsageError(f"{printable(str(text))} is not a number of days")
    return days


def _record(
    found: Plan, removed: dict[str, int], endpoint: Endpoint | None, dry: bool
) -> dict[str, Any]:
    """What was or would be done, as JSON has it."""
    return {
        "dry_run": dry,
        "remote": endpoint.remote if endpoint else None,
        "endpoint": str(endpoint) if endpoint else None,
        "removed": [{"oid": oid, "bytes": count} for oid, count in sorted(removed.items())],
        "bytes": sum(removed.values()),
        "confirmed": len(found.confirmed),
        "unreachable": len(found.garbage),
        "lacking": len(found.lacking),
        "unpushed": len(found.unpushed),
        "kept": len(found.kept) + len(found.young),
        "dead": found.dead,
    }
