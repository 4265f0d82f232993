"""`git theta mirror`: a branch of pointers of git-lfs beside one of manifests."""

from __future__ import annotations

import argparse
from typing import Any

from git_theta_ext.core.text import plural, printable, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.migration import mirror, refs, steps
from git_theta_ext.migration.exporting import TO_LFS, Exporting
from git_theta_ext.migration.found import Files
from git_theta_ext.migration.journal import Journal, place
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.selection import Selection


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
    found = mirror.ends(repository, args.source, args.target)
    selection = Selection(("*",))
    with steps.pipes_of(repository) as pipes:
        path = None if args.dry_run else place(repository, "mirror", args.to)
        journal = Journal(path, pipes)
        commits = mirror.adopt(repository, pipes, journal, found)
        fresh = [one for one in commits if one not in journal.commits]
        if not args.force:
            mirror.require_ours(found, [one.new for one in journal.commits.values()])
        done = 0
        update = None
        if not args.dry_run:
            files = Files(pipes, selection, LfsFiles(repository))
            versions: list[int] = []
            exporting = Exporting(
                repository, files, journal, args.to, lambda _, size: versions.append(size)
            )
            steps.rewritten(pipes, exporting, journal, commits)
            done = len(versions)
            new = journal.moved(found.source)
            if new != found.target:
                update = mirror.update_of(found, new)
                refs.move(repository, [update], f"git theta mirror {args.source}")
            journal.close(done=True)
    if args.json:
        tip = update.new if update is not None else found.target
        print(to_json({"dry_run": args.dry_run, "ref": found.ref, "to": tip,
                       "commits": len(fresh), "versions": done}))  # fmt: skip
        return 0
    name = printable(args.target)
    if args.dry_run:
        print(f"{plural(len(fresh), 'commit')} would be added to {name}; nothing was changed")
    elif update is None:
        print(f"{name} is up to date")
    else:
        print(f"{name}: {plural(len(fresh), 'commit')}, {plural(done, 'file')} written for git-lfs")
        print(f"To publish it: git lfs push REMOTE {name} && git push REMOTE {name}")
    return 0
