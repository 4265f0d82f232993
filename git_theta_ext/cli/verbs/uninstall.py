"""`git theta uninstall`: remove what `install` set up."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.cli.verbs.install import add_scope, records
from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation


def add_parser(subparsers: Any) -> None:
    """Add the parser of `uninstall`."""
    parser = subparsers.add_parser(
        "uninstall",
        help="remove what install set up",
        description="Remove the drivers from git config and the hooks from this repository.",
    )
    add_scope(parser)
    parser.add_argument(
        "--hooks",
        action="store_true",
        help="take the hooks out of the folder of core.hooksPath, too",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Uninstall, and say what is left to do."""
    cwd = Path.cwd()
    changes = installation.uninstall(args.scope, cwd)
    where = printable(installation.config_file(args.scope, cwd))
    fact("changes", records(changes))
    for change in changes:
        print(f"removed {change.name}")
    print(f"Removed from {where}." if changes else f"git-theta was not set up in {where}.")
    for name in installation.chained_filters(cwd):
        print(f"{name} still starts git theta diff-filter: that is yours to change")
    try:
        repository = Repository.discover(cwd)
    except RepositoryError:
        repository = None
    if repository is not None:
        from git_theta_ext.git.setup import hooks

        away = hooks.unshare if args.hooks else hooks.remove
        for line in away(repository):
            print(printable(line))
    for scope, _ in installation.scopes(cwd):
        option = "" if scope == "global" else f" --{scope}"
        print(f"It is still set up in the {scope} git config: git theta uninstall{option}")
    if repository is not None and repository.work_tree is not None:
        _explain_attributes(repository)
    return 0


def _explain_attributes(repository: Repository) -> None:
    paths = sorted({entry.path for entry in repository.tracked()})
    if not paths:
        return
    print(
        f"{plural(len(paths), 'path')} here still {'has' if len(paths) == 1 else 'have'} "
        "filter=theta in .gitattributes, "
        f"such as {printable(paths[0])}.\n"
        "Without the filter Git checks out their manifests instead of checkpoints. To keep the\n"
        "checkpoints as plain blobs: git theta untrack PATTERN; git add --renormalize .; git commit"
    )
