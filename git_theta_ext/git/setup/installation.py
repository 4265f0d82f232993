"""Install and uninstall: the few settings of git config that make Git start our drivers.

The commands name this Python by its absolute path, so that they work from any shell, from cron and
from graphical clients, whatever PATH says and whether or not a virtual environment is active.

How Python is started is `launch`'s matter. Git 2.54 and newer runs hooks from git config as well,
beside those in the hooks folder and whatever `core.hooksPath` says; earlier versions ignore these
settings. So they are always made, and `hooks` sees to it that none runs twice.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.git import launch
from git_theta_ext.git.process import run_git
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import hook_scripts

Scope = Literal["global", "local", "system"]

SKIP_SMUDGE = "theta.skipSmudge"
TOOL, TOOL_NAME = "merge.tool", "theta"
"""What `git mergetool` starts when it is not told: set where nothing is, taken away if ours."""

ONE_BY_ONE = ("filter.theta.clean", "filter.theta.smudge")
"""What clients start for each file that cannot keep a filter running, as JGit."""

INTERACTIVE = "interactive.diffFilter"
PAGERS = ("pager.diff", "pager.log", "pager.show")
"""By what Git shows diffs: a person may have chosen another filter (delta, diff-so-fancy) or pager,
which stays. The pagers are set on request alone: our filter, then the pager that Git has anyway."""

_DIFF_FILTER = "git_theta_ext.drivers.diff_filter"
_FILTER_END = f"-m {_DIFF_FILTER} || cat; }}"
_PAGER_END = _FILTER_END + ' | eval "$(git var GIT_PAGER)"'

NOBODY = ["", launch.ISOLATED]
"""No Python, where only the names of the settings matter."""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting of git config before and after; None where it is not set."""

    name: str
    before: str | None
    after: str | None


def settings(python: list[str]) -> dict[str, str]:
    """The settings that `install` makes, by name; `python` is the interpreter and its flags."""
    command = f"{launch.shell_command(python)} -m git_theta_ext.drivers."
    # Git expands %% here and others do not: quotes keep the path's own from being anything.
    one_by_one = re.sub("%(?=[%f])", "%''", command)
    # Git expands %O and its like in the merge command, so a % of the path itself is doubled.
    merge = command.replace("%", "%%") + "merge %O %A %B %L %P"
    tool = command.replace(
        "git_theta_ext.drivers.", 'git_theta_ext.cli.main mergetool --backup "$BACKUP" -- "$MERGED"'
    )
    report = command.replace(
        "git_theta_ext.drivers.",
        'git_theta_ext.cli.main review --difftool "$MERGED" -- "$LOCAL" "$REMOTE"',
    )
    return {
        "filter.theta.process": command + "filter",
        # For clients that know no `process`. Git takes neither while `process` is set, even to "".
        **{name: f"{one_by_one}filter {name.rpartition('.')[2]} %f" for name in ONE_BY_ONE},
        "filter.theta.required": "true",
        "diff.theta.command": command + "diff",
        "merge.theta.name": "git-theta: merge checkpoints tensor by tensor",
        "merge.theta.driver": merge,
        "mergetool.theta.cmd": tool,
        "mergetool.theta.trustExitCode": "true",
        "difftool.theta.cmd": report,
        **hook_scripts.configured(python),
    }


def filters(python: list[str]) -> dict[str, str]:
    """The settings by which Git shows diffs through our filter; `python` as for `settings`.

    Where that Python is gone, `cat` passes on what would be lost, and with it the command.
    """
    start = f"{{ {launch.shell_command(python)} "
    pager = start + _PAGER_END
    return {INTERACTIVE: start + _FILTER_END, **dict.fromkeys(PAGERS, pager)}


def install(
    scope: Scope, cwd: Path, *, skip_smudge: bool = False, pager: bool = False
) -> list[Change]:
    """Make the settings in one configuration file; what that changed, nothing if all was there.

    Args:
        scope: which file.
        cwd: where the command was started.
        skip_smudge: a checkout leaves manifests.
        pager: what Git pages goes through our filter, too, where no pager of the command's own
            is set.

    Raises:
        UsageError: this Python cannot import the package from another folder.
        RepositoryError: the file cannot be written, or `local` is asked for outside a repository.
    """
    python = launch.python_command()
    wanted: dict[str, str | None] = {**settings(python)}
    wanted[SKIP_SMUDGE] = "true" if skip_smudge else None
    if not _has_tool(scope, cwd):
        wanted[TOOL] = TOOL_NAME
    for name, value in filters(python).items():
        there = _chosen(scope, cwd, name)
        asked = pager or name == INTERACTIVE
        if any(map(_is_our_filter, there[:1])) or (asked and not there):
            wanted[name] = value
    return _apply(scope, cwd, wanted)


def uninstall(scope: Scope, cwd: Path) -> list[Change]:
    """Remove from one configuration file what `install` put there; what that changed.

    Git drops a section with its last setting, so nothing of ours is left.

    Raises:
        RepositoryError: the file cannot be written, or `local` is asked for outside a repository.
    """
    # The other way about: Git 2.54 refuses to work with a hook's event without its command.
    names = [SKIP_SMUDGE, *reversed(settings(NOBODY))]
    if _values(scope, cwd, TOOL) == [TOOL_NAME]:
        names.append(TOOL)
    for name in filters(NOBODY):
        if any(map(_is_our_filter, _values(scope, cwd, name))):
            names.append(name)
    return _apply(scope, cwd, dict.fromkeys(names))


