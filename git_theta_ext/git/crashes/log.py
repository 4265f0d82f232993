"""What is kept of a program error: `theta/logs` in the repository, one file for each.

A `ThetaError` is no program error: it says itself what is wrong. Anything else that reaches the
top of a process is a bug, and its traceback, which a driver prints between the lines of Git, is
lost before anybody asks for it. `git theta logs` shows what was kept.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.text import printable
from git_theta_ext.core.version import VERSION
from git_theta_ext.git.repository import Repository

KEPT = 50
"""Logs kept; the oldest beyond that are removed when a new one is written."""
_ENDING = ".log"


def folder_of(repository: Repository) -> Path:
    """Where the logs of a repository are; it need not be there."""
    return repository.common_dir / "theta" / "logs"


def logs(repository: Repository) -> list[Path]:
    """The logs that were kept, oldest first."""
    with suppress(OSError):
        return sorted(folder_of(repository).glob(f"*{_ENDING}"))
    return []


def clear(repository: Repository) -> int:
    """Remove all logs; how many there were."""
    found = logs(repository)
    for path in found:
        files.remove_quietly(path)
    return len(found)


def keep(error: BaseException) -> None:
    """Keep the traceback of an error and say where, if there is a repository to keep it in."""
    with suppress(ThetaError, OSError):
        place = _write(Repository.discover(), "".join(traceback.format_exception(error)))
        print(
            "git theta: error: this is an error in git-theta-ext itself; what is above was kept in"
            f" {printable(str(place))}\n  hint: git theta logs last   shows it",
            file=sys.stderr,
        )


def _write(repository: Repository, text: str) -> Path:
    """Keep one log, readable by its owner alone: it names files and arguments."""
    folder = folder_of(repository)
    folder.mkdir(parents=True, exist_ok=True)
    for old in logs(repository)[: -KEPT + 1]:
        files.remove_quietly(old)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    place = folder / f"{stamp}-{os.getpid()}{_ENDING}"
    words = " ".join(map(printable, [sys.orig_argv[0], *sys.argv]))
    content = f"git-theta-ext {VERSION}\n$ {words}\n\n{text}"
    files.replace_file(place, content.encode("utf-8", "backslashreplace"), mode=0o600)
    return place
