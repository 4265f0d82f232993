"""Git commands that wait for another one: a lock of Git's own lasts as long as that one is at work.

Git itself does not wait for `index.lock`, and a tenth of a second for refs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from git_theta_ext.core.errors import RepositoryError

T = TypeVar("T")
SECONDS = 60.0
_FIRST, _MOST = 0.05, 2.0


def patiently(
    command: Callable[[], T],
    *,
    seconds: float = SECONDS,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """What a command of Git gives, tried again while another one holds a lock that it needs.

    Args:
        command: may be called several times.
        seconds: how long it is tried.
        sleep, clock: of `time`.

    Raises:
        RepositoryError: it fails for another reason, or the lock stays.
    """
    end, pause = clock() + seconds, _FIRST
    while True:
        try:
            return command()
        except RepositoryError as error:
            if not is_locked(error):
                raise
            if clock() >= end:
                raise RepositoryError(
                    f"{error.message}\n  (tried for {seconds:g} seconds)",
                    hint="if nothing of Git's is at work here any more, remove that .lock file",
                ) from error
        sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _MOST)


def is_locked(error: RepositoryError) -> bool:
    """Whether Git says that a lock is held; the name of its file stands in every language."""
    return ".lock'" in error.message
