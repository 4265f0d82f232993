"""Install and uninstall: the few settings of git config that make Git start our drivers.

The commands name this Python by its absolute path, so that they work from any shell, from cron and
from graphical clients, whatever PATH says and whether or not a virtual environment is active.

Git starts the filter and the drivers in the top folder of the work tree, and `python -m` puts the
current folder first on `sys.path`: a cloned repository with a `numpy.py` in its root would be
executed. So Python is always started with a flag that keeps the folder off the path: `-I`
(isolated; Python's documentation, "Command line and environment"). Only where the package cannot
be imported that way are weaker ones used: `-E -P` for a `pip install --user`, and `-P` where
PYTHONPATH is what makes it importable.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from git_theta_ext.errors import RepositoryError, UsageError
from git_theta_ext.git_process import run_git, run_program
from git_theta_ext.repository import Repository

Scope = Literal["global", "local", "system"]

SKIP_SMUDGE = "theta.skipSmudge"
_PYTHON_FLAGS = (["-I"], ["-E", "-P"], ["-P"])
"""From the safest to the least safe; none of them lets the current folder be imported from."""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting of git config before and after; None where it is not set."""

    name: str
    before: str | None
    after: str | None


def settings(python: list[str]) -> dict[str, str]:
    """The settings that `install` makes, by name; `python` is the interpreter and its flags."""
    command = " ".join([_quote(python[0]), *python[1:], "-m", "git_theta_ext.drivers."])
    # Git expands %O and its like in the merge command, so a % of the path itself is doubled.
    merge = command.replace("%", "%%") + "merge %O %A %B %L %P"
    tool = command.replace(
        "git_theta_ext.drivers.", 'git_theta_ext.cli.main mergetool -- "$MERGED"'
    )
    return {
        "filter.theta.process": command + "filter",
        "filter.theta.required": "true",
        "diff.theta.command": command + "diff",
        "merge.theta.name": "git-theta: merge checkpoints tensor by tensor",
        "merge.theta.driver": merge,
        "mergetool.theta.cmd": tool,
        "mergetool.theta.trustExitCode": "true",
    }


def install(scope: Scope, cwd: Path, *, skip_smudge: bool = False) -> list[Change]:
    """Make the settings in one configuration file; what that changed, nothing if all was there.

    Raises:
        UsageError: this Python cannot import the package from another folder.
        RepositoryError: the file cannot be written, or `local` is asked for outside a repository.
    """
    wanted: dict[str, str | None] = {**settings(python_command())}
    wanted[SKIP_SMUDGE] = "true" if skip_smudge else None
    return _apply(scope, cwd, wanted)


def uninstall(scope: Scope, cwd: Path) -> list[Change]:
    """Remove from one configuration file what `install` put there; what that changed.

    Git drops a section with its last setting, so nothing of ours is left.

    Raises:
        RepositoryError: the file cannot be written, or `local` is asked for outside a repository.
    """
    names = [*settings([""]), SKIP_SMUDGE]
    return _apply(scope, cwd, dict.fromkeys(names))


def is_installed(repository: Repository) -> bool:
    """Whether the settings in force here name all three drivers, and a Python that exists."""
    return not problems(repository)


def problems(repository: Repository) -> list[str]:
    """What is wrong with the settings in force in a repository, one sentence each."""
    found = []
    for name in ("filter.theta.process", "diff.theta.command", "merge.theta.driver"):
        value = repository.setting(name)
        if value is None:
            found.append(f"{name} is not set")
        elif (program := _program(value, percent=name.startswith("merge."))) is None:
            found.append(f"{name} does not start with a program's path: {value}")
        elif not Path(program).is_file():
            found.append(f"{name} names a program that does not exist: {program}")
    return found


def scopes(cwd: Path) -> list[tuple[str, str]]:
    """Where `filter.theta.process` is set: pairs of scope and value, the one in force last."""
    answer = run_git(
        ["config", "--show-scope", "-z", "--get-all", "filter.theta.process"], cwd, ok=(0, 1)
    )
    fields = os.fsdecode(answer).split("\0")
    return list(zip(fields[::2], fields[1::2], strict=False))


def python_command() -> list[str]:
    """This Python and the safest flags with which it can import the package from any folder.

    Raises:
        UsageError: it cannot; the package is only on the path of this very process.
    """
    if not sys.executable:
        raise UsageError("this Python does not know its own path (sys.executable is empty)")
    folder = Path(sys.executable).parent
    for flags in _PYTHON_FLAGS:
        command = [sys.executable, *flags]
        if run_program([*command, "-c", "import git_theta_ext.drivers"], folder)[0] == 0:
            return command
    raise UsageError(
        f"{sys.executable} cannot import git_theta_ext from another folder, "
        "so Git could not start its filter",
        hint="install the package first: python -m pip install git-theta-ext",
    )


def config_file(scope: Scope, cwd: Path) -> str:
    """How to name a configuration file to the user."""
    if scope == "local":
        return str(Repository.discover(cwd).common_dir / "config")
    return f"the {scope} git config"


def _apply(scope: Scope, cwd: Path, wanted: dict[str, str | None]) -> list[Change]:
    changes = list(_differences(scope, cwd, wanted))
    for change in changes:
        if change.after is None:
            _config(scope, cwd, "--unset-all", change.name)
        else:
            _config(scope, cwd, "--replace-all", change.name, change.after)
    return changes


def _differences(scope: Scope, cwd: Path, wanted: dict[str, str | None]) -> Iterator[Change]:
    for name, after in wanted.items():
        answer = _config(scope, cwd, "-z", "--get-all", name, ok=(0, 1))
        values = os.fsdecode(answer).split("\0")[:-1]
        if values != ([] if after is None else [after]):
            yield Change(name, values[-1] if values else None, after)


def _config(scope: Scope, cwd: Path, *arguments: str, ok: tuple[int, ...] = (0,)) -> bytes:
    try:
        return run_git(["config", f"--{scope}", *arguments], cwd, ok=ok)
    except RepositoryError as error:
        hints = {
            "local": "run it inside a repository",
            "system": "it needs an administrator's rights (sudo); or leave out --system",
            "global": "is the file that `git config --global -e` opens writable?",
        }
        raise RepositoryError(error.message, hint=hints[scope]) from error


def _quote(path: str) -> str:
    """A path as one word of the POSIX shell that Git gives its commands to, on Windows too."""
    if os.name == "nt":
        path = path.replace("\\", "/")
    return "'" + path.replace("'", "'\\''") + "'"


def _program(command: str, *, percent: bool) -> str | None:
    """The program that a command of git config starts, or None if it cannot be told."""
    try:
        words = shlex.split(command.replace("%%", "%") if percent else command)
    except ValueError:
        return None
    return words[0] if words else None
