"""`git theta import-dvc`: files that DVC tracks become checkpoints of this repository."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from git_theta_ext.cli.migrating import doing, options
from git_theta_ext.cli.migrating.doing import Job
from git_theta_ext.core.errors import MissingObjectError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.migration import refs, steps
from git_theta_ext.migration.found import Files
from git_theta_ext.migration.importing import Importing, Tell
from git_theta_ext.migration.journal import Journal, place
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.others.dvc import (
    Cache,
    ImportingDvc,
    Looking,
    Tracked,
    require_unchanged,
)

_NAMED = 20


def add_parser(subparsers: Any) -> None:
    """Add the parser of `import-dvc`."""
    parser = subparsers.add_parser(
        "import-dvc",
        help="rewrite history: checkpoints that DVC tracks become manifests",
        description="Rewrite history so that checkpoints stand where their .dvc files stood. Files "
        "are taken from DVC's cache; DVC itself is not needed. .dvc files without a checkpoint "
        "stay.",
    )
    options.add_which(parser)
    parser.add_argument(
        "--cache", metavar="DIR", help="the cache (default: as .dvc/config says, or .dvc/cache)"
    )
    parser.add_argument(
        "--missing", choices=("fail", "skip"), default="fail",
        help="files that are not in the cache: stop before anything is done, or leave .dvc files",
    )  # fmt: skip
    parser.add_argument(
        "--no-rewrite", action="store_true",
        help="convert the files of HEAD in one commit on top; no history changes",
    )  # fmt: skip
    parser.add_argument("--message", "-m", help="of that commit")
    options.add_doing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import; the exit status."""
    repository = Repository.discover()
    selection = options.selection_of(args)
    options.check_on_top(args)
    doing.require_settled(repository, dry_run=args.dry_run)
    commits = refs.commits(repository, options.wanted_of(args))
    if args.no_rewrite:
        commits = [one for one in [repository.resolve("HEAD^{commit}")] if one is not None]
    with steps.pipes_of(repository, only_looks=args.dry_run) as pipes:
        cache = Cache.of(repository, None if args.cache is None else Path(args.cache))
        looking = Looking(pipes, cache, selection)
        every = list(looking.all_of(commits))
        lacking = sorted({(one.path, part.md5) for one in every for part in one.missing})
        job, paths = _job(commits, every, len(lacking))
        _say(args, every, lacking)
        if args.dry_run:
            return doing.show_plan(args, job, paths)
        if not job.versions:
            return doing.nothing_to_do(args, commits)
        head = [one for one in [repository.resolve("HEAD^{commit}")] if one is not None]
        require_unchanged(repository, looking.all_of(head))
        doing.may_go_on(args, job)
        options.install_here(repository, quiet=args.json)
        journal = Journal(place(repository, "dvc", selection, lacking), pipes)
        if journal.goes_on:
            steps.require_objects(repository, pipes, journal)
        found = Files(pipes, selection, LfsFiles(repository))
        made: list[Importing] = []

        def make(tell: Tell) -> ImportingDvc:
            made.append(Importing(repository, found, journal, tell))
            return ImportingDvc(made[0], looking)

        try:
            here = doing.Place(repository, pipes, journal)
            does = doing.carry_out_on_top if args.no_rewrite else doing.carry_out
            return does(args, here, job, make)
        finally:
            journal.close()
            for one in made:
                one.close()


def _job(
    commits: Sequence[str], every: Sequence[Tracked], missing: int
) -> tuple[Job, dict[str, tuple[int, int]]]:
    """What is to be done; and of each `.dvc` file how many versions it has, and their bytes."""
    paths: dict[str, tuple[int, int]] = {}
    ready = {one.oid: one for one in every if not (one.missing or one.why)}
    for one in every:
        if one.oid in ready:
            count, total = paths.get(one.path, (0, 0))
            paths[one.path] = count + 1, total + one.nbytes
    nbytes = sum(one.nbytes for one in ready.values())
    return Job(commits, len(ready), nbytes, "git theta import-dvc", [doing.FORCED], missing), paths


def _say(
    args: argparse.Namespace, every: Sequence[Tracked], lacking: Sequence[tuple[str, str]]
) -> None:
    """Name what is not in the cache, and what stays with DVC.

    Raises:
        MissingObjectError: something is missing, and the user does not want it left as it is.
    """
    lines = [f"  {printable(path)}: {md5}" for path, md5 in lacking[:_NAMED]]
    if len(lacking) > _NAMED:
        lines.append(f"  and {len(lacking) - _NAMED} more")
    verb = "is" if len(lacking) == 1 else "are"
    head = f"{plural(len(lacking), 'file')} {verb} not in the cache of DVC:"
    if lacking and args.missing == "fail" and not args.dry_run:
        raise MissingObjectError(
            "\n".join([head, *lines]),
            hint="dvc fetch --all-commits   or, to leave their .dvc files: --missing=skip",
        )
    if args.json:
        return
    if lacking:
        print("\n".join([head, *lines]))
    for one in every:
        if one.why:
            print(f"{printable(one.path)} stays: {one.why}")
