"""What the commands that rewrite history say and do, whichever way they go."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from git_theta_ext.cli.migrating import options
from git_theta_ext.cli.progress import Progress
from git_theta_ext.core import files
from git_theta_ext.core.errors import MissingObjectError, UsageError
from git_theta_ext.core.terminal import ask
from git_theta_ext.core.text import plural, printable, size, to_json
from git_theta_ext.git import outputs
from git_theta_ext.git.object_pipes import ObjectPipes
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.migration import refs, steps
from git_theta_ext.migration.importing import Tell
from git_theta_ext.migration.journal import Journal
from git_theta_ext.migration.refs import Update
from git_theta_ext.migration.rewrite import Converter

FORCED = "Nothing was sent: a push of these branches has to be forced, and other clones must follow"


@dataclass(frozen=True, slots=True)
class Job:
    """A history to rewrite: its commits, how many versions of files are to move, and their bytes.

    `why` goes into the reflog; `after` are lines to print when it is done.
    """

    commits: Sequence[str]
    versions: int
    nbytes: int
    why: str
    after: Sequence[str] = ()
    missing: int = 0
    proof: str = "each compared with the original"


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is done: the repository, its objects, and what was done of it before."""

    repository: Repository
    pipes: ObjectPipes
    journal: Journal


def carry_out(
    args: argparse.Namespace, here: Place, job: Job, make: Callable[[Tell], Converter]
) -> int:
    """Rewrite, check, move refs and say so; the exit status.

    Args:
        args: the options that the user gave.
        here: where it is done.
        job: what is to be done.
        make: makes the converter, which is given what counts the versions.

    Raises:
        ThetaError: of whatever fails; no ref was moved then.
    """
    repository, journal = here.repository, here.journal
    path = options.map_path(args, goes_on=journal.goes_on)
    if journal.goes_on and not args.json:
        done = sum(one in journal.commits for one in job.commits)
        print(f"Going on where an earlier run stopped: {done} of {len(job.commits)} commits done")
    with Progress("Rewriting", job.nbytes) as progress:

        def tell(name: str, count: int) -> None:
            progress(count)
            if args.verbose and not args.json:
                print(f"  {printable(name)}  {size(count)}", flush=True)

        moved = steps.rewritten(here.pipes, make(tell), journal, job.commits)
    if path is not None:
        _write_map(path, repository, moved)
    updates = steps.moved_refs(repository, here.pipes, moved, job.why)
    journal.close(done=True)
    _report(job, moved, updates, as_json=args.json)
    head = repository.resolve("HEAD") or ""
    if head in moved and repository.branch("HEAD") is None and not args.json:
        print(f"HEAD is detached and stays at {head[:10]}, which became {moved[head][:10]}")
    return 0


def _write_map(path: Path, repository: Repository, moved: Mapping[str, str]) -> None:
    """Write the object map, or find the one that a run has written which was stopped after it."""
    if path.exists():
        with files.plain(path, follow=True) as old:
            same = all(old.readline() == line for line in steps.map_lines(moved))
            if not same or old.read(1):
                raise options.map_is_there(path)
        return
    with outputs.writing(path, repository.work_tree) as file:
        for line in steps.map_lines(moved):
            file.write(line)


def carry_out_on_top(
    args: argparse.Namespace, here: Place, job: Job, make: Callable[[Tell], Converter]
) -> int:
    """Add one commit and say so; the exit status; errors as for `carry_out`.

    Args:
        args: the options that the user gave.
        here: where it is done.
        job: what is to be done.
        make: makes the converter, which is given what counts the versions.
    """
    message = args.message or f"Store {plural(job.versions, 'checkpoint')} tensor by tensor"
    with Progress("Converting", job.nbytes) as progress:

        def tell(name: str, count: int) -> None:
            progress(count)
            if args.verbose and not args.json:
                print(f"  {printable(name)}  {size(count)}", flush=True)

        made = steps.added(here.repository, here.pipes, make(tell), here.journal, message)
    here.journal.close(done=True)
    _report(replace(job, after=()), {}, [made] if made else [], as_json=args.json)
    return 0


