"""A line on the terminal that says how far a transfer is."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from git_theta_ext.core.terminal import redraw
from git_theta_ext.core.text import printable, size

_INTERVAL_SECONDS = 0.1


class Progress:
    """`label: 42% (1.2 GB of 2.9 GB)`, redrawn on stderr at most ten times a second.

    A context manager; call it with the number of bytes done since the last call. Where stderr is
    no terminal it prints nothing.
    """

    def __init__(self, label: str, total_bytes: int) -> None:
        """`total_bytes` of 0 means that there is nothing to show."""
        self._label = printable(label)
        self._total = total_bytes
        self._done = 0
        self._drawn = 0.0
        self._width = 0
        self._shown = total_bytes > 0 and sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        """Draw the line for the first time."""
        self._draw()
        return self

    def __call__(self, count: int) -> None:
        """Count `count` more bytes as done."""
        self._done += count
        if self._shown and time.monotonic() - self._drawn >= _INTERVAL_SECONDS:
            self._draw()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draw the line for the last time and leave it."""
        self._draw()
        if self._shown:
            sys.stderr.write("\n")
            sys.stderr.flush()

    def _draw(self) -> None:
        if not self._shown:
            return
        done = min(self._done, self._total)
        percent = 100 * done // self._total
        line = f"{self._label}: {percent}% ({size(done)} of {size(self._total)})"
        redraw(line.ljust(self._width))
        self._width = len(line)
        self._drawn = time.monotonic()
