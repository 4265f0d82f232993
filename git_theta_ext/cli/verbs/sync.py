"""`git theta sync`: the models of `models.toml`, as `theta.lock` has them, into the folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.text import plural, printable, size, to_json
from git_theta_ext.packages.getting import Watch
from git_theta_ext.packages.locking.lock_file import LockedModel
from git_theta_ext.packages.locking.placed import unwatched
from git_theta_ext.packages.locking.project import find
from git_theta_ext.packages.locking.sync import Options, Synced, sync

FORCE = "git theta sync --force   replaces and removes them"


def add_parser(subparsers: Any) -> None:
    """Add the parser of `sync`."""
    parser = subparsers.add_parser(
        "sync",
        help="have the models of models.toml as theta.lock says",
        description="Make the folder as theta.lock says: the models that models.toml asks for, to "
        "the byte. What is not locked yet is locked first. A file that was changed by hand is "
        "named and kept.",
    )
    parser.add_argument(
        "--locked", action="store_true",
        help="fail where theta.lock would change, or a tag was moved since it was locked",
    )  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="use the cache alone")
    add_common(parser)
    parser.set_defaults(run=run)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what `sync` and `update` share."""
    parser.add_argument(
        "--force", action="store_true", help="replace and remove what was changed by hand, too"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say only what is wrong")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def watch(args: argparse.Namespace) -> Watch:
    """What shows how far it is, unless nothing is to be shown."""
    return unwatched if args.quiet or args.json else Progress


def run(args: argparse.Namespace) -> int:
    """Sync, and print what was written."""
    options = Options(args.locked, args.offline, args.force)
    done = sync(find(Path.cwd()), options, watch=watch(args))
    if args.json:
        print(to_json(record(done)))
    elif not args.quiet:
        tell(done)
    return complain(done)


def tell(done: Synced) -> None:
    """Say of each model what was written of it."""
    told = False
    for row in done.models:
        written = [path for path in done.report.written if path.startswith(f"{row.into}/")]
        if written or done.before.get(row.name) != row:
            print(_line(row, len(written)))
            told = True
    if done.report.removed:
        removed = plural(len(done.report.removed), "file")
        print(f"Removed {removed} that theta.lock does not name")
    if not told and not done.report.removed and done.as_locked:
        count = plural(len(done.models), "model")
        print(f"{count}: as theta.lock says")


def _line(row: LockedModel, written: int) -> str:
    whole = plural(len(row.files), "file")
    count = whole if written == len(row.files) else f"{written:,} of {whole} new"
    total = size(sum(file.size for file in row.files))
    return f"{row.name} {printable(row.label)}: {count} ({total}) in {printable(row.into)}"


def complain(done: Synced) -> int:
    """Name the files that are not as theta.lock says; the exit code."""
    for one in done.report.kept:
        print(f"git theta: {printable(one.path)} {one.why}: kept", file=sys.stderr)
    if done.as_locked:
        return 0
    print(f"  hint: {FORCE}", file=sys.stderr)
    return 1


def record(done: Synced) -> dict[str, Any]:
    """What was done, for programs."""
    return {
        "as_locked": done.as_locked,
        "models": [
            {
                "name": row.name,
                "version": row.label,
                "ref": row.ref,
                "commit": row.commit,
                "before": done.before[row.name].commit if row.name in done.before else None,
                "into": row.into,
                "files": {
                    file.path: {"size": file.size, "sha256": file.sha256} for file in row.files
                },
            }
            for row in done.models
        ],
        "written": done.report.written,
        "removed": done.report.removed,
        "kept": [{"path": one.path, "why": one.why} for one in done.report.kept],
        "moved_tags": [
            {"name": one.name, "tag": one.tag, "was": one.was, "now": one.now} for one in done.moved
        ],
    }
