"""`git theta mirror`: a branch of pointers of git-lfs beside one of manifests."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import paragraph, plural, printable, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.migration.exporting import TO_LFS
from git_theta_ext.migration.mirrors import kept
from git_theta_ext.migration.mirrors import sent as sending
from git_theta_ext.objects.transfer import endpoints


def add_parser(subparsers: Any) -> None:
    """Add the parser of `mirror`."""
    parser = subparsers.add_parser(
        "mirror",
        help="keep a branch of git-lfs files beside one of manifests",
        description="Rewrite SOURCE, as git theta migrate export does, into the branch TARGET, for "
        "hosts and programs that know only git-lfs. Only commits that TARGET does not have yet are "
        "rewritten. SOURCE stays as it is.",
    )
    parser.add_argument("--to", choices=(TO_LFS,), default=TO_LFS, help="what files become: lfs")
    parser.add_argument("source", metavar="SOURCE", help="a branch or revision")
    parser.add_argument("target", metavar="TARGET", help="the branch to make, or to move on")
    parser.add_argument(
        "--push", metavar="REMOTE",
        help="go on with TARGET as REMOTE has it, and send it there with its files",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true",
        help="move TARGET even if it has commits that are none of SOURCE, such as before a rebase",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", "-n", action="store_true", help="only say how many commits are new"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Bring the mirror up to date; the exit status."""
    repository = Repository.discover()
    if args.push is None or args.dry_run:
        done = kept.bring_up(
            repository, args.source, args.target, force=args.force, dry_run=args.dry_run
        )
        sent = None
    else:
        sent = _sent(repository, args)
        done = sent.mirrored
    if args.json:
        print(to_json({"dry_run": args.dry_run, "ref": done.ref, "to": done.tip,
                       "commits": done.commits, "versions": done.files,
                       "pushed": sent is not None and sent.pushed}))  # fmt: skip
        return 0
    name = printable(args.target)
    if args.dry_run:
        print(f"{plural(done.commits, 'commit')} would be added to {name}; nothing was changed")
    elif not done.moved and not (sent and sent.pushed):
        print(f"{name} is up to date")
    else:
        print(
            f"{name}: {plural(done.commits, 'commit')},"
            f" {plural(done.files, 'file')} written for git-lfs"
        )
        if sent is None:
            print(f"To publish it: git theta mirror --push REMOTE {printable(args.source)} {name}")
        else:
            where = printable(endpoints.without_password(args.push))
            print(f"{plural(sent.files, 'file')} and the branch are at {where}")
    return 0


def _sent(repository: Repository, args: argparse.Namespace) -> sending.Sent:
    """Bring the mirror up to date at the remote too, and say what is odd about the place."""
    known = repository.git("remote").decode("utf-8", "surrogateescape").split("\n")
    # (As for git push, a URL or a path stands for itself.)
    if args.push not in known and not set("/:\\") & set(args.push):
        raise UsageError(f"there is no remote {printable(args.push)}", hint="git remote -v")
    url = endpoints.remote_url(repository, args.push, push=True)
    there = endpoints.without_password(args.push)
    sent = sending.send(
        repository, args.push, url, args.source, args.target, force=args.force,
        progress=lambda count, size: Progress(
            f"Uploading {plural(count, 'file')} of {args.target} to {there}", size
        ),
    )  # fmt: skip
    if sent.remark:
        print(f"git theta: warning: {paragraph(sent.remark)}", file=sys.stderr)
    return sent
