"""`git theta scores`: every version of a checkpoint with what was measured of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from git_theta_ext.cli.verbs.log import split
from git_theta_ext.core import patterns
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable, to_json
from git_theta_ext.evaluation import scored
from git_theta_ext.evaluation.report import html, tables
from git_theta_ext.evaluation.scored import Column, Row, Table
from git_theta_ext.git import outputs
from git_theta_ext.git.repository import Repository


def add_parser(subparsers: Any) -> None:
    """Add the parser of `scores`."""
    parser = subparsers.add_parser(
        "scores",
        help="show every version of a checkpoint with its scores",
        description="Show the versions of a checkpoint, each with what was measured of it, what it "
        "stores, and, as HTML, plots of both. Runs nothing: git theta evaluate measures.",
    )
    parser.add_argument("file", metavar="[REV:]FILE", help="without REV, from HEAD")
    parser.add_argument(
        "--format", choices=["text", "html", "json", "csv", "markdown"], default="text",
        help="html is one file with plots that needs no network",
    )  # fmt: skip
    parser.add_argument(
        "--by", choices=["time", "score"], default="time",
        help="the newest first (default), or the best by the first metric",
    )  # fmt: skip
    parser.add_argument(
        "--metric", action="append", default=[], metavar="NAME",
        help="only metrics whose names match: acc, rte/acc, glue/rte/acc, or a pattern",
    )  # fmt: skip
    parser.add_argument("-n", "--max-count", type=int, metavar="N", help="at most N versions")
    parser.add_argument("-o", "--output", metavar="FILE", help="write there, not to stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the scores.

    Raises:
        UsageError: there is no such checkpoint, or no such metric.
    """
    repository = Repository.discover()
    revision, path = split(repository, args.file)
    found = scored.read(repository, revision, path)
    columns = _chosen(found.columns, args.metric)
    rows: Sequence[Row] = found.rows
    if args.by == "score":
        if not columns:
            raise UsageError(f"nothing was measured of {printable(path)}", hint=_HOW)
        rows = sorted(rows, key=columns[0].best_first)
    if args.max_count is not None and args.max_count >= 0:
        rows = rows[: args.max_count]
    text = _text(args.format, found, rows, columns)
    if args.output:
        outputs.write(args.output, text.encode("utf-8", "backslashreplace"), repository.work_tree)
    else:
        sys.stdout.write(text)
    if not columns:
        print(f"git theta: nothing was measured of {printable(path)} yet: {_HOW}", file=sys.stderr)
    return 0


_HOW = "git theta evaluate"


def _chosen(columns: Sequence[Column], wanted: Sequence[str]) -> list[Column]:
    """The columns whose names, or what they end with, match; all without a wish.

    Raises:
        UsageError: a wish matches none.
    """
    found: list[Column] = []
    for one in wanted:
        fitting = [column for column in columns if _matches(column, one)]
        if not fitting:
            names = ", ".join(printable(column.name) for column in columns[:12]) or "none"
            raise UsageError(f"no metric matches {one!r}", hint=f"measured: {names}")
        found += [column for column in fitting if column not in found]
    return found if wanted else list(columns)


def _matches(column: Column, wanted: str) -> bool:
    names = {column.name, column.metric, f"{column.task}/{column.metric}", column.task,
             f"{column.evaluation}/{column.task}/{column.metric}"}  # fmt: skip
    return bool(patterns.select(sorted(names), [wanted]))


def _text(shape: str, found: Table, rows: Sequence[Row], columns: Sequence[Column]) -> str:
    if shape == "json":
        return f"{to_json(tables.records(found, rows, columns))}\n"
    if shape == "csv":
        return tables.as_csv(rows, columns)
    if shape == "html":
        return html.render(found, rows, columns)
    make = tables.markdown if shape == "markdown" else tables.text
    return "".join(f"{line}\n" for line in make(found, rows, columns))
