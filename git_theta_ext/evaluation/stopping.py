"""Signals that end this process, while commands of evaluations run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_SIGNALLED = 128
"""A shell adds it to the number of the signal that ended a command."""


@contextmanager
def ended_politely() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal end what was started, and be done with that.

    A second signal must not stop the ending: git passes on the Ctrl-C that the terminal has sent to
    this process, too.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, lambda *_: None)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(_SIGNALLED + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    named = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    # What is ignored stays so: nohup, and the background of a script, ask for that.
    found = {one: signal.getsignal(one) for one in named}
    before = {one: now for one, now in found.items() if now not in (signal.SIG_IGN, None)}
    for one in before:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
