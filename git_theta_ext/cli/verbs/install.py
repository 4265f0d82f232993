"""`git theta install`: set up Git to start our drivers."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints.placed import manifests_in_work_tree
from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git import launch
from git_theta_ext.git.process import run_git
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import hooks, installation
from git_theta_ext.objects import reminders


def add_parser(subparsers: Any) -> None:
    """Add the parser of `install`."""
    parser = subparsers.add_parser(
        "install",
        help="set up Git to use git-theta for tracked checkpoints",
        description="Write the filter, diff and merge drivers into git config. Run once per user.",
    )
    add_scope(parser)
    parser.add_argument(
        "--skip-smudge",
        action="store_true",
        help="leave manifests in the work tree on checkout; `git theta pull` writes checkpoints",
    )
    parser.add_argument(
        "--hooks",
        action="store_true",
        help="put the hooks into the folder of core.hooksPath, too; those there run first",
    )
    parser.add_argument(
        "--commit-summary", action="store_true",
        help="in this repository, have a hook put a summary into edited commit messages",
    )  # fmt: skip
    parser.add_argument(
        "--pager", action="store_true",
        help="have git log, show and diff show readable lines instead of hashes when they page",
    )  # fmt: skip
    parser.set_defaults(run=run)


_LONGEST, _CUT = 300, 60
"""Characters of a setting that are printed as they are; of a longer one, what is shown."""


def add_scope(parser: argparse.ArgumentParser) -> None:
    """Add --local and --system, which say whose configuration is meant."""
    group = parser.add_mutually_exclusive_group()
    for scope, whom in (("local", "this repository"), ("system", "all users of this machine")):
        group.add_argument(
            f"--{scope}",
            dest="scope",
            action="store_const",
            const=scope,
            help=f"for {whom} (default: for all repositories of this user)",
        )
    parser.set_defaults(scope="global")


def run(args: argparse.Namespace) -> int:
    """Install, and say what that changed."""
    cwd = Path.cwd()
    changes = installation.install(args.scope, cwd, skip_smudge=args.skip_smudge, pager=args.pager)
    fact("changes", records(changes))
    for change in changes:
        value = "(unset)" if change.after is None else _shortened(change.after)
        print(f"{change.name} = {value}")
    where = printable(installation.config_file(args.scope, cwd))
    print(f"git-theta was already set up in {where}." if not changes else f"Set up in {where}.")
    _tell_of_filters(cwd, args.scope, pager=args.pager)
    if args.hooks or args.scope == "local":
        repository = Repository.discover(cwd)
        elsewhere = args.hooks and hooks.is_elsewhere(repository)
        for line in hooks.share(repository) if elsewhere else ensure_hooks(repository):
            print(printable(line))
    else:
        _renew_hooks(cwd)
    if args.commit_summary:
        for line in hooks.ensure_summary(Repository.discover(cwd), launch.python_command()):
            print(printable(line))
    warn_of_missing_hooks(cwd)
    warn_of_missing_lfs(cwd)
    tell_of_manifests(cwd)
    return 0


def _tell_of_filters(cwd: Path, scope: installation.Scope, *, pager: bool) -> None:
    """Say which settings were left as they are, and how ours works together with them."""
    for name, value in installation.foreign_filters(cwd).items():
        if name == installation.INTERACTIVE:
            print(f"{name} is yours and stays. To see tensors in git add -p instead of hashes:")
            print(f"  {_chained(scope, name, value)}")
        elif pager:
            print(f"{name} is yours and stays: {printable(value)}")
            if not _is_switch(value):
                print(f"  {_chained(scope, name, value)}")


def _chained(scope: installation.Scope, name: str, value: str) -> str:
    """The command that puts our filter in front of a setting."""
    if printable(value) != value:
        value = "…"
    return f"git config --{scope} {name} {shlex.quote(f'git theta diff-filter | {value}')}"


def _is_switch(value: str) -> bool:
    """Whether `pager.NAME` says only whether there is to be one."""
    return value.lower() in ("true", "yes", "on", "1", "false", "no", "off", "0")


def records(changes: Sequence[installation.Change]) -> list[dict[str, str | None]]:
    """Changes of settings for JSON."""
    return [{"name": one.name, "before": one.before, "after": one.after} for one in changes]


def _renew_hooks(cwd: Path) -> None:
    """Let the hooks of the repository that the user stands in run this Python: theirs may be gone.

    The filter would do so when it first runs. A push, which they stop, does not run it.
    """
    try:
        repository = Repository.discover(cwd)
    except RepositoryError:
        return
    if hooks.are_there(repository):
        for line in ensure_hooks(repository):
            print(printable(line))


def _shortened(value: str) -> str:
    """A setting as one line: those of hooks are scripts, which `git config` shows whole."""
    return printable(value) if len(value) <= _LONGEST else printable(value[:_CUT]) + " …"


def warn_of_missing_hooks(cwd: Path) -> None:
    """Say what keeps pushes from here from sending objects, as `git add` will."""
    try:
        repository = Repository.discover(cwd)
    except RepositoryError:
        return
    # In the repository's own folder the filter puts them, when it first runs: never in a bare one.
    if hooks.is_elsewhere(repository) or repository.work_tree is None:
        reminders.tell(hooks.warnings(repository, launch.python_command))


def ensure_hooks(repository: Repository) -> list[str]:
    """Put the hooks in place, as the filter does at its first use; what that changed."""
    return hooks.ensure(repository, *launch.python_command())


def tell_of_manifests(cwd: Path) -> None:
    """Say how to get the checkpoints of a repository that was cloned before this was set up."""
    try:
        repository = Repository.discover(cwd)
    except RepositoryError:
        return
    if repository.work_tree is None:
        return
    paths = [entry.path for entry in repository.tracked()]
    count = len(manifests_in_work_tree(repository, paths))
    if count:
        print(
            f"{plural(count, 'manifest')} in the work tree: git theta pull   writes the checkpoints"
        )


def warn_of_missing_lfs(cwd: Path) -> None:
    """Say what does not work without git-lfs, where it is missing."""
    try:
        run_git(["lfs", "version"], cwd)
    except RepositoryError:
        print(
            "warning: git-lfs was not found. Everything works in this clone, and with remotes that "
            "are\n  folders; pushing to and fetching from a server needs it: https://git-lfs.com",
            file=sys.stderr,
        )
