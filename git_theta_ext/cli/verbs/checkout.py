"""`git theta checkout`: write checkpoints from the objects that are here, without a network."""

from __future__ import annotations

import argparse
from typing import Any

from git_theta_ext.checkpoints.placed import manifests_in_work_tree, write_checkpoints
from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.cli.about_files import pathspecs
from git_theta_ext.core.errors import MissingObjectError, UsageError
from git_theta_ext.core.text import all_here, plural, printable, size, to_json
from git_theta_ext.git import outputs
from git_theta_ext.git.paths import from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation
from git_theta_ext.manifest.model import HEAD_BYTES, is_manifest
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer.pointer_files import read_pointer

_STAGES = {"base": 1, "ours": 2, "theirs": 3}


def add_parser(subparsers: Any) -> None:
    """Add the parser of `checkout`."""
    parser = subparsers.add_parser(
        "checkout",
        help="write checkpoints from the objects that are here",
        description="Write the checkpoints wherever the work tree holds a manifest and all objects "
        "are here. Nothing is fetched: git theta pull does that, too. With --to, write one side "
        "of a conflict to another file.",
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files or folders (default: all)")
    parser.add_argument("--to", metavar="FILE", help="write a side of a conflict there")
    side = parser.add_mutually_exclusive_group()
    for name, text in (
        ("base", "the common ancestor's version"),
        ("ours", "the version of the branch that is merged into"),
        ("theirs", "the version of the branch that is merged"),
    ):
        side.add_argument(
            f"--{name}", dest="side", action="store_const", const=name, help=f"with --to: {text}"
        )
    parser.add_argument(
        "--dry-run", "-n", action="store_true", help="only say what would be written"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write, and print what was written and what could not be.

    Raises:
        UsageError: no tracked checkpoint matches, or `--to` and its side do not come together.
        MissingObjectError: with `--to`, an object is not here.
    """
    if (args.to is None) != (args.side is None):
        raise UsageError("--to FILE and one of --base, --ours, --theirs belong together")
    repository = Repository.discover()
    repository.offline = True
    if args.to is not None:
        return _write_side(repository, args)
    paths = pathspecs.tracked(repository, args.paths)
    found = manifests_in_work_tree(repository, paths)
    if found:
        # The index is told of what is written; without the filter it would take the files whole.
        installation.require(repository)
    lacking = _lacking(repository, found)
    whole = [path for path in found if path not in lacking]
    written = whole if args.dry_run else write_checkpoints(repository, whole)
    if args.json:
        rows = [{"path": path, "objects": count, "bytes": total}
                for path, (count, total) in lacking.items()]  # fmt: skip
        print(to_json({"dry_run": args.dry_run, "written": written, "missing": rows}))
        return MissingObjectError.exit_code if lacking else 0
    for path in written:
        print(f"{'Would write' if args.dry_run else 'Wrote'} {printable(path)}")
    if not found:
        print(f"{all_here(len(paths), 'checkpoint')} in the work tree")
    if not lacking:
        return 0
    lines = [f"  {printable(path)}: {plural(count, 'object')} ({size(total)})"
             for path, (count, total) in lacking.items()]  # fmt: skip
    raise MissingObjectError(
        "\n".join(["not written, for objects are not here:", *lines]), hint="git theta pull"
    )


def _lacking(repository: Repository, texts: dict[str, bytes]) -> dict[str, tuple[int, int]]:
    """For each path whose objects are not all here, how many are missing and their bytes."""
    store = Blocks.open(repository).store
    found = {}
    for path, text in texts.items():
        missing = reachable.missing(parse_manifest(text), store)
        if missing:
            found[path] = (len(missing), sum(missing.values()))
    return found


def _write_side(repository: Repository, args: argparse.Namespace) -> int:
    """Write one side of a conflict to another file."""
    if len(args.paths) != 1:
        raise UsageError("--to FILE is about one PATH")
    path = from_top(repository, args.paths[0])
    stages = {entry.stage: entry.oid for entry in repository.index(f":(top,literal){path}")}
    oid = stages.get(_STAGES[args.side])
    if oid is None:
        where = "is not in conflict" if set(stages) <= {0} else f"has no version of {args.side}"
        raise UsageError(f"{printable(path)} {where}")
    text = repository.blob(oid)
    if read_pointer(text) is not None:
        raise UsageError(f"{printable(path)}: this side is stored by git-lfs, which has it")
    if args.dry_run:
        raise UsageError("--to FILE writes one file: leave out --dry-run")
    with outputs.writing(args.to, repository.work_tree) as file:
        if is_manifest(text[:HEAD_BYTES]):
            Smudger(parse_manifest(text), Blocks.open(repository), path).write(file.write)
        else:
            file.write(text)
    if args.json:
        print(to_json({"dry_run": False, "written": [args.to], "missing": []}))
    else:
        print(f"Wrote {printable(args.to)}")
    return 0
