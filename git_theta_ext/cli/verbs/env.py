"""`git theta env`: where everything is in this repository, and what is in force."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.text import printable, to_json
from git_theta_ext.core.version import VERSION
from git_theta_ext.git import launch
from git_theta_ext.git.process import lines_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import hooks, installation
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import endpoints
from git_theta_ext.objects.transfer.endpoints import Endpoint

_SETTINGS = (
    r"^(theta\.|filter\.theta\.|diff\.theta\.|merge\.theta\.|lfs\.(push)?url$|core\.hookspath$)"
)
_VARIABLES = ("GIT_THETA_", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
"""Beginnings of names. Settings in GIT_CONFIG_VALUE_0 and so on may be secrets, and stay out."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `env`."""
    parser = subparsers.add_parser(
        "env",
        help="show the folders, servers, settings and variables in force here",
        description="Show where this repository keeps its objects, which server each remote's "
        "objects come from and go to, and the settings and variables in force. Passwords in URLs "
        "are left out. The versions of all that is used: git theta version.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the environment."""
    facts = collect(Repository.discover())
    if args.json:
        print(to_json(facts))
        return 0
    for name in ("git-theta-ext", "python"):
        print(f"{name}: {printable(facts[name])}")
    for name, value in facts["folders"].items():
        print(f"{name.replace('_', ' ')}: {'(none)' if value is None else printable(value)}")
    print(f"set up: {'yes' if facts['installed'] else 'no (git theta install)'}")
    print(f"hooks: {'at work' if not facts['hooks'] else printable(facts['hooks'][0])}")
    for remote in facts["remotes"]:
        print(f"remote {printable(remote['name'])}:")
        for way in ("fetch", "push"):
            print(f"  {way}: {' '.join(printable(remote[way]).split())}")
    for kind in ("settings", "variables"):
        print(f"{kind}:{'' if facts[kind] else ' (none)'}")
        for name, value in facts[kind]:
            print(f"  {printable(name)}={printable(value)}")
    return 0


def collect(repository: Repository) -> dict[str, Any]:
    """What `git theta env --json` prints."""
    store = store_of(repository)
    return {
        "git-theta-ext": VERSION,
        "python": " ".join(launch.current_command()),
        "folders": {
            "work_tree": None if repository.work_tree is None else str(repository.work_tree),
            "git_dir": str(repository.git_dir),
            "common_dir": str(repository.common_dir),
            "objects": str(Path(store.root) / "objects"),
            "objects_of_git_lfs": str(endpoints.lfs_folder(repository, repository.common_dir)),
        },
        "installed": installation.is_installed(repository),
        "hooks": hooks.warnings(repository, launch.python_command),
        "remotes": [
            {"name": name, **_servers(repository, name)}
            for name in lines_of(repository.git("remote"))
        ],
        "settings": list(_settings(repository)),
        "variables": sorted(
            (name, endpoints.without_password(value))
            for name, value in os.environ.items()
            if name.startswith(_VARIABLES)
        ),
    }


def _servers(repository: Repository, remote: str) -> dict[str, str]:
    """Where objects of a remote come from and go to, or why that is not known."""

    def push() -> Endpoint:
        url = endpoints.remote_url(repository, remote, push=True)
        return endpoints.for_push(repository, remote, url)

    def shown(find: Callable[[], Endpoint]) -> str:
        try:
            return str(find())
        except ThetaError as error:
            return f"(none: {error.message})"

    return {"fetch": shown(lambda: next(endpoints.for_fetch(repository, remote))),
            "push": shown(push)}  # fmt: skip


def _settings(repository: Repository) -> Iterable[tuple[str, str]]:
    """The settings in force that steer this program, in Git's order; scripts are cut."""
    answer = repository.git("config", "-z", "--get-regexp", _SETTINGS, ok=(0, 1))
    for item in answer.split(b"\0")[:-1]:
        name, _, value = os.fsdecode(item).partition("\n")
        yield name, endpoints.without_password(value)
