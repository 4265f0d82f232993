"""`git theta review`: what changed, as the HTML report, opened in the browser."""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Any

from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.cli.verbs import diff
from git_theta_ext.comparison.handed import handed
from git_theta_ext.core import files
from git_theta_ext.core.errors import RepositoryError, StoreError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git import outputs
from git_theta_ext.git.process import run_git, run_in_terminal
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import HEAD_BYTES, is_manifest

NAME = "review.html"
_DIGITS = 8


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
    parser.add_argument("--difftool", metavar="PATH", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page, and open it unless it was to be written only.

    Raises:
        StoreError: it cannot be written.
        UsageError: no browser could be started; the message says where the page is.
    """
    if args.difftool is not None:
        return _for_difftool(args.difftool, args.revisions)
    asked = _asked(args.revisions)
    asked.cached, asked.output = args.cached, args.output
    page = _encoded(diff.compared_as_text(asked)[0])
    if args.output is not None:
        outputs.write(args.output, page, diff.work_tree())
        fact("page", args.output)
        return 0
    if not _shown(page):
        raise UsageError(
            "no browser could be started; open that file in one",
            hint="git config --global web.browser NAME   (such as firefox)",
        )
    return 0


def _asked(revisions: list[str]) -> argparse.Namespace:
    """The arguments of `git theta diff` for a page."""
    parser = argparse.ArgumentParser()
    diff.add_parser(parser.add_subparsers())
    asked = parser.parse_args(["diff", "--format", "html"])
    asked.revisions = revisions
    return asked


def _encoded(page: str) -> bytes:
    return page.encode("utf-8", "backslashreplace")


def _for_difftool(path: str, sides: list[str]) -> int:
    """Answer `git difftool --tool=theta`, which brings two files for each path, one by one.

    Each path has a page of its own: a browser may still be reading that of the one before. What is
    no checkpoint is shown as Git shows it.

    Raises:
        UsageError: it brings folders (`--dir-diff`).
    """
    if any(map(os.path.isdir, sides)):
        raise UsageError("git difftool --tool=theta shows one file at a time: leave out --dir-diff")
    if not _is_checkpoint(path, sides):
        shown = run_in_terminal(["diff", "--no-index", "--no-ext-diff", "--", *sides])
        return 0 if shown == 1 else shown
    page = _encoded(diff.page_of(handed(path, *sides)))
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:_DIGITS]
    if not _shown(page, f"review-{name}.html"):
        print("No browser could be started; open that file in one.")
    return 0


def _is_checkpoint(path: str, sides: list[str]) -> bool:
    """Whether a path is ours to show: its diff driver or filter is ours, or a side a manifest."""
    repository = Repository.discover()
    if "theta" in (repository.attribute("diff", path), repository.attribute("filter", path)):
        return True
    for side in sides:
        with suppress(OSError), open(side, "rb") as file:
            if is_manifest(file.read(HEAD_BYTES)):
                return True
    return False


def _shown(page: bytes, name: str = NAME) -> bool:
    """Write a page and say where it is; whether a browser opens it."""
    place = _keep(page, name)
    fact("page", str(place))
    print(f"Wrote {printable(str(place))}", flush=True)
    return _open(place)


def _keep(page: bytes, name: str) -> Path:
    """Write the page where it stays until the next one: into the Git folder, as nothing of it is to
    be committed; outside of a repository into a folder of its own.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        folder = Repository.discover().common_dir / "theta"
    except RepositoryError:
        folder = Path(tempfile.mkdtemp(prefix="git-theta-"))
    place = folder / name
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