def _report(
    job: Job, moved: Mapping[str, str], updates: Sequence[Update], *, as_json: bool
) -> None:
    """Say what was done: commits, versions, and where each ref went."""
    if as_json:
        rows = [{"ref": one.ref, "from": one.old, "to": one.new} for one in updates]
        print(to_json({"dry_run": False, "commits": len(job.commits), "rewritten": len(moved),
                       "versions": job.versions, "bytes": job.nbytes, "missing": job.missing,
                       "refs": rows}))  # fmt: skip
        return
    what = f"{plural(len(moved), 'commit')} of {len(job.commits)} rewritten, " if moved else ""
    print(f"{what}{plural(job.versions, 'version')} moved ({size(job.nbytes)}), {job.proof}")
    for one in updates:
        print(f"  {printable(one.ref)}  {one.old[:10]} -> {one.new[:10]}")
    if moved:
        print("What the refs named before is in their reflogs")
    for line in job.after:
        print(line)


def show_plan(args: argparse.Namespace, job: Job, paths: Mapping[str, tuple[int, int]]) -> int:
    """Say what would be done; 0."""
    if args.json:
        rows = [{"path": path, "versions": count, "bytes": total}
                for path, (count, total) in sorted(paths.items())]  # fmt: skip
        print(to_json({"dry_run": True, "commits": len(job.commits), "versions": job.versions,
                       "bytes": job.nbytes, "missing": job.missing, "files": rows}))  # fmt: skip
        return 0
    for path, (count, total) in sorted(paths.items()):
        print(f"  {printable(path)}  {plural(count, 'version')}, {size(total)}")
    print(
        f"{plural(len(job.commits), 'commit')} to look at, {plural(job.versions, 'version')} to "
        f"move ({size(job.nbytes)})"
    )
    print("Nothing was changed (dry run)")
    return 0


def may_go_on(args: argparse.Namespace, job: Job) -> bool:
    """Whether the user wants the history rewritten: asked on a terminal, unless `--yes`."""
    if args.yes or args.json or not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    print(f"This rewrites history: {plural(len(job.commits), 'commit')}, "
          f"{plural(job.versions, 'version')} ({size(job.nbytes)}).")  # fmt: skip
    if ask("Go on? [y/N]").lower() in ("y", "yes"):
        return True
    raise UsageError("nothing was changed")


def nothing_to_do(args: argparse.Namespace, commits: Sequence[str]) -> int:
    """Say that there is nothing to move, and why that may be; 0."""
    if args.json:
        print(to_json({"dry_run": args.dry_run, "commits": len(commits), "rewritten": 0,
                       "versions": 0, "bytes": 0, "missing": 0, "refs": []}))  # fmt: skip
        return 0
    if commits:
        print(f"Nothing to do: no such file in {plural(len(commits), 'commit')}")
        return 0
    print("Nothing to do: every commit of the current branch is at a remote; --everything takes "
          "those, too")  # fmt: skip
    return 0


def require_settled(repository: Repository, *, dry_run: bool) -> None:
    """See `refs.require_settled`; a dry run loses nothing.

    The work tree that a killed run left behind its branch is brought along first.
    """
    if dry_run:
        return
    if refs.followed_late(repository):
        print("The work tree now follows what an earlier run has moved", file=sys.stderr)
    refs.require_settled(repository)


def say_missing(
    args: argparse.Namespace, missing: Sequence[tuple[str, UpdateRef]], said: Sequence[str]
) -> None:
    """Name the files of git-lfs that are not here.

    Raises:
        MissingObjectError: the user does not want them left as they are.
    """
    asked = "not here" if args.skip_fetch or args.dry_run else "nowhere to be had"
    verb = "is" if len(missing) == 1 else "are"
    head = f"{plural(len(missing), 'file')} of git-lfs {verb} {asked}:"
    lines = [*steps.missing_lines(missing), *(f"  {line}" for line in said)]
    if args.missing == "fail" and not args.dry_run:
        raise MissingObjectError(
            "\n".join([head, *lines]),
            hint="to leave their pointers as they are: --missing=skip",
        )
    if not args.json:
        print("\n".join([head, *lines]))
        skips = args.missing == "skip"
        would = "They would be fetched, or stop it: --missing=skip leaves their pointers"
        print("Their pointers stay as they are" if skips else would)
