"""The one way in which Python is started for Git: filter, drivers, hooks, mergetool, by-hand lines.

Git starts all of them in the top folder of a work tree that anybody may have written. Python would
import from there in many ways: the current folder that `-m` puts first on `sys.path`, an empty or
relative entry of PYTHONPATH, a relative PYTHONUSERBASE (which counts even with `-E`). So Python is
always started with `-I`, for which no variable of the environment, no current folder and no user
site count (Python's documentation, "Command line and environment"), and by its absolute path.

Where the package is found only through the user site (`pip install --user`) or PYTHONPATH, the
folders that make it importable are written into the command, as absolute paths, when `install`
runs. What the environment says later does not matter.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from git_theta_ext.core import advice
from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.process import run_program

ISOLATED = "-I"
"""The flag with which Python is started, without exception."""

_SITE = "site:"
_WITH_FOLDERS = (
    "import runpy,site,sys;i=sys.argv.index('-m');"
    "[site.addsitedir(p[5:]) if p[:5]=='site:' else sys.path.append(p) for p in sys.argv[1:i]];"
    "del sys.argv[:i+1];"
    "runpy.run_module(sys.argv[0],run_name='__main__',alter_sys=True)"
).replace("'", '"')
"""Puts the folders before `-m` behind all others on `sys.path`, then does what `-m` does. `site:`
marks one whose `.pth` files count, as they do in the user site."""

_PROBE = "git_theta_ext.drivers.filter_commands"
"""Imports all that Git's use of the package needs, and does nothing else when it is run."""


def python_command() -> list[str]:
    """This Python and what else comes before `-m MODULE`, to start the package from any folder.

    Raises:
        UsageError: it cannot be started; the package is only on the path of this very process.
    """
    if not sys.executable:
        raise UsageError("this Python does not know its own path (sys.executable is empty)")
    neutral = Path(sys.executable).parent
    for command in _candidates():
        if run_program([*command, "-m", _PROBE], neutral)[0] == 0:
            return command
    raise UsageError(
        f"{sys.executable} cannot import git_theta_ext from another folder, "
        "so Git could not start its filter",
        hint=advice.install_package(),
    )


def current_command() -> list[str]:
    """As `python_command`, without trying anything where this process was started that way itself.

    Raises:
        UsageError: see `python_command`.
    """
    words = sys.orig_argv[1:]
    if is_safe([sys.executable, *words]):
        return [sys.executable, *words[: words.index("-m")]]
    return python_command()


def is_safe(words: Sequence[str]) -> bool:
    """Whether a command line starts Python in the way of `python_command`."""
    if list(words[1:3]) == [ISOLATED, "-m"]:
        return True
    if list(words[1:4]) != [ISOLATED, "-c", _WITH_FOLDERS] or "-m" not in words:
        return False
    folders = words[4 : words.index("-m")]
    return all(os.path.isabs(folder.removeprefix(_SITE)) for folder in folders)


def shell_word(text: str) -> str:
    """A path, or other text, as one word of the POSIX shell that Git gives commands to."""
    # Git for Windows' shell takes forward slashes; nothing but paths has backslashes.
    path = text.replace("\\", "/") if os.name == "nt" else text
    return "'" + path.replace("'", "'\\''") + "'"


def shell_command(command: Sequence[str]) -> str:
    """What `python_command` gave as the beginning of a line of that shell."""
    return " ".join([shell_word(command[0]), command[1], *map(shell_word, command[2:])])


def _candidates() -> Iterator[list[str]]:
    """Ways to start this Python, the plainest first."""
    yield [sys.executable, ISOLATED]
    user = _usable([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
    user = [_SITE + folder for folder in user]
    listed = _usable(os.environ.get("PYTHONPATH", "").split(os.pathsep))
    for folders in (user, listed, [*listed, *user]):
        if folders:
            yield [sys.executable, ISOLATED, "-c", _WITH_FOLDERS, *dict.fromkeys(folders)]


def _usable(folders: list[str]) -> list[str]:
    """Without relative and empty entries: they mean whatever folder Git is run in."""
    return [folder for folder in folders if os.path.isabs(folder) and os.path.isdir(folder)]
