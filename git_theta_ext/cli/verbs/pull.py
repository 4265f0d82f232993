"""`git theta pull`: write the checkpoints in place of the manifests in the work tree."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from git_theta_ext.cli import transfers, where
from git_theta_ext.cli.about_files import lfs_pointers, pathspecs
from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.text import all_here, plural, printable, size, to_json
from git_theta_ext.git.process import lines_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store import reachable
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
    parser.add_argument(
        "--dry-run", "-n", action="store_true", help="only say what would be fetched and written"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch, write, and print which files were written."""
    from git_theta_ext.checkpoints.placed import manifests_in_work_tree, write_checkpoints

    repository = Repository.discover()
    remotes = lines_of(repository.git("remote"))
    remote = args.words[0] if args.words and args.words[0] in remotes else None
    tracked = repository.tracked()
    entries = [entry for entry in tracked if entry.stage == 0]
    entries = pathspecs.in_index(repository, entries, args.words[1:] if remote else args.words)
    patterns = pathspecs.of_patterns(args.include, args.exclude)
    entries = pathspecs.in_index(repository, entries, patterns, [*args.include, *args.exclude])
    found = list(manifests_in_work_tree(repository, [entry.path for entry in entries]))
    kept_by_lfs = lfs_pointers.in_work_tree(repository, [entry.path for entry in entries])
    if found and not args.dry_run:
        # The index is told of what is written; without the filter it would take the files whole.
        installation.require(repository)
    objects = reachable.objects_in(
        repository, [entry.oid for entry in entries], (), transfers.warn_of_damage, whole=True
    )
    missing = [o for o in objects.values() if not store_of(repository).has(o.oid, o.size)]
    places: Sequence[str] = []
    if args.dry_run:
        written: Sequence[str] = [*found, *kept_by_lfs]
    else:
        with where.executor(repository, args) as executor:
            total = sum(item.size for item in missing)
            with Progress(f"Fetching {plural(len(missing), 'object')}", total) as progress:
                places = transport.fetch(repository, missing, remote=remote, progress=progress)
            written = write_checkpoints(
                repository, [entry.path for entry in entries], executor=executor
            )
        lfs_pointers.write_files(repository, kept_by_lfs, remote)
        written = [*written, *kept_by_lfs]
    _tell(args, missing, places, list(written))
    absent = [one.path for one in entries if not os.path.lexists(repository.top / one.path)]
    if args.json:
        return 0
    if not tracked:
        print("No checkpoint is tracked here")
    elif not written and (len(absent) < len(entries) or not entries):
        print(f"{all_here(len(entries) - len(absent), 'checkpoint')} in the work tree")
    if absent:
        print(
            f"not in the work tree: {plural(len(absent), 'checkpoint')}, such as "
            f"{printable(absent[0])} (deleted, or outside of the sparse checkout)"
        )
    return 0


def _tell(
    args: argparse.Namespace,
    missing: Sequence[UpdateRef],
    places: Sequence[str],
    written: Sequence[str],
) -> None:
    """Say what was fetched, from where, and what was written; or would be."""
    total = sum(item.size for item in missing)
    if args.json:
        counts = {"dry_run": args.dry_run, "fetched": len(missing), "bytes": total}
        print(to_json(counts | {"from": places, "written": written}))
        return
    if missing:
        count = plural(len(missing), "object")
        verb = "Would fetch" if args.dry_run else "Fetched"
        print(f"{verb} {count} ({size(total)}){transfers.source(places)}")
    for path in written:
        print(f"{'Would write' if args.dry_run else 'Wrote'} {printable(path)}")
