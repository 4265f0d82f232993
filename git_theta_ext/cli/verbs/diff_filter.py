"""`git theta diff-filter`: a diff of Git, with the lines of manifests made readable."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from git_theta_ext.cli.shown import diff_lines
from git_theta_ext.core.errors import UsageError


def add_parser(subparsers: Any) -> None:
    """Add the parser of `diff-filter`."""
    parser = subparsers.add_parser(
        "diff-filter",
        help="make the lines of manifests readable in a diff that Git writes",
        description="Read a diff, coloured or not, and write it line for line, with the lines of "
        "manifests as people read them: tensor, type, update, what is stored, and a short id. All "
        "else is passed on byte for byte. For interactive.diffFilter and pagers; the result is to "
        "be read and cannot be applied.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Filter."""
    if sys.stdin.isatty():
        raise UsageError(
            "it reads a diff from standard input",
            hint="git show --color HEAD | git theta diff-filter",
        )
    sys.stdout.flush()
    diff_lines.run()
    return 0
