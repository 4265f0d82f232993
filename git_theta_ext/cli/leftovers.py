"""Backups that `git mergetool` leaves beside checkpoints: `git add .` would take them whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from git_theta_ext.core.text import printable, size
from git_theta_ext.git.paths import advise
from git_theta_ext.git.repository import Repository

_SUFFIX = ".orig"


def found(repository: Repository, paths: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The backups of some checkpoints that Git does not ignore, and whether they are in the index.

    A backup that is tracked as a checkpoint itself is stored by tensor, and is none.
    """
    pattern = f":(top,glob)**/*{_SUFFIX}"
    answer = repository.git(
        "ls-files", "-z", "--others", "--exclude-standard", "--full-name", "--", pattern
    )
    others = {os.fsdecode(name) for name in answer.split(b"\0")[:-1]}
    staged = {entry.path for entry in repository.index(pattern)}
    there = others | staged
    for path in paths:
        name = path + _SUFFIX
        if name in there and repository.attribute("filter", name) != "theta":
            yield name, name in staged


def sentence(repository: Repository, path: str, *, staged: bool) -> str:
    """What a backup is, and what to type."""
    try:
        length = f" ({size((repository.top / path).lstat().st_size)})"
    except OSError:
        length = ""
    name = f"{printable(path)}{length}, a backup of git mergetool,"
    if staged:
        return f"{name} is in the index: {advise(repository, 'git rm -q --cached FILE', path)}"
    return f"{name} would be added by git add: {advise(repository, 'to remove it: rm FILE', path)}"
