"""Has a process keep a log of an error that nothing handles; imports nothing before that."""

from __future__ import annotations

import sys
from types import TracebackType


def install() -> None:
    """Keep the traceback of such an error in the repository, after it was printed as ever."""
    sys.excepthook = _keep


def _keep(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    from git_theta_ext.core.terminal import harmless_streams
    from git_theta_ext.git.crashes import log as crash_log

    with harmless_streams():
        sys.__excepthook__(kind, error, trace)
        if issubclass(kind, Exception):
            crash_log.keep(error)
