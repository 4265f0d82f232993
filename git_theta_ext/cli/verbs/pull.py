"""`git theta pull`: write the checkpoints in place of the manifests in the work tree."""

from __future__ import annotations

import argparse
import os
from typing import Any

from git_theta_ext.cli import transfers, where
from git_theta_ext.cli.about_files import pathspecs
from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.text import all_here, plural, printable, size, to_json
from git_theta_ext.git import installation
from git_theta_ext.git.process import lines_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects import reachable
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import transport


def add_parser(subparsers: Any) -> None:
    """Add the parser of `pull`."""
    parser = subparsers.add_parser(
        "pull",
        help="download missing objects and write the checkpoints",
        description="Download the objects of the checkpoints in the index and write the "
        "checkpoints wherever the work tree holds a manifest, as after a clone without smudge. "
        "No commits are fetched or merged: git pull does that.",
    )
    parser.add_argument(
        "words", nargs="*", metavar="[REMOTE] [PATH]",
        help="a remote (default: the branch's, the only one, or origin) and files or folders",
    )  # fmt: skip
    pathspecs.add_patterns(parser)
    where.add_option(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch, write, and print which files were written."""
    from git_theta_ext.checkpoints.smudge import manifests_in_work_tree, write_checkpoints

    repository = Repository.discover()
    remotes = lines_of(repository.git("remote"))
    remote = args.words[0] if args.words and args.words[0] in remotes else None
    entries = [entry for entry in repository.tracked() if entry.stage == 0]
    entries = pathspecs.in_index(repository, entries, args.words[1:] if remote else args.words)
    patterns = pathspecs.of_patterns(args.include, args.exclude)
    entries = pathspecs.in_index(repository, entries, patterns, [*args.include, *args.exclude])
    if manifests_in_work_tree(repository, [entry.path for entry in entries]):
        # The index is told of what is written; without the filter it would take the files whole.
        installation.require(repository)
    with where.executor(repository, args) as executor:
        objects = reachable.objects_in(
            repository, [entry.oid for entry in entries], (), transfers.warn_of_damage, whole=True
        )
        missing = [o for o in objects.values() if not store_of(repository).has(o.oid, o.size)]
        total = sum(item.size for item in missing)
        with Progress(f"Fetching {plural(len(missing), 'object')}", total) as progress:
            places = transport.fetch(repository, missing, remote=remote, progress=progress)
        written = write_checkpoints(
            repository, [entry.path for entry in entries], executor=executor
        )
    if args.json:
        print(
            to_json(
                {"fetched": len(missing), "bytes": total, "from": places, "written": list(written)}
            )
        )
    else:
        if missing:
            count = plural(len(missing), "object")
            print(f"Fetched {count} ({size(total)}){transfers.source(places)}")
        for path in written:
            print(f"Wrote {printable(path)}")
        absent = [one for one in entries if not os.path.lexists(repository.top / one.path)]
        if not written and len(absent) < len(entries):
            print(f"{all_here(len(entries) - len(absent), 'checkpoint')} in the work tree")
        if absent:
            count = plural(len(absent), "checkpoint")
            print(
                f"not in the work tree: {count}, such as {printable(absent[0].path)} "
                "(deleted, or outside of the sparse checkout)"
            )
    return 0
