"""`git theta allow`: let this repository's evaluation command run, or take that back."""

from __future__ import annotations

import argparse
import os
from typing import Any

from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.text import paragraph, plural, printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.merge.branches.consent import Allowed, Consent, evaluation_of
from git_theta_ext.merge.strategies import policy

_HERE = ""
"""What `--revoke` without a name stands for."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `allow`."""
    parser = subparsers.add_parser(
        "allow",
        help="allow the evaluation command that this repository names",
        description="Show the command that .theta.toml names for git theta merge --tune, and let "
        "it run from now on. A command that changes must be allowed again.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--list", action="store_true", help="list what is allowed, everywhere")
    which.add_argument(
        "--revoke", metavar="NAME", nargs="?", const=_HERE,
        help="no longer allow the command of this repository, or that of NAME in --list",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Allow, list or revoke."""
    if args.list:
        return _list()
    if args.revoke is not None:
        return _revoke(args.revoke)
    repository = Repository.discover()
    command = policy.committed(repository).evaluate
    if not command:
        raise UsageError(
            "this repository names no evaluation command",
            hint=f'in {policy.FILE}: [merge], evaluate = "python evaluate.py {{checkpoint}}"',
        )
    wanted = evaluation_of(repository, command)
    consent = Consent.of(repository, os.environ)
    before = consent.given(wanted)
    consent.give(wanted)
    print(f"{'Allowed already' if before else 'Allowed'}, for git theta merge --tune here:")
    print(shown(command))
    return 0


def shown(command: str) -> str:
    """A command in full, each line of it by itself, and nothing in it active."""
    return "    " + paragraph(command, "    ")


def _list() -> int:
    found = list(Consent.of(None, os.environ).all())
    for one in found:
        print(f"{one.name[:12]}  {printable(one.repository)}")
        print(shown(one.command))
    if not found:
        print("Nothing is allowed.")
    return 0


def _revoke(name: str) -> int:
    """Take back one allowed command, or without a name all of this repository."""
    try:
        repository: Repository | None = Repository.discover()
    except RepositoryError:
        if not name:
            raise
        repository = None
    consent = Consent.of(None, os.environ)
    found = [one for one in consent.all() if _is_meant(one, name, repository)]
    if name and len(found) != 1:
        raise UsageError(
            f"{name!r} matches {plural(len(found), 'allowed command')}",
            hint="git theta allow --list",
        )
    for one in found:
        consent.revoke(one)
        print(f"No longer allowed in {printable(one.repository)}:")
        print(shown(one.command))
    if not found:
        print("Nothing is allowed here.")
    return 0


def _is_meant(one: Allowed, name: str, repository: Repository | None) -> bool:
    if name:
        return one.name.startswith(name)
    return repository is not None and one.repository == evaluation_of(repository, "").repository
