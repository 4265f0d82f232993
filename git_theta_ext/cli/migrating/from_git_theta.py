"""`git theta migrate import --from-git-theta`: repositories of git-theta 0.2 by r-three."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from git_theta_ext.cli.migrating import doing, options
from git_theta_ext.cli.migrating.doing import Job
from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.migration import refs, steps
from git_theta_ext.migration.found import Files
from git_theta_ext.migration.importing import Importing, Tell
from git_theta_ext.migration.journal import Journal, place
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.others.old_theta import (
    ImportingOldTheta,
    LookingAtOld,
    OldTheta,
    Parameter,
)


def run(args: argparse.Namespace) -> int:
    """Import; the exit status.

    Raises:
        UsageError: options do not go together.
    """
    if args.no_rewrite or args.above:
        raise UsageError("--from-git-theta rewrites history, whatever the size of files")
    repository = Repository.discover()
    selection = options.selection_of(args)
    doing.require_settled(repository, dry_run=args.dry_run)
    commits = refs.commits(repository, options.wanted_of(args))
    lfs = LfsFiles(repository)
    with steps.pipes_of(repository, only_looks=args.dry_run) as pipes:
        looking = LookingAtOld(pipes, OldTheta(pipes, lfs), selection)
        every = list(looking.all_of(commits))
        missing, said = _missing(lfs, every, args)
        if missing:
            doing.say_missing(args, missing, said)
        paths: dict[str, tuple[int, int]] = {}
        for path, _, found in every:
            count, total = paths.get(path, (0, 0))
            paths[path] = count + 1, total + _bytes(found)
        nbytes = sum(_bytes(found) for _, _, found in every)
        why = "git theta migrate import --from-git-theta"
        job = Job(commits, len(every), nbytes, why, [doing.FORCED], len(missing))
        if args.dry_run:
            return doing.show_plan(args, job, paths)
        if not every:
            return doing.nothing_to_do(args, commits)
        doing.may_go_on(args, job)
        options.install_here(repository, quiet=args.json)
        lacking = sorted(ref.oid for _, ref in missing)
        journal = Journal(place(repository, "old", selection, lacking), pipes)
        if journal.goes_on:
            steps.require_objects(repository, pipes, journal)
        found_files = Files(pipes, selection, lfs)
        made: list[Importing] = []

        def make(tell: Tell) -> ImportingOldTheta:
            made.append(Importing(repository, found_files, journal, tell))
            return ImportingOldTheta(made[0], looking)

        try:
            return doing.carry_out(args, doing.Place(repository, pipes, journal), job, make)
        finally:
            journal.close()
            for one in made:
                one.close()


def _bytes(found: Mapping[str, Parameter]) -> int:
    return sum(one.info.nbytes for one in found.values())


def _missing(
    lfs: LfsFiles, every: list[tuple[str, str, dict[str, Parameter]]], args: argparse.Namespace
) -> tuple[list[tuple[str, UpdateRef]], list[str]]:
    """The files of git-lfs that are nowhere to be had, and why."""
    named = {one.ref.oid: (path, one.ref) for path, _, found in every for one in found.values()}
    said: list[str] = []
    if not (args.skip_fetch or args.dry_run):
        said = lfs.fetch((ref for _, ref in named.values()), args.remote)
    return [item for item in named.values() if lfs.find(item[1]) is None], said
