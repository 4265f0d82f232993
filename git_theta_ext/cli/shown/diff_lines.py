"""Standard input to standard output, a diff with its manifests made readable: a filter for Git.

A command of Git waits for it, or a person who pages. So it imports little, writes what it has
before it reads on, and passes on what it cannot read.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from git_theta_ext.comparison.report.hunks import Hunks
from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.manifest.readable import FIRST_LINE

_PIECE = 1 << 16
_ALONE = {"GIT_NO_LAZY_FETCH": "1"}
"""Nothing is fetched to find out (Git 2.44 and newer)."""


def run(source: int = 0, target: int = 1) -> None:
    """Filter until the input ends.

    Raises:
        OSError: it cannot be read, or not written (a pager that was closed).
    """
    with suppress(ValueError):  # (not in the main thread)
        # Ctrl-C is for the command that writes the diff: the pager and what it is fed live on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    hunks = Hunks(is_manifest)
    while data := os.read(source, _PIECE):
        _write(target, hunks.feed(data))
    _write(target, hunks.end())


def is_manifest(blobs: Sequence[str]) -> bool:
    """Whether one of these blobs of the repository begins as a manifest does."""
    return any(_begins_so(oid) for oid in dict.fromkeys(blobs) if oid.strip("0"))


def _begins_so(oid: str) -> bool:
    from git_theta_ext.git.process import conversation

    begins = FIRST_LINE.encode()
    try:
        with conversation(["cat-file", "blob", oid], Path.cwd(), _ALONE) as (_, answer):
            return answer.read(len(begins)) == begins
    except (RepositoryError, OSError):
        return False


def _write(target: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]
