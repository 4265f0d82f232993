"""Options that the commands share which rewrite history, named as those of `git lfs migrate`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git import attributes, launch
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import hooks, installation
from git_theta_ext.migration.refs import Wanted
from git_theta_ext.migration.selection import Selection, split

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def add_which(parser: Any) -> None:
    """Add the options that say which files and which commits are meant."""
    parser.add_argument(
        "branches", nargs="*", metavar="BRANCH",
        help="the branches (default: the current one); ^BRANCH leaves one out",
    )  # fmt: skip
    parser.add_argument(
        "--include", "-I", action="append", metavar="PATTERNS",
        help="the files, as patterns of .gitattributes with commas between (default: checkpoints)",
    )  # fmt: skip
    parser.add_argument(
        "--exclude", "-X", action="append", metavar="PATTERNS", help="files to leave as they are"
    )
    parser.add_argument(
        "--everything", action="store_true", help="all commits of all local and remote refs"
    )
    parser.add_argument(
        "--include-ref", action="append", default=[], metavar="REF", help="a ref to rewrite, too"
    )
    parser.add_argument(
        "--exclude-ref", action="append", default=[], metavar="REF",
        help="leave commits as they are that this ref has",
    )  # fmt: skip


def add_doing(parser: Any) -> None:
    """Add the options of a command that changes something."""
    parser.add_argument(
        "--object-map", metavar="FILE", help="write each old commit and its new one: OLD,NEW"
    )
    parser.add_argument("--dry-run", "-n", action="store_true", help="only say what would be done")
    parser.add_argument("--verbose", action="store_true", help="name each version that is moved")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask on a terminal")
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_missing(parser: Any) -> None:
    """Add the options about files of git-lfs that are not here."""
    parser.add_argument(
        "--skip-fetch", action="store_true",
        help="ask no remote for files of git-lfs that are not here",
    )  # fmt: skip
    parser.add_argument(
        "--missing", choices=("fail", "skip"), default="fail",
        help="files that are nowhere: stop before anything is done (default), or leave pointers",
    )  # fmt: skip
    parser.add_argument("--remote", metavar="REMOTE", help="the remote to ask first for them")
    parser.add_argument(
        "--above", metavar="SIZE", help="all files above this size, such as 10MB, of any name"
    )


def selection_of(args: argparse.Namespace) -> Selection:
    """The files that are meant.

    Raises:
        UsageError: a size is none, or goes with patterns.
    """
    include, exclude = split(args.include), split(args.exclude)
    for pattern in include:
        attributes.check(pattern)
    if args.include and not include:
        raise UsageError("--include names no pattern")
    above = getattr(args, "above", None)
    if above is None:
        return Selection(include, exclude)
    if include or exclude:
        raise UsageError("--above takes files of any name: leave out --include and --exclude")
    match = _SIZE.fullmatch(above.strip())
    if match is None:
        raise UsageError(f"--above takes a size such as 10MB, not {printable(above)!r}")
    step = 1024 if match[3] else 1000
    power = " KMGT".index(match[2].upper()) if match[2] else 0
    return Selection(above=round(float(match[1]) * step**power))


def wanted_of(args: argparse.Namespace) -> Wanted:
    """The refs that are meant."""
    return Wanted(
        tuple(args.branches), tuple(args.include_ref), tuple(args.exclude_ref), args.everything
    )


def map_path(args: argparse.Namespace, *, goes_on: bool = False) -> Path | None:
    """Where the object map goes.

    Args:
        args: the options that the user gave.
        goes_on: an earlier run was stopped, which may have written it.

    Raises:
        UsageError: there is a file already.
    """
    if args.object_map is None:
        return None
    path = Path(args.object_map)
    if path.exists() and not goes_on:
        raise map_is_there(path)
    return path


def map_is_there(path: Path) -> UsageError:
    """The object map would replace a file."""
    return UsageError(f"{printable(str(path))} is there already", hint="name another file")


def install_here(repository: Repository, *, quiet: bool) -> None:
    """Set up Git to start our filter for what is about to be tracked, as `git theta track` does."""
    if repository.work_tree is None or installation.is_installed(repository):
        return
    installation.install("local", repository.cwd)
    elsewhere = hooks.is_elsewhere(repository)
    lines = [] if elsewhere else hooks.ensure(repository, *launch.python_command())
    for line in [] if quiet else lines:
        print(printable(line))
    if not quiet:
        print("git-theta was not set up: did `git theta install --local` for this repository.")


def check_on_top(args: argparse.Namespace) -> None:
    """Refuse options that do not go with `--no-rewrite`, or only with it.

    Raises:
        UsageError: some were given.
    """
    named = args.branches or args.include_ref or args.exclude_ref or args.everything
    if args.no_rewrite and (named or args.object_map):
        raise UsageError("--no-rewrite adds a commit to the current branch: name no refs and map")
    if args.message is not None and not args.no_rewrite:
        raise UsageError("--message is of the commit that --no-rewrite adds")
