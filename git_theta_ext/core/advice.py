"""Commands that messages advise, made to be pasted; tests under `tests/git` run every one of them.

A command names files as the shell takes them, from the folder that the user stands in. A name that
cannot be shown as it is cannot be pasted either: then the command keeps its placeholder, and a
sentence says so.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from git_theta_ext.core.text import printable

STORE_BY_TENSOR = (
    "git rm -q --cached FILE && git add FILE" if os.name == "nt" else "git add --renormalize :/"
)
"""Stores by tensor what the index holds whole. The filter is asked the same by `git status`, which
must find such a file unchanged, so it looks which command asks: Windows does not tell that."""
TRACK_FIRST = f"git theta track PATTERN, then: {STORE_BY_TENSOR}"
UPGRADE = "pip install --upgrade git-theta-ext"
"""How a newer version of the program is had."""

OTHER_VERSION = (
    "git log --oneline -- FILE   lists the versions; to take one: git checkout REV -- FILE"
)
"""Where the version at hand is damaged, by hand or by staging parts of it."""
_HIDDEN = "(its name has characters that are not shown: type it with the help of the Tab key)"


def with_name(text: str, name: str, placeholder: str = "FILE") -> str:
    """Advice about a file: its name in the place of `FILE`, as the shell takes it, if it can be.

    Args:
        text: the advice.
        name: as the user would type it: from the folder that the command is run in.
        placeholder: the word to be replaced.
    """
    if printable(name) != name:
        return f"{text}   {_HIDDEN}"
    return text.replace(placeholder, word(name))


def word(name: str) -> str:
    """A file's name as a word of the shell; FILE where the name cannot be shown as it is."""
    if printable(name) != name:
        return "FILE"
    # A dash would begin an option, and a colon what Git calls the magic of a pathspec.
    return shlex.quote(f"./{name}" if name.startswith(("-", ":")) else name)


def about_version(text: str, revision: str, path: str) -> str:
    """Advice about `VERSION`, which is a path from the top of the work tree in a revision."""
    return with_name(text, f"{revision}:{path}", "VERSION")


def install_package() -> str:
    """How to install this package for the Python that runs it; it may run from its sources.

    With `-I`: a `pip.py` of the folder that the user stands in would be run otherwise.
    """
    python = shlex.quote(sys.executable.replace("\\", "/") if os.name == "nt" else sys.executable)
    source = Path(__file__).resolve().parents[2]
    if (source / "pyproject.toml").is_file():
        place = shlex.quote(source.as_posix())
        return f"install the package first: {python} -I -m pip install {place}"
    return f"in the folder of its source, install the package first: {python} -I -m pip install ."


def install_other(package: str) -> str:
    """How to install a package that is needed for a part only."""
    return f"python -I -m pip install {package}"
