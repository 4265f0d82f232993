"""Whether stdout gets colours: the command line, git config, the environment, the terminal."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.core.terminal import allow_colour, wants_colour
from git_theta_ext.git.process import run_git


def decide(option: str = "auto", *, to_file: bool = False) -> bool:
    """Whether to write colours, which stdout lets through from then on if so.

    Args:
        option: `always`, `never` or `auto`.
        to_file: the text is for a file, not for stdout: nothing but `always` colours it.
    """
    if to_file:
        return option == "always"
    return allow_colour(wants_colour(option, _setting, os.environ, sys.stdout))


def _setting(name: str) -> str | None:
    return _settings().get(name)


@cache
def _settings() -> dict[str, str]:
    """`color.*` of git config, with `-c` of the command line, in a repository or out of one."""
    try:
        answer = run_git(["config", "-z", "--get-regexp", r"^color\."], Path.cwd(), ok=(0, 1))
    except RepositoryError:
        return {}
    pairs = (item.partition("\n") for item in answer.decode("utf-8", "replace").split("\0") if item)
    return {name: value if newline else "true" for name, newline, value in pairs}
