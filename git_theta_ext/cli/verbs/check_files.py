"""`git theta check-files`: refuse staged checkpoints that should not be committed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from git_theta_ext.cli.about_files.checked import SMALL_BYTES, Limits, problems
from git_theta_ext.cli.about_files.pathspecs import empty_tree
from git_theta_ext.core.advice import with_name
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, to_json
from git_theta_ext.git.paths import advise, from_top
from git_theta_ext.git.repository import IndexEntry, Repository, literal
from git_theta_ext.packages.trimming import size_named

_ADVICE = {
    "raw": "git add --renormalize FILE",
    "untracked": "git theta track FILE && git add .gitattributes && git add --renormalize FILE",
}
"""By the kind of a problem."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `check-files`."""
    parser = subparsers.add_parser(
        "check-files",
        help="refuse staged checkpoints that are raw, truncated, untracked, too large or hold NaN",
        description="Look at staged files, as a hook before a commit: is a checkpoint stored by "
        "tensor, whole, within the limits, and without new values that are NaN or infinite? Other "
        "files are passed over. Only tensors that differ from HEAD are read.",
    )
    parser.add_argument(
        "paths", nargs="*", metavar="FILE", help="staged files (default: all that differ from HEAD)"
    )  # fmt: skip
    parser.add_argument("--max-size", metavar="SIZE", help="refuse larger files, such as 5GB")
    parser.add_argument(
        "--max-added", metavar="SIZE", help="refuse a version that adds more to the store"
    )
    parser.add_argument(
        "--min-size", metavar="SIZE", default=None,
        help=f"leave files alone that are not tracked and no larger (default: {SMALL_BYTES} bytes)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-not-finite", action="store_true", help="let NaN and infinite values pass"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check; 1 if something is refused.

    Raises:
        UsageError: a size is none.
        ThetaError: a version cannot be read.
    """
    small = _size(args.min_size, "--min-size")
    limits = Limits(
        file=_size(args.max_size, "--max-size"),
        added=_size(args.max_added, "--max-added"),
        small=SMALL_BYTES if small is None else small,
        not_finite=args.allow_not_finite,
    )
    repository = Repository.discover()
    paths = [f":(literal){one}" for one in args.paths] or _staged(repository)
    entries = [one for one in repository.index(*paths) if one.stage == 0] if paths else []
    _require_staged(repository, args.paths, entries)
    found = list(problems(repository, entries, limits))
    if args.json:
        print(to_json({"checked": len(entries), "problems": [asdict(one) for one in found]}))
        return 1 if found else 0
    for one in found:
        print(f"{printable(one.path)} {one.message}")
        if one.kind in _ADVICE:
            print(f"  hint: {advise(repository, _ADVICE[one.kind], one.path)}")
    if found:
        print(f"{plural(len({one.path for one in found}), 'file')} refused", file=sys.stderr)
    return 1 if found else 0


def _size(text: str | None, option: str) -> int | None:
    return None if text is None else size_named(text, option)


def _require_staged(
    repository: Repository, names: Sequence[str], entries: Sequence[IndexEntry]
) -> None:
    """Refuse names of nothing that is staged: they would pass without having been looked at.

    Raises:
        UsageError: there is one.
    """
    known = {entry.path for entry in entries}
    for name in names if repository.work_tree is not None else ():
        path = from_top(repository, name)
        inside = "" if path == "." else f"{path}/"
        if path not in known and not any(one.startswith(inside) for one in known):
            raise UsageError(
                f"{printable(name)} is not staged", hint=with_name("git add FILE", name)
            )


def _staged(repository: Repository) -> list[str]:
    """The pathspecs of what differs between HEAD and the index, and is not deleted."""
    base = "HEAD" if repository.resolve("HEAD") else empty_tree(repository)
    answer = repository.git(
        "diff-index", "--cached", "-z", "--name-only", "--no-renames", "--diff-filter=d", base, "--"
    )
    return [literal(os.fsdecode(path)) for path in answer.split(b"\0") if path]
