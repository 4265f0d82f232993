"""`git theta prune`: make room in the local store, and lose nothing."""

from __future__ import annotations

import argparse
from typing import Any

from git_theta_ext import endpoints, pruning
from git_theta_ext.cli.text import plural, printable, size, to_json
from git_theta_ext.errors import UsageError
from git_theta_ext.manifest import UpdateRef
from git_theta_ext.repository import Repository

_KEEP_DAYS = 10.0
"""As git-lfs has it: a week of fetched refs, and three days more."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `prune`."""
    parser = subparsers.add_parser(
        "prune",
        help="remove local objects that are safe at the remote, or that nothing needs",
        description="Remove objects from the local store that nothing at hand needs and that the "
        "remote, asked now, has; and old ones that nothing names at all.",
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would go")
    parser.add_argument(
        "--keep-days", type=float, metavar="N",
        help="keep what commits of the last N days need (default: theta.pruneKeepDays, or 10)",
    )  # fmt: skip
    parser.add_argument(
        "--remote", metavar="NAME", help="ask this remote (default: the branch's, or origin)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="name every object")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prune, or say what that would do."""
    repository = Repository.discover()
    days = _keep_days(repository, args.keep_days)
    remote = args.remote or endpoints.default_remote(repository)
    if args.dry_run:
        found, removed, freed = pruning.plan(repository, remote, days), 0, 0
    else:
        lock = repository.store.lock
        lock.exclude()
        try:
            found = pruning.plan(repository, remote, days)
            removed, freed = pruning.carry_out(repository, found)
        finally:
            lock.release()
    if args.json:
        print(to_json(_record(found, removed, freed, dry_run=args.dry_run)))
        return 0
    _print(found, remote, verbose=args.verbose)
    if not args.dry_run:
        print(f"Removed {plural(removed, 'object')} ({size(freed)})")
    return 0


def _keep_days(repository: Repository, given: float | None) -> float:
    text = repository.setting("theta.pruneKeepDays")
    try:
        days = given if given is not None else float(text) if text else _KEEP_DAYS
    except ValueError as error:
        raise UsageError(
            f"git config theta.pruneKeepDays is {text!r}, not a number of days"
        ) from error
    if not 0 <= days < 1e6:
        raise UsageError(f"{days} is not a number of days to keep")
    return days


def _print(found: pruning.Plan, remote: str | None, *, verbose: bool) -> None:
    where = printable(remote) if remote else "no remote"
    at_remote, lacking = found.at_remote, found.not_at_remote
    print(f"{plural(found.kept, 'object')} needed by what is at hand: kept")
    print(
        f"{plural(len(at_remote), 'object')} ({_total(at_remote)}) of history, at {where}: may go"
    )
    if lacking:
        print(f"{plural(len(lacking), 'object')} ({_total(lacking)}) of history, not there: kept")
    print(f"{plural(len(found.unneeded), 'object')} that nothing names: may go")
    if found.young:
        print(f"{plural(found.young, 'object')} that nothing names yet, young: kept")
    if verbose:
        for oid in [*(ref.oid for ref in at_remote), *found.unneeded]:
            print(f"  {oid}")
    if lacking and remote:
        print(f"To have these there too: git theta push {where} --all")


def _total(objects: list[UpdateRef]) -> str:
    return size(sum(ref.size for ref in objects))


def _record(found: pruning.Plan, removed: int, freed: int, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "kept": found.kept,
        "at_remote": [{"oid": ref.oid, "bytes": ref.size} for ref in found.at_remote],
        "not_at_remote": [{"oid": ref.oid, "bytes": ref.size} for ref in found.not_at_remote],
        "unneeded": found.unneeded,
        "young": found.young,
        "removed": removed,
        "freed": freed,
    }
