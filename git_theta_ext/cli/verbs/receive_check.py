"""`git theta receive-check`: a server's pre-receive hook that refuses pushes without objects."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from git_theta_ext.cli.about_files.received_whole import received_whole
from git_theta_ext.core.errors import MissingObjectError, UsageError
from git_theta_ext.core.text import plural, printable, size
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects import received
from git_theta_ext.objects.received import Answer, Lacking, Update

_NAMED = 3
"""Objects of one checkpoint that are printed."""
_LISTED = 20


def add_parser(subparsers: Any) -> None:
    """Add the parser of `receive-check`."""
    parser = subparsers.add_parser(
        "receive-check",
        help="as a server's hook: refuse pushes without their objects",
        description="To be run as the pre-receive hook of a repository on a server: reads lines of "
        "<old> <new> <ref> and fails, so that no ref moves, if the LFS store lacks objects that "
        "the pushed checkpoints need.",
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FOLDER",
        help="where the server keeps LFS objects (default: lfs.storage, else lfs, as git-lfs does)",
    )
    parser.add_argument(
        "--refuse-whole",
        action="store_true",
        help="refuse checkpoints too that are tracked and were committed whole, as by a client "
        "that runs no filters",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check what is being received; 0 lets Git go on, 1 refuses what is stored whole.

    Raises:
        MissingObjectError: the store lacks objects; every one of the refs is refused.
    """
    if sys.stdin.isatty():
        raise UsageError(
            "receive-check is started by Git, as a pre-receive hook",
            hint="git theta help receive-check",
        )
    updates = received.parse(sys.stdin.buffer.read())
    repository = Repository.discover()
    answer = received.check(repository, updates, received.store_of(repository, args.store))
    for blob, message in answer.damaged:
        print(f"git theta: warning: blob {blob}: {printable(message)}", file=sys.stderr)
    if answer.lacking:
        raise MissingObjectError(_refusal(answer), hint=_way_on(updates))
    whole = received_whole(repository, updates) if args.refuse_whole else []
    if whole:
        print(f"git theta: error: {_stored_whole(whole)}", file=sys.stderr)
    return int(bool(whole))


def _stored_whole(paths: list[str]) -> str:
    lines = [f"  {printable(path)}" for path in paths[:_LISTED]]
    if len(paths) > _LISTED:
        lines.append(f"  ... and {plural(len(paths) - _LISTED, 'more', 'more')}")
    return "\n".join(
        [
            f"this push was refused: {plural(len(paths), 'checkpoint')} committed whole, without"
            " git-theta:",
            *lines,
            "  hint: where they were committed:"
            " git theta install --local && git theta migrate import",
        ]
    )


def _refusal(answer: Answer) -> str:
    first = (
        f"this push was refused: {plural(answer.count, 'version')} of checkpoints"
        f" {'needs' if answer.count == 1 else 'need'} objects that this server does not have"
    )
    lines = [line for found in answer.lacking for line in _lines(found)]
    left = answer.count - len(answer.lacking)
    return "\n".join(
        [first, *lines, *([f"... and {plural(left, 'more', 'more')}"] if left else [])]
    )


def _lines(found: Lacking) -> list[str]:
    place = found.places[0] if found.places else f"blob {found.blob}"
    lines = [f"{printable(place)}: {plural(found.count, 'object')} missing"]
    shown = found.objects[:_NAMED]
    lines += [f"  {item.kind} sha256:{item.oid} ({size(item.size)})" for item in shown]
    if found.count > len(shown):
        lines.append(f"  ... and {found.count - len(shown):,} more")
    return lines


def _way_on(updates: list[Update]) -> str:
    """What the one who pushed types; the name of the remote is known only there."""
    names = [update.ref.removeprefix("refs/heads/") for update in updates if update.new]
    refs = " ".join(names[:3]) if len(names) <= 3 else "--all"
    return (
        f"git theta push REMOTE {printable(refs)}   uploads them (REMOTE as in your git push);"
        " then push again.\nSo that every push does it by itself: git theta install --local"
    )
