"""`git theta migrate export`: manifests become pointers of git-lfs, or files as they are."""

from __future__ import annotations

import argparse
from typing import Any

from git_theta_ext.cli.migrating import doing, options
from git_theta_ext.cli.migrating.doing import Job
from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.text import Parser
from git_theta_ext.migration import refs, steps
from git_theta_ext.migration.exporting import TO_LFS, TO_RAW, Exporting
from git_theta_ext.migration.found import MANIFEST, Files, versions
from git_theta_ext.migration.journal import Journal, place
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.selection import Selection
from git_theta_ext.objects.bounds import claimed


def add_parser(modes: Any) -> None:
    """Add the parser of `migrate export`."""
    parser = modes.add_parser(
        "export",
        help="rewrite history: manifests become files of git-lfs, or plain blobs",
        description="Rewrite history so that it needs git-theta no longer. What was imported comes "
        "back as it was, with the ids of its commits where nothing else has changed.",
    )
    parser.add_argument("--to", choices=(TO_LFS, TO_RAW), required=True, help="what files become")
    options.add_which(parser)
    options.add_doing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export; the exit status."""
    repository = Repository.discover()
    selection = options.selection_of(args)
    selection = Selection(selection.include or ("*",), selection.exclude)
    doing.require_settled(repository, dry_run=args.dry_run)
    if args.to == TO_LFS and not args.dry_run:
        _require_lfs(repository)
    commits = refs.commits(repository, options.wanted_of(args))
    with steps.pipes_of(repository, only_looks=args.dry_run) as pipes:
        found = Files(pipes, selection, LfsFiles(repository))
        paths: dict[str, tuple[int, int]] = {}
        blobs: dict[str, int] = {}
        parser = Parser()
        for one in versions(found, commits):
            if one.found.kind == MANIFEST:
                if one.oid not in blobs:
                    blobs[one.oid] = claimed(parser.parse(pipes.read(one.oid, "blob")))
                count, total = paths.get(one.path, (0, 0))
                paths[one.path] = count + 1, total + blobs[one.oid]
        after = [doing.FORCED]
        if args.to == TO_LFS:
            after.insert(
                0, "The files are in the folder of git-lfs, which sends them with the branches"
            )
        why = f"git theta migrate export --to {args.to}"
        total, proof = sum(blobs.values()), "every block verified"
        job = Job(commits, len(blobs), total, why, after, proof=proof)
        if args.dry_run:
            return doing.show_plan(args, job, paths)
        if not blobs:
            return doing.nothing_to_do(args, commits)
        doing.may_go_on(args, job)
        journal = Journal(place(repository, "export", args.to, selection), pipes)
        try:
            return doing.carry_out(
                args,
                doing.Place(repository, pipes, journal),
                job,
                lambda tell: Exporting(repository, found, journal, args.to, tell),
            )
        finally:
            journal.close()


def _require_lfs(repository: Repository) -> None:
    """Refuse to leave pointers in the work tree where files were.

    Raises:
        UsageError: git-lfs is not set up.
    """
    if repository.work_tree is not None and not repository.setting("filter.lfs.process"):
        raise UsageError(
            "git-lfs is not set up here: the work tree would have its pointers in place of files",
            hint="git lfs install --skip-repo   then try again",
        )
