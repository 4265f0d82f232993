"""`git theta logs`: what was kept of errors in this program."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError, UsageError
from git_theta_ext.core.text import plural, printable, to_json
from git_theta_ext.git.crashes import log as crash_log
from git_theta_ext.git.repository import Repository


def add_parser(subparsers: Any) -> None:
    """Add the parser of `logs`."""
    parser = subparsers.add_parser(
        "logs",
        help="list, show or remove the logs of errors in git-theta itself",
        description="When git-theta fails because of an error in itself, it keeps what it printed "
        "in the repository. Without arguments, list these logs, the oldest first. A log names "
        "files and arguments: read it before you send it to somebody.",
    )
    parser.add_argument(
        "what", nargs="?", metavar="last | show NAME | clear",
        choices=["last", "show", "clear"],
        help="show the newest, or one by its name; or remove all",
    )  # fmt: skip
    parser.add_argument("name", nargs="?", metavar="NAME", help="as it is listed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, answers=lambda args: args.what != "clear")


def run(args: argparse.Namespace) -> int:
    """List, show or remove.

    Raises:
        UsageError: there is no such log.
    """
    if (args.what == "show") != (args.name is not None):
        raise UsageError("a NAME goes with show, and with nothing else")
    repository = Repository.discover()
    if args.what == "clear":
        removed = crash_log.clear(repository)
        print(to_json({"removed": removed}) if args.json else f"removed {plural(removed, 'log')}")
        return 0
    found = {path.stem: path for path in crash_log.logs(repository)}
    if args.what is None:
        _list(list(found), as_json=args.json)
        return 0
    name = args.name or next(reversed(found), None)
    if name not in found:
        if args.name:
            raise UsageError("there is no such log", hint="git theta logs   lists them")
        raise UsageError("there is no log here")
    text = _read(found[name])
    if args.json:
        print(to_json({"name": name, "text": text}))
    else:
        sys.stdout.write(text)
    return 0


def _list(names: list[str], *, as_json: bool) -> None:
    if as_json:
        print(to_json({"logs": names}))
    for name in () if as_json else names:
        print(printable(name))


def _read(path: Path) -> str:
    """The text of a log.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return files.read_whole(path).decode("utf-8", "replace")
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
