"""What a command writes goes through here: nothing in it acts on a terminal but our own colours.

Names are made printable where they are put into a sentence. This is the second door: whatever is
forgotten there, and whatever argparse, a traceback or a warning prints, is made harmless when it is
written. Only colours of our own pass, and only once colours were asked for.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO, cast

from git_theta_ext.core.text import harmless, no_workflow_command, printable

GREEN, RED, CYAN = "\x1b[32m", "\x1b[31m", "\x1b[36m"
ALARM, BOLD, DIM, END = "\x1b[1;31m", "\x1b[1m", "\x1b[2m", "\x1b[m"
_OURS = re.compile(r"(\x1b\[(?:32|31|36|1;31|1|2)?m)")

_FALSE = ("false", "no", "off", "0")

Setting = Callable[[str], str | None]
"""Gives a setting of git config by its name, or None."""


class HarmlessStream:
    """A text stream in front of another one; everything but `write` is the other one's."""

    def __init__(self, stream: TextIO, *, in_workflow: bool = False) -> None:
        """`in_workflow`: what reads it obeys commands in the text, as GitHub's runner does."""
        self._stream = stream
        self._in_workflow = in_workflow
        self.coloured = False
        self.still = False
        """Whether no progress is drawn and no question asked."""
        self.used = False
        """Whether something was written."""
        self.kept: list[str] | None = None
        """What takes the text in place of the stream."""

    def isatty(self) -> bool:
        """Whether a person sits there who sees progress and can be asked."""
        return not self.still and self.kept is None and self._stream.isatty()

    def write(self, text: str) -> int:
        """Write `text`, made harmless; the length of what it was."""
        if self.kept is not None:
            self.kept.append(text)
            return len(text)
        self.used = True
        pieces = _OURS.split(text) if self.coloured else [text]
        safe = "".join(
            piece if number % 2 else harmless(piece) for number, piece in enumerate(pieces)
        )
        self._stream.write(no_workflow_command(safe) if self._in_workflow else safe)
        return len(text)

    def let_go(self) -> None:
        """Write what was kept, and from now on what is written."""
        kept, self.kept = self.kept or [], None
        self.writelines(kept)

    def writelines(self, lines: Any) -> None:
        """Write each of some lines."""
        for line in lines:
            self.write(line)

    def redraw(self, line: str) -> None:
        """Write `line` over the one that the cursor stands in."""
        self._stream.write("\r" + printable(line))
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_streams() -> None:
    """Put the null device where a standard stream was closed, as Git does.

    Otherwise the next file that is opened would get its descriptor, and what is printed.
    """
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            setattr(sys, name, os.fdopen(fd, mode, encoding="utf-8", closefd=False))


@contextmanager
def harmless_streams() -> Iterator[None]:
    """Make what is written to stdout and stderr harmless until the block ends.

    A bug that escapes from the block leaves the streams as they are: its traceback quotes names.
    """
    before = sys.stdout, sys.stderr
    in_workflow = os.environ.get("GITHUB_ACTIONS") == "true"
    sys.stdout, sys.stderr = (
        stream
        if stream is None or isinstance(stream, HarmlessStream)
        else cast(TextIO, HarmlessStream(stream, in_workflow=in_workflow))
        for stream in before
    )
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        sys.stdout, sys.stderr = before
        raise
    sys.stdout, sys.stderr = before


def redraw(line: str) -> None:
    """Write `line` over the one that the cursor stands in, on stderr."""
    stream: Any = sys.stderr
    (stream if isinstance(stream, HarmlessStream) else HarmlessStream(stream)).redraw(line)


def ask(question: str) -> str:
    """The line that the user types after a question; empty where the input has ended."""
    print(printable(question), end=" ", flush=True)
    return sys.stdin.readline().strip()


def allow_colour(wanted: bool) -> bool:
    """Let our colours through to stdout if they are wanted; whether they are."""
    if isinstance(sys.stdout, HarmlessStream):
        sys.stdout.coloured = wanted
    return wanted


def wants_colour(
    option: str, setting: Setting, environment: Mapping[str, str], stream: TextIO
) -> bool:
    """Whether to write colours, by Git's rules and https://no-color.org.

    The option comes first, then `color.theta`, `color.diff` and `color.ui`; where these say `auto`
    (or `true`, or nothing) there are colours on a terminal and, unless `color.pager` is false, for
    Git's pager, but none if NO_COLOR is set or TERM is `dumb`.

    Args:
        option: `always`, `never` or `auto` from the command line.
        setting: gives settings of git config.
        environment: the environment.
        stream: where the text goes.
    """
    word = option
    if word == "auto":
        names = ("color.theta", "color.diff", "color.ui")
        word = (next(filter(None, map(setting, names)), None) or "auto").lower()
    if word in ("always", "never"):
        return word == "always"
    if word in _FALSE:
        return False
    if environment.get("NO_COLOR") or environment.get("TERM", "dumb") == "dumb":
        return False
    paged = environment.get("GIT_PAGER_IN_USE", "").lower() in ("true", "1", "yes", "on")
    if paged:
        return (setting("color.pager") or "true").lower() not in _FALSE
    return stream.isatty()
