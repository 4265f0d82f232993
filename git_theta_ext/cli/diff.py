"""`git theta diff`: what changed in checkpoints, in several forms."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from git_theta_ext import patterns
from git_theta_ext.blocks import Blocks
from git_theta_ext.cli import colours
from git_theta_ext.comparison.compare import Change, Comparison, compare
from git_theta_ext.comparison.files import Pair, changed_checkpoints, two_files
from git_theta_ext.comparison.spectrum import with_spectra
from git_theta_ext.errors import RepositoryError, UsageError
from git_theta_ext.report import markdown
from git_theta_ext.report.records import records
from git_theta_ext.report.text import Style, render
from git_theta_ext.repository import Repository
from git_theta_ext.text import printable, to_json

Found = tuple[str, Comparison]


def add_parser(subparsers: Any) -> None:
    """Add the parser of `diff`."""
    parser = subparsers.add_parser(
        "diff",
        help="show what changed in checkpoints, tensor by tensor",
        description="Compare checkpoints: the index with the work tree, REV with the work tree, or "
        "two revisions. Only tensors that changed are read.",
    )
    parser.add_argument("revisions", nargs="*", metavar="REV", help="up to two, or A..B")
    parser.add_argument(
        "--cached", "--staged", action="store_true", help="the index, not the work tree"
    )
    parser.add_argument(
        "--no-index", nargs=2, metavar=("A", "B"), help="compare two files, in a repository or not"
    )
    parser.add_argument("--tensor", action="append", default=[], metavar="GLOB", help="only these")
    parser.add_argument(
        "--sort", choices=["name", "change", "size"],
        help="order of the tensors: by name, or each on its own by relative change or by what it "
        "stores; by default in groups, what matters first",
    )  # fmt: skip
    parser.add_argument(
        "--spectrum", action="store_true",
        help="also the singular values of the most changed matrices; of updates that are not "
        "low-rank an estimate",
    )  # fmt: skip
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--stat", action="store_true", help="one line for each group of tensors")
    shape.add_argument("--name-only", action="store_true", help="only the names of tensors")
    shape.add_argument(
        "--format", choices=["text", "markdown", "html", "json"], default="text",
        help="markdown fits into a comment on GitHub; html is one file without network",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", help="write there, not to stdout")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 if anything differs")
    parser.add_argument("--color", choices=["auto", "always", "never"], default="auto")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    revisions, files = _split(args)
    found: list[Found] = []
    for pair in _pairs(args, revisions, files):
        measured = not args.name_only or args.sort == "change"
        with closing(pair):
            comparison = compare(pair.old, pair.new, measured)
            comparison = _selected(comparison, args.tensor, args.sort)
            if measured and (args.spectrum or args.format == "html"):
                comparison = with_spectra(comparison, pair.old, pair.new, sketched=args.spectrum)
        if comparison.changes or (comparison.structure_changed and not args.tensor):
            found.append((pair.path, comparison))
    text = _text(args, found)
    if args.output:
        Path(args.output).write_text(text, "utf-8")
    else:
        sys.stdout.write(text)
    # As git diff does: two files outside of history are compared with an exit status.
    return 1 if (args.exit_code or args.no_index) and found else 0


def _split(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Revisions and files; `--` is what argparse leaves of the two."""
    words = list(args.revisions)
    if args.no_index:
        if words:
            raise UsageError("--no-index takes two files and nothing else")
        return [], []
    repository = Repository.discover()
    revisions: list[str] = []
    while words and len(revisions) < 2 and _is_revision(repository, words[0]):
        revisions.append(words.pop(0))
    _check_paths(repository, words, revisions)
    return revisions, words


def _check_paths(repository: Repository, words: list[str], revisions: list[str]) -> None:
    """A word that is neither a revision nor a path that Git has ever seen here is a mistake.

    Raises:
        UsageError: there is one.
    """
    for word in words:
        if Path(word).exists() or any(char in word for char in "*?[:"):
            continue
        ends = [
            end.strip(".") for revision in revisions or ["HEAD"] for end in revision.split("..")
        ]
        if not any(
            repository.git("ls-tree", "--name-only", end or "HEAD", "--", word) for end in ends
        ):
            raise UsageError(
                f"{word!r} is neither a revision nor a file", hint="git theta diff [REV [REV]] FILE"
            )


def _is_revision(repository: Repository, word: str) -> bool:
    ends = word.split("..") if ".." in word else [word]
    return all(not end or repository.resolve(f"{end.strip('.')}^{{tree}}") for end in ends)


def _pairs(args: argparse.Namespace, revisions: list[str], files: list[str]) -> Iterator[Pair]:
    if args.no_index:
        blocks = None
        try:
            blocks = Blocks.open(Repository.discover())
        except RepositoryError:
            pass
        yield two_files(Path(args.no_index[0]), Path(args.no_index[1]), blocks)
        return
    yield from changed_checkpoints(Repository.discover(), revisions, files, cached=args.cached)


def _selected(comparison: Comparison, wanted: list[str], order: str) -> Comparison:
    changes = list(comparison.changes)
    if wanted:
        names = set(patterns.select([change.name for change in changes], wanted))
        changes = [change for change in changes if change.name in names]
    if order == "change":
        changes.sort(key=_moved, reverse=True)
    elif order == "size":
        changes.sort(key=lambda change: -change.stored)
    return replace(comparison, changes=tuple(changes))


def _moved(change: Change) -> float:
    if change.measure is None:
        return float("inf")
    return change.measure.relative if change.measure.relative is not None else float("inf")


def _text(args: argparse.Namespace, found: list[Found]) -> str:
    if args.name_only:
        lines = [
            f"{printable(path)}: {printable(change.name)}"
            for path, one in found
            for change in one.changes
        ]
        return "".join(f"{line}\n" for line in lines)
    if args.format == "json":
        return to_json({"files": [records(path, one) for path, one in found]}) + "\n"
    if args.format == "markdown":
        return markdown.render(found)
    if args.format == "html":
        from git_theta_ext.report import html

        return html.render(found)
    style = _style(args)
    whole = args.sort in (None, "name")
    return "".join(
        f"{line}\n"
        for path, one in found
        for line in render(
            path, one, style, brief=args.stat, grouped=whole, by_name=args.sort == "name"
        )
    )


def _style(args: argparse.Namespace) -> Style:
    colour = colours.decide(args.color, to_file=bool(args.output))
    encoding = "utf8" if args.output else (sys.stdout.encoding or "")
    return Style(colour, encoding.lower().replace("-", "") == "utf8")
