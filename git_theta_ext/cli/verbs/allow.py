"""`git theta allow`: let this repository's evaluation commands run, or take that back."""

from __future__ import annotations

import argparse
import os
from typing import Any

from git_theta_ext.cli.consent import shown
from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.evaluation import config
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.settings_file import FILE, committed_bytes
from git_theta_ext.merge.branches.consent import Allowed, Consent, evaluation_of
from git_theta_ext.merge.strategies import policy

_HERE = ""
"""What `--revoke` without a name stands for."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `allow`."""
    parser = subparsers.add_parser(
        "allow",
        help="allow the evaluation commands that this repository names",
        description="Show the commands that .theta.toml names, for git theta evaluate and for git "
        "theta merge --tune, and let them run from now on. A command that changes must be allowed "
        "again.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--list", action="store_true", help="list what is allowed, everywhere")
    which.add_argument(
        "--revoke", metavar="NAME", nargs="?", const=_HERE,
        help="no longer allow the command of this repository, or that of NAME in --list",
    )  # fmt: skip
    parser.set_defaults(run=run, answers=lambda args: args.list)


def run(args: argparse.Namespace) -> int:
    """Allow, list or revoke."""
    if args.list:
        return _list()
    if args.revoke is not None:
        return _revoke(args.revoke)
    repository = Repository.discover()
    commands = _named(repository)
    if not commands:
        raise UsageError(
            "this repository names no evaluation command",
            hint=f'in {FILE}: [merge], evaluate = "python evaluate.py {{checkpoint}}"',
        )
    consent = Consent.of(repository, os.environ)
    fact("commands", [{"command": one, "purpose": commands[one]} for one in commands])
    for command, purpose in commands.items():
        wanted = evaluation_of(repository, command)
        before = consent.given(wanted)
        consent.give(wanted)
        print(f"{'Allowed already' if before else 'Allowed'}, for {purpose} here:")
        print(shown(command))
    return 0


def _named(repository: Repository) -> dict[str, str]:
    """The commands of `.theta.toml`, each with what it is for."""
    data = committed_bytes(repository) or b""
    found: dict[str, list[str]] = {}
    merge = policy.parse_file(data).evaluate
    if merge:
        found[merge] = ["git theta merge --tune"]
    for one in config.parse(data).evaluations:
        found.setdefault(one.command, []).append(f"git theta evaluate --evaluation {one.name}")
    return {command: " and ".join(purposes) for command, purposes in found.items()}


def _list() -> int:
    found = list(Consent.of(None, os.environ).all())
    fact("commands", list(map(_record, found)))
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
    fact("commands", list(map(_record, found)))
    for one in found:
        consent.revoke(one)
        print(f"No longer allowed in {printable(one.repository)}:")
        print(shown(one.command))
    if not found:
        print("Nothing is allowed here.")
    return 0


def _record(one: Allowed) -> dict[str, str]:
    return {"name": one.name, "repository": one.repository, "command": one.command}


def _is_meant(one: Allowed, name: str, repository: Repository | None) -> bool:
    if name:
        return one.name.startswith(name)
    return repository is not None and one.repository == evaluation_of(repository, "").repository
