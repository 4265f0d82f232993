"""`git theta migrate import`: histories of git-lfs and of plain blobs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from git_theta_ext.cli.migrating import doing, from_git_theta, options
from git_theta_ext.cli.migrating.doing import Job
from git_theta_ext.core import files
from git_theta_ext.core.advice import word
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.migration import refs, steps, tracking
from git_theta_ext.migration.found import EXTENDED, LFS, MISSING, RAW, Files, Version
from git_theta_ext.migration.importing import Importing, Tell
from git_theta_ext.migration.journal import Journal, place
from git_theta_ext.migration.lfs_files import LfsFiles


def add_parser(modes: Any) -> None:
    """Add the parser of `migrate import`."""
    parser = modes.add_parser(
        "import",
        help="rewrite history: files of git-lfs and plain blobs become manifests",
        description="Rewrite history so that checkpoints are stored tensor by tensor. Every "
        "version is encoded against the one before it, and compared with the original; then all "
        "refs move at once.",
    )
    options.add_which(parser)
    options.add_missing(parser)
    options.add_doing(parser)
    parser.add_argument(
        "--from-git-theta", action="store_true",
        help="import the checkpoints of git-theta 0.2 (r-three), and nothing else",
    )  # fmt: skip
    parser.add_argument(
        "--no-rewrite", action="store_true",
        help="convert the files of HEAD in one commit on top; no history changes",
    )  # fmt: skip
    parser.add_argument("--message", "-m", help="of that commit")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import; the exit status.

    Raises:
        UsageError: options contradict each other.
    """
    if args.from_git_theta:
        return from_git_theta.run(args)
    repository = Repository.discover()
    selection = options.selection_of(args)
    options.check_on_top(args)
    doing.require_settled(repository, dry_run=args.dry_run)
    commits = _commits(repository, args)
    with steps.pipes_of(repository, only_looks=args.dry_run) as pipes:
        found = Files(pipes, selection, LfsFiles(repository))
        every, said = steps.planned(
            repository, found, commits, fetch=not args.skip_fetch and not args.dry_run,
            remote=args.remote,
        )  # fmt: skip
        _refuse_extended(every)
        missing = steps.missing_of(every)
        job, paths = _job(commits, every, len(missing))
        if missing:
            doing.say_missing(args, missing, said)
        if args.dry_run:
            return doing.show_plan(args, job, paths)
        if not job.versions:
            return doing.nothing_to_do(args, commits)
        doing.may_go_on(args, job)
        options.install_here(repository, quiet=args.json)
        lacking = sorted(ref.oid for _, ref in missing)
        journal = Journal(
            place(repository, "import", selection, lacking, sorted(found.whole)), pipes
        )
        if journal.goes_on:
            steps.require_objects(repository, pipes, journal)
        made: list[Importing] = []

        def make(tell: Tell) -> Importing:
            made.append(Importing(repository, found, journal, tell))
            return made[0]

        try:
            here = doing.Place(repository, pipes, journal)
            does = doing.carry_out_on_top if args.no_rewrite else doing.carry_out
            code = does(args, here, job, make)
            if not args.json:
                _tell_of_left(repository)
            return code
        finally:
            journal.close()
            for one in made:
                one.close()


def _tell_of_left(repository: Repository) -> None:
    """Say which checkpoints a pattern leaves to git-lfs, as no version had such a name."""
    if repository.work_tree is None:
        return
    with suppress(OSError), files.plain(repository.work_tree / ".gitattributes") as file:
        left = tracking.left_to_lfs(file.read())
        if left:
            shown = " ".join(map(word, left))
            print(f"Left to git-lfs by .gitattributes, for none is in this history: {shown}")
            print(f"  new ones are stored by tensor after: git theta track {shown}")


def _refuse_extended(every: Sequence[Version]) -> None:
    """Refuse pointers whose object is not the file.

    Raises:
        UsageError: there are some; names the paths.
    """
    paths = sorted({one.path for one in every if one.found.kind == EXTENDED})
    if paths:
        raise UsageError(
            f"{printable(', '.join(paths[:20]))}: pointers of git-lfs with extensions: "
            "only their programs can make the files",
            hint="leave them to git-lfs: --exclude PATTERN",
        )


def _commits(repository: Repository, args: argparse.Namespace) -> list[str]:
    if not args.no_rewrite:
        return refs.commits(repository, options.wanted_of(args))
    head = repository.resolve("HEAD^{commit}")
    return [] if head is None else [head]


def _job(
    commits: Sequence[str], every: Sequence[Version], missing: int
) -> tuple[Job, dict[str, tuple[int, int]]]:
    """What is to be done; and of each path how many versions it has, and their bytes."""
    blobs: dict[str, Version] = {}
    paths: dict[str, tuple[int, int]] = {}
    for one in every:
        if one.found.kind not in (LFS, RAW, MISSING):
            continue
        count, total = paths.get(one.path, (0, 0))
        paths[one.path] = count + 1, total + one.found.size
        if one.found.kind != MISSING:
            blobs.setdefault(one.oid, one)
    after = [doing.FORCED]
    if any(one.found.kind == LFS for one in blobs.values()):
        after.append("git-lfs still has copies: git lfs prune   removes those that no branch needs")
    nbytes = sum(one.found.size for one in blobs.values())
    job = Job(commits, len(blobs), nbytes, "git theta migrate import", after, missing)
    return job, paths