def foreign_filters(cwd: Path) -> dict[str, str]:
    """Settings in force here by which Git shows diffs through something else, and not ours.

    One that has our filter among others is none.
    """
    found = {name: _in_force(cwd, name) for name in (INTERACTIVE, *PAGERS)}
    return {
        name: value
        for name, value in found.items()
        if value and not _is_our_filter(value) and not _has_our_filter(value)
    }


def chained_filters(cwd: Path) -> list[str]:
    """Settings in force here that somebody made, and that start our filter among others."""
    names = (INTERACTIVE, "core.pager", *PAGERS)
    return [name for name in names if _has_our_filter(_in_force(cwd, name))]


def _is_our_filter(value: str) -> bool:
    """Whether this program made a setting, by whichever Python."""
    return value.startswith("{ ") and value.endswith((_FILTER_END, _PAGER_END))


def _has_our_filter(value: str) -> bool:
    return not _is_our_filter(value) and ("git theta diff-filter" in value or _DIFF_FILTER in value)


def _in_force(cwd: Path, name: str) -> str:
    return os.fsdecode(run_git(["config", "-z", "--get", name], cwd, ok=(0, 1))).removesuffix("\0")


def _has_tool(scope: Scope, cwd: Path) -> bool:
    """Whether somebody chose a tool for `git mergetool`, where this scope's would count or stand.

    Ours hands on what is no checkpoint, but whoever chose another one for all files has chosen.
    """
    return any(value != TOOL_NAME for value in _chosen(scope, cwd, TOOL))


def _chosen(scope: Scope, cwd: Path, name: str) -> list[str]:
    """The values of a setting in a scope, and where that has none, in those behind it."""
    scopes: dict[Scope, list[Scope]] = {"local": ["global", "system"], "global": ["system"]}
    wider = [_values(one, cwd, name, ok=(0, 1, 128)) for one in scopes.get(scope, [])]
    return [*_values(scope, cwd, name), *(value for values in wider for value in values)]


def is_installed(repository: Repository) -> bool:
    """Whether the settings in force here name all three drivers, and a Python that exists."""
    return not problems(repository)


def problems(repository: Repository) -> list[str]:
    """What is wrong with the settings in force in a repository, one sentence each."""
    found = []
    needed = ("filter.theta.process", "diff.theta.command", "merge.theta.driver")
    for name in (*needed, *ONE_BY_ONE):
        value = repository.setting(name)
        if value is None and name in ONE_BY_ONE:
            continue  # as earlier versions left it: Git itself does not miss them
        if value is None:
            found.append(f"{name} is not set")
        elif (program := _program(value, percent=name.startswith("merge."))) is None:
            found.append(f"{name} does not start with a program's path: {value}")
        elif not Path(program).is_file():
            found.append(f"{name} names a program that does not exist: {program}")
        elif "git_theta_ext" in value and not _is_isolated(value):
            found.append(f"{name} starts Python so that files of a work tree could be run: {value}")
    return found


def serves_git_alone(repository: Repository) -> bool:
    """Whether the settings lack those for clients that start a command for each file."""
    return not all(repository.setting(name) for name in ONE_BY_ONE)


def require(repository: Repository, *names: str) -> None:
    """Refuse a command whose result Git would store whole, or merge as text, without our drivers.

    Args:
        repository: whose settings count.
        names: the settings that the command needs; an empty one is switched off, so not there.

    Raises:
        UsageError: one of them is not set.
    """
    for name in names or ("filter.theta.process",):
        if not repository.setting(name):
            what = (
                "merge checkpoints as text"
                if name.startswith("merge.")
                else "store checkpoints whole"
            )
            raise UsageError(
                f"git-theta is not set up here ({name} is not set): Git would {what}",
                hint="git theta install   (then run the command again)",
            )


def scopes(cwd: Path) -> list[tuple[str, str]]:
    """Where `filter.theta.process` is set: pairs of scope and value, the one in force last."""
    answer = run_git(
        ["config", "--show-scope", "-z", "--get-all", "filter.theta.process"], cwd, ok=(0, 1)
    )
    fields = os.fsdecode(answer).split("\0")
    return list(zip(fields[::2], fields[1::2], strict=False))


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
        values = _values(scope, cwd, name)
        if values != ([] if after is None else [after]):
            yield Change(name, values[-1] if values else None, after)


def _values(scope: Scope, cwd: Path, name: str, ok: tuple[int, ...] = (0, 1)) -> list[str]:
    answer = _config(scope, cwd, "-z", "--get-all", name, ok=ok)
    return os.fsdecode(answer).split("\0")[:-1]


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


def _is_isolated(command: str) -> bool:
    return launch.is_safe(shlex.split(command.replace("%%", "%")))


def _program(command: str, *, percent: bool) -> str | None:
    """The program that a command of git config starts, or None if it cannot be told."""
    try:
        words = shlex.split(command.replace("%%", "%") if percent else command)
    except ValueError:
        return None
    return words[0] if words else None
