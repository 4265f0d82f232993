"""`git theta untrack`: remove patterns from `.gitattributes`."""

from __future__ import annotations

import argparse
from typing import Any

from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.cli.verbs.track import attributes_path, normalise, read, tracked_patterns, write
from git_theta_ext.core.text import printable
from git_theta_ext.git import attributes
from git_theta_ext.git.repository import Repository


def add_parser(subparsers: Any) -> None:
    """Add the parser of `untrack`."""
    parser = subparsers.add_parser(
        "untrack",
        help="stop tracking a pattern",
        description="Remove patterns from .gitattributes in the current folder. Files that are "
        "already stored tensor by tensor stay so until they are added again.",
    )
    parser.add_argument(
        "patterns", nargs="+", metavar="PATTERN", help="as git theta track lists it"
    )
    parser.add_argument("--dry-run", "-n", action="store_true", help="change nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Untrack; 1 where a pattern was not tracked by the file of this folder."""
    repository = Repository.discover()
    path = attributes_path(repository)
    content = before = read(path)
    code = 0
    gone: list[str] = []
    for typed in args.patterns:
        pattern = typed if typed in attributes.tracked(content) else normalise(typed, repository)
        shorter = attributes.remove(content, pattern)
        shown = printable(pattern)
        if shorter != content:
            print(f'{"Would untrack" if args.dry_run else "Untracking"} "{shown}"')
            content = shorter
            gone.append(pattern)
            continue
        code = 1
        others = [source for source, name in tracked_patterns(repository) if name == pattern]
        elsewhere = f"; {printable(others[0])} tracks it" if others else ""
        print(f'"{shown}" is not tracked by .gitattributes in this folder{elsewhere}')
    fact("patterns", gone)
    fact("dry_run", args.dry_run)
    if content != before and not args.dry_run:
        write(repository, content)
        print("Now run: git add .gitattributes")
        if _lfs_takes_over(before, content):
            print("To store the files by git-lfs, whose line counts again: git add --renormalize .")
        else:
            print("To store the files themselves in Git again: git add --renormalize .")
    return code


def _lfs_takes_over(before: bytes, after: bytes) -> bool:
    """Whether git-lfs gets a pattern back whose line for us was removed."""
    removed = {*attributes.tracked(before)} - {*attributes.tracked(after)}
    left = {
        line.pattern: line.filter for line in attributes.lines(after) if line.filter is not None
    }
    return any(left.get(pattern) == "lfs" for pattern in removed)
