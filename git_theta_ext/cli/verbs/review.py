"""`git theta review`: what changed, as the HTML report, opened in the browser."""

from __future__ import annotations

import argparse
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.cli.verbs import diff
from git_theta_ext.core import files
from git_theta_ext.core.errors import RepositoryError, StoreError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git import outputs
from git_theta_ext.git.process import run_git, run_in_terminal
from git_theta_ext.git.repository import Repository

NAME = "review.html"


def add_parser(subparsers: Any) -> None:
    """Add the parser of `review`."""
    parser = subparsers.add_parser(
        "review",
        help="open the report of what changed in the browser",
        description="Write what git theta diff finds as one HTML page and open it in the browser "
        "that web.browser in git config names, else the system's. main...HEAD shows what a branch "
        "brings. The page needs no network.",
    )
    parser.add_argument(
        "revisions", nargs="*", metavar="REV | FILE",
        help="as for git theta diff: up to two revisions, A..B or A...B; then files",
    )  # fmt: skip
    parser.add_argument(
        "--cached", "--staged", action="store_true", help="the index, not the work tree"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the page there, and open nothing"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page, and open it unless it was to be written only.

    Raises:
        StoreError: it cannot be written.
        UsageError: no browser could be started; the message says where the page is.
    """
    parser = argparse.ArgumentParser()
    diff.add_parser(parser.add_subparsers())
    asked = parser.parse_args(["diff", "--format", "html"])
    asked.revisions, asked.cached, asked.output = args.revisions, args.cached, args.output
    page = diff.compared_as_text(asked)[0].encode("utf-8", "backslashreplace")
    if args.output is not None:
        outputs.write(args.output, page, diff.work_tree())
        fact("page", args.output)
        return 0
    place = _keep(page)
    fact("page", str(place))
    print(f"Wrote {printable(str(place))}")
    if not _open(place):
        raise UsageError(
            "no browser could be started; open that file in one",
            hint="git config --global web.browser NAME   (such as firefox)",
        )
    return 0


def _keep(page: bytes) -> Path:
    """Write the page where it stays until the next one: into the Git folder, as nothing of it is to
    be committed; outside of a repository into a folder of its own.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        folder = Repository.discover().common_dir / "theta"
    except RepositoryError:
        folder = Path(tempfile.mkdtemp(prefix="git-theta-"))
    place = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.replace_file(place, page, mode=0o600)
    except OSError as error:
        raise StoreError(f"cannot write {place}: {error.strerror or error}") from error
    return place


def _open(place: Path) -> bool:
    """Open a page in the browser that Git was told of, else in the system's; whether that began."""
    if run_git(["config", "--get", "web.browser"], Path.cwd(), ok=(0, 1)).strip():
        return run_in_terminal(["web--browse", "--", str(place)]) == 0
    return webbrowser.open(place.as_uri())
