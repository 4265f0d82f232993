"""`git theta summary`: what changed, in a few lines for a commit message."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from git_theta_ext.cli.about_files.pathspecs import empty_tree
from git_theta_ext.comparison.compare import Comparison
from git_theta_ext.comparison.files import changed_checkpoints
from git_theta_ext.comparison.report.records import records
from git_theta_ext.comparison.report.text import Style, render
from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError
from git_theta_ext.core.text import plural, to_json
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import commit_of

_LINES = 6
"""Lines of groups of tensors for a checkpoint; the rest is counted."""
_GIVEN = {"message", "merge", "squash", "commit"}
"""Where Git has a message already, as githooks(5) names the sources."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `summary`."""
    parser = subparsers.add_parser(
        "summary",
        help="say what changed in a few lines, for a commit message",
        description="Say what changed in checkpoints in a few lines of plain text: what is staged, "
        "or between two revisions (REV: between its first parent and it). git theta install "
        "--commit-summary puts it into the message of each commit that is edited.",
    )
    parser.add_argument(
        "revisions", nargs="*", metavar="REV", help="a commit, two revisions, or A..B or A...B"
    )
    parser.add_argument(
        "--into", nargs="+", metavar=("FILE", "SOURCE"),
        help="as the hook prepare-commit-msg: put it into the message in FILE",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, as git theta diff does")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the summary, or put it into a message.

    Raises:
        UsageError: there is no such revision.
        StoreError: the message cannot be read or written.
    """
    if args.into is not None and len(args.into) > 1 and args.into[1] in _GIVEN:
        return 0
    repository = Repository.discover()
    found = list(_found(repository, args.revisions))
    if args.json:
        print(to_json({"files": [records(path, one) for path, one in found]}))
        return 0
    text = "\n".join(line for path, one in found for line in _lines(path, one))
    if args.into is not None and text:
        _insert(Path(args.into[0]), text)
    elif text:
        print(text)
    elif args.into is None:
        what = "differs" if args.revisions else "that changed is staged"
        print(f"git theta: no checkpoint {what}", file=sys.stderr)
    return 0


def _found(repository: Repository, revisions: list[str]) -> Iterator[tuple[str, Comparison]]:
    """The checkpoints that differ, with what differs."""
    ends, staged = revisions, not revisions
    if staged:
        repository.top  # noqa: B018 - an error where there is none, and so no index
        ends = ["HEAD" if repository.resolve("HEAD") else empty_tree(repository)]
    elif len(revisions) == 1 and ".." not in revisions[0]:
        commit = commit_of(repository, revisions[0])
        ends = [repository.resolve(f"{commit}^1") or empty_tree(repository), commit]
    for pair in changed_checkpoints(repository, ends, (), cached=staged):
        with closing(pair):
            comparison = pair.compare()
        if comparison.changes or comparison.differs:
            yield pair.path, comparison


def _lines(path: str, comparison: Comparison) -> Iterator[str]:
    """The lines of one checkpoint, none of which Git takes for a remark."""
    first, *rest = render(path, comparison, Style(unicode=False), brief=True)
    yield f"./{first}" if first.startswith(("#", ";")) else first
    yield from rest[:_LINES]
    if len(rest) > _LINES:
        yield f"  and {plural(len(rest) - _LINES, 'more line')}"


def _insert(path: Path, text: str) -> None:
    """Put a text into a message below its first line, which is the subject's."""
    try:
        subject, _, rest = files.read_whole(path).partition(b"\n")
        made = b"\n".join([subject, b"", text.encode("utf-8", "backslashreplace"), rest])
        files.replace_file(path, made, kept=files.permissions(path))
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
