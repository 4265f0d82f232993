"""`git theta fetch`: download the objects that checkpoints need, without touching files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from git_theta_ext.cli import transfers
from git_theta_ext.cli.about_files import pathspecs
from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.text import all_here, paragraph, plural, printable, size, to_json
from git_theta_ext.evaluation import travel
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import endpoints, transport


def add_parser(subparsers: Any) -> None:
    """Add the parser of `fetch`."""
    parser = subparsers.add_parser(
        "fetch",
        help="download missing objects from the remote",
        description="Download the objects that checkpoints need and that are not here, and verify "
        "them. Without revisions: those of the index and HEAD. Results of evaluations are "
        "brought, too. Files are not touched.",
    )
    parser.add_argument(
        "words", nargs="*", metavar="[REMOTE] [REV]",
        help="a remote (default: the branch's, the only one, or origin) and revisions",
    )  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="of every commit that a ref reaches")
    which.add_argument(
        "--recent", action="store_true",
        help="also of branches and tags of the last days (settings as for git lfs fetch)",
    )  # fmt: skip
    pathspecs.add_patterns(parser)
    parser.add_argument(
        "--dry-run", "-n", action="store_true", help="only say what would be downloaded"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch, and print what came."""
    repository = Repository.discover()
    remote, revisions = transfers.split_remote(repository, args.words)
    wanted = _wanted(repository, args, remote, revisions)
    objects = reachable.objects_in(repository, wanted, (), transfers.warn_of_damage, whole=True)
    missing = [o for o in objects.values() if not store_of(repository).has(o.oid, o.size)]
    total = sum(item.size for item in missing)
    places: Sequence[str] = []
    results = False
    if not args.dry_run:
        with Progress(f"Fetching {plural(len(missing), 'object')}", total) as progress:
            places = transport.fetch(repository, missing, remote=remote, progress=progress)
        results = _fetch_results(repository, remote)
    if args.json:
        counts = {"dry_run": args.dry_run, "needed": len(objects), "fetched": len(missing)}
        counts |= {"bytes": total}
        print(to_json(counts | {"from": places, "results": results}))
    elif missing:
        what = f"{plural(len(missing), 'object')} ({size(total)})"
        done = "Would fetch" if args.dry_run else "Fetched"
        print(f"{done} {what}{transfers.source(places)}")
    elif not objects:
        print("No checkpoint there needs an object")
    else:
        print(f"{all_here(len(objects), 'object')} here")
    if results and not args.json:
        print("Fetched results of evaluations")
    return 0


def _wanted(
    repository: Repository, args: argparse.Namespace, remote: str | None, revisions: list[str]
) -> list[str]:
    """The ids of the commits, trees or blobs whose objects are asked for.

    Raises:
        UsageError: there is no such revision, or a pattern is none.
    """
    if args.all and revisions:
        raise UsageError("--all means every revision: leave out REV")
    chosen = pathspecs.of_patterns(args.include, args.exclude)
    if args.all:
        every = transfers.commits(repository, [], every=True)
        return pathspecs.blobs_of_history(repository, every, chosen) if chosen else every
    wanted = transfers.trees(repository, revisions) if revisions else []
    if args.recent:
        wanted += transfers.recent(repository, remote)
    indexed = []
    if not revisions:
        head = repository.resolve("HEAD^{tree}")
        wanted += [head] if head else []
        indexed = [] if repository.work_tree is None else repository.tracked()
    if not chosen:
        return [*(entry.oid for entry in indexed), *wanted]
    at = {entry.path for entry in repository.index(*chosen)} if indexed else set()
    return [
        *(entry.oid for entry in indexed if entry.path in at),
        *pathspecs.blobs_of_trees(repository, wanted, chosen),
    ]


def _fetch_results(repository: Repository, named: str | None) -> bool:
    """Bring the results that the remote has, and have git fetch do so from now on.

    The objects are what was asked for: a remote that does not answer is only told.
    """
    remote = named or endpoints.default_remote(repository)
    try:
        if remote is None or not travel.fetch(repository, remote):
            return False
        more = "git fetch brings them, too, from now on"
        if travel.follow(repository, remote):
            print(
                f"git theta: {printable(remote)} has results of evaluations; {more}",
                file=sys.stderr,
            )
    except RepositoryError as error:
        print(
            f"git theta: warning: results of evaluations were not fetched: "
            f"{paragraph(error.message)}",
            file=sys.stderr,
        )
        return False
    return True
