"""One job at a time in the background of a training; nothing waits in a queue."""

from __future__ import annotations

import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable

_NICENESS = 5
"""The training comes first: on Linux this is of the thread alone, and of what it starts."""


class Worker:
    """Runs jobs in a thread, one at a time; what went wrong with one is raised when asked for."""

    def __init__(self, name: str) -> None:
        """`name` is that of the thread, and said where an error was never asked for."""
        self._name = name
        self._thread: threading.Thread | None = None
        self._errors: list[BaseException] = []
        weakref.finalize(self, _unsaid, name, self._errors)

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[], object]) -> None:
        """Run a job, after the one before.

        The thread is no daemon: a training that ends waits for it, even by an exception.
        """
        self.join()
        self._thread = threading.Thread(target=self._run, args=(job,), name=self._name)
        self._thread.start()

    def join(self) -> None:
        """Wait for the job that is under way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """Wait for the job that is under way; raise what went wrong since this was last asked."""
        self.join()
        self.check()

    def check(self) -> None:
        """Raise what went wrong since this was last asked."""
        if self._errors and not self.busy:
            error = self._errors[0]
            self._errors.clear()
            raise error

    def _run(self, job: Callable[[], object]) -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _niceness())
        try:
            job()
        except BaseException as error:
            self._errors.append(error)


def _niceness() -> int:
    """Never more urgent than the process is."""
    return max(_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)) if sys.platform == "linux" else 0


def _unsaid(name: str, errors: list[BaseException]) -> None:
    """Say what nobody has asked for: at the end of the program, or when the worker goes."""
    for error in errors:
        warnings.warn(f"{name}: {error}", stacklevel=2)
