"""`git theta push`: upload the objects of checkpoints; `git push` does so by itself."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from git_theta_ext.cli import transfers
from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import paragraph, plural, printable, size, to_json
from git_theta_ext.evaluation import travel
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer import endpoints, transport


def add_parser(subparsers: Any) -> None:
    """Add the parser of `push`."""
    parser = subparsers.add_parser(
        "push",
        help="upload objects to the remote",
        description="Upload the objects that the checkpoints in the history of HEAD, or of the "
        "revisions, need. `git push` does this by itself; use this to fill a new or damaged "
        "remote. No branch or tag moves. Results of evaluations are sent, too.",
    )
    parser.add_argument(
        "words", nargs="*", metavar="[REMOTE] [REV]",
        help="a remote (default: the branch's, the only one, or origin) and revisions",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="of every commit that a ref reaches")
    parser.add_argument("--dry-run", "-n", action="store_true", help="only say what would be sent")
    parser.add_argument(
        "--no-cache", action="store_true",
        help="ask the remote again about objects that it once confirmed",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Push, and print what was sent."""
    repository = Repository.discover()
    named, revisions = transfers.split_remote(repository, args.words)
    if args.all and revisions:
        raise UsageError("--all means every revision: leave out REV")
    wanted = transfers.commits(repository, revisions or ["HEAD"], every=args.all)
    remote = transfers.remote_for_push(repository, named)
    url = endpoints.remote_url(repository, remote, push=True)
    place = f"{printable(remote)} ({endpoints.for_push(repository, remote, url)})"
    objects = reachable.objects_in(repository, wanted, (), transfers.warn_of_damage, whole=True)
    use_cache = not args.no_cache
    if args.dry_run:
        lacking = transport.unconfirmed(
            repository, remote, url, objects.values(), use_cache=use_cache
        )
        done = transport.Pushed(len(lacking), sum(item.size for item in lacking))
    else:
        total = sum(item.size for item in objects.values())
        label = f"Uploading {plural(len(objects), 'object')} to {remote}"
        with Progress(label, total) as progress:
            done = transport.push(
                repository, remote, url, objects.values(), progress=progress, use_cache=use_cache
            )
    results = not args.dry_run and travel.publish(repository, remote, url)
    more = "; git fetch brings those of others from now on"
    more = more if results and travel.follow(repository, remote) else ""
    if done.warning:
        print(f"warning: {paragraph(done.warning)}", file=sys.stderr)
    if args.json:
        counts = {"needed": len(objects), "sent": done.count, "bytes": done.bytes}
        counts |= {"claimed": done.claimed, "results": results}
        print(to_json({"remote": remote, "dry_run": args.dry_run, **counts}))
        return 0
    if done.claimed:
        print(f"{place} says that it has {plural(done.claimed, 'object')} already")
    if done.count:
        verb = "Would send" if args.dry_run else "Sent"
        print(f"{verb} {plural(done.count, 'object')} ({size(done.bytes)}) to {place}")
    elif not done.claimed:
        what = plural(len(objects), "object")
        which = "the object" if len(objects) == 1 else f"all {what}"
        print(f"{place} has {which}")
    if results:
        print(f"Sent results of evaluations{more}")
    return 0
