"""`git theta check`: whether an update passes the gates that its base has written down."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.text import to_json
from git_theta_ext.evaluation.gates import machines, words
from git_theta_ext.evaluation.gates.check import Check, Report
from git_theta_ext.evaluation.gates.ends import ends_of, is_bisecting
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.git import outputs
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.blocks import Blocks

_SKIP = 125
"""What tells `git bisect run` that a commit cannot be judged."""


class _StopsBisectingError(ThetaError):
    """An error while a bisection is under way: the commit is not at fault."""

    exit_code = 255
    """`git bisect run` stops at it, where it would take the usual code for a bad commit."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `check`."""
    parser = subparsers.add_parser(
        "check",
        help="check an update by the gates of its base",
        description="Compare the scores of an update with those of its base, and judge it by the "
        "gates in the .theta.toml of the base. Exit status 0: accepted, also where there is no "
        "gate; 1: refused; 3: a score was not measured, or cannot be compared. Nothing is "
        "evaluated.",
    )
    parser.add_argument(
        "range", metavar="RANGE", nargs="?",
        help="A...B: B, compared with where it left A; A..B: with A itself; REV: with where it "
        "left the default branch (default: HEAD)",
    )  # fmt: skip
    parser.add_argument(
        "--gate", metavar="NAME", action="append", default=[],
        help="only this gate, as evaluation/task; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=["text", "markdown", "json", "junit", "github"], default="text",
        help="github: annotations of a workflow; junit: XML for other systems",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", help="write there, not to stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, print, and say by the exit code what came of it."""
    repository = Repository.discover()
    bisecting = is_bisecting(repository)
    try:
        check = Check(
            repository, ends_of(repository, args.range), Kept(repository),
            Blocks.open(repository), args.gate,
        )  # fmt: skip
        report = check.run()
    except ThetaError as error:
        if not bisecting:
            raise
        raise _StopsBisectingError(error.message, hint=error.hint) from error
    text = rendered(report, args.format)
    if args.output:
        data = text.encode("utf-8", "backslashreplace")
        outputs.write(args.output, data, repository.work_tree)
    else:
        sys.stdout.write(text)
    return _SKIP if report.code == 3 and bisecting else report.code


def rendered(report: Report, form: str) -> str:
    """A report in one of the formats."""
    if form == "json":
        return to_json(machines.as_json(report)) + "\n"
    if form == "junit":
        return machines.junit(report)
    if form == "github":
        return "".join(f"{line}\n" for line in machines.workflow_commands(report))
    return words.markdown(report) if form == "markdown" else words.text(report)
