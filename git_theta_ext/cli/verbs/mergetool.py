"""`git theta mergetool`: settle what a merge left open, in the terminal, by keyboard alone."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from git_theta_ext.checkpoints.shards import names_model
from git_theta_ext.cli.verbs import mergetool_git
from git_theta_ext.cli.verbs.mergetool_lines import by_lines
from git_theta_ext.cli.verbs.resolve import to_add, write_index
from git_theta_ext.core import advice
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.paths import from_here, from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.merge.branches.models import ModelConflict
from git_theta_ext.merge.conflicts import distance, drafts
from git_theta_ext.merge.conflicts.board import Board, Leave, Settling
from git_theta_ext.merge.conflicts.resolve import Conflict
from git_theta_ext.merge.conflicts.shard_index import IndexConflict
from git_theta_ext.objects.blocks import Blocks

_FAILURES = 100
"""Reads without a key, one after the other, before the terminal is taken to be gone."""
_INTERRUPTED = 130
Left = Leave | Literal["interrupted"]


def add_parser(subparsers: Any) -> None:
    """Add the parser of `mergetool`."""
    parser = subparsers.add_parser(
        "mergetool",
        help="settle what a merge left open, in the terminal",
        description="Show the tensors that both sides changed, try strategies, see how far the "
        "result is from each side, and accept it. git mergetool --tool=theta starts this.",
    )
    parser.add_argument("file", metavar="FILE", help="a checkpoint in conflict")
    parser.add_argument(
        "--plain", action="store_true", help="lines and commands instead of a full screen"
    )
    parser.add_argument("--backup", metavar="FILE", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Let the user settle; 0 when accepted and nothing is open, else 1."""
    repository = Repository.discover()
    path = from_top(repository, args.file)
    if args.backup is not None and not mergetool_git.is_checkpoint(repository, path):
        return mergetool_git.hand_on(args.file)
    index = IndexConflict.find(repository, path) if names_model(path) else None
    if index is not None:
        return write_index(index)
    kind = ModelConflict if names_model(path) else Conflict
    before = kind.find(repository, path, os.environ)
    conflict, kept = drafts.resumed(before)
    blocks = Blocks.open(repository)
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        scratch = blocks.above(Path(folder))
        statistics = conflict.statistics(scratch)
        print(f"Merging {printable(path)} …", flush=True)

        def weigh(settling: Settling, name: str) -> distance.Weighed:
            if not isinstance(settling, Conflict):
                raise UsageError("another conflict")
            return distance.weigh(settling, name, scratch, statistics)

        reason = _structure_reason(conflict, scratch)
        board = Board(conflict, weigh, reason, partly=args.backup is None)
        if kept:
            board.message = f"{plural(kept, 'choice')} kept from the last start; u takes them back"
        left = _until_left(board, plain=args.plain)
    whole = args.backup is None or not board.left
    if left != "accept" or not whole:
        return _leave(before, board, left, args)
    settled = _conflict(board)
    merged = settled.finish(blocks)
    drafts.drop(before)
    name = printable(path)
    if merged.open:
        print(f"{name}: written; {plural(len(merged.open), 'part')} open, with our version for now")
        return 1
    if args.backup is None:
        print(f"{name}: written; to take it: git add {to_add(settled)}")
        return 0
    _tell_under_git(settled, args.backup)
    return 0


def _until_left(board: Board, *, plain: bool) -> Left:
    """The user's way out; Ctrl-C, a closed terminal and `kill` are ways out too."""
    try:
        with _signals_interrupt():
            return _interact(board, plain=plain)
    except KeyboardInterrupt:
        return "interrupted"


def _leave(before: Conflict, board: Board, left: Left, args: argparse.Namespace) -> int:
    """Keep what was chosen, and say so; the exit code."""
    count = drafts.keep(before, _conflict(board))
    name = advice.word(from_here(before.repository, before.path))
    told = f"{printable(before.path)}: left as it was"
    if count:
        are = "is" if count == 1 else "are"
        told += f"; {plural(count, 'choice')} {are} kept for the next start: "
        told += f"git theta mergetool {name}"
    elif _conflict(board).state.resolutions != before.state.resolutions:
        told += f"; what was written stays; to take it back: git theta resolve {name} --undo"
    with suppress(OSError):  # a terminal that is gone
        print(told, flush=True)
    return _INTERRUPTED if left == "interrupted" else 1


def _tell_under_git(conflict: Conflict, backup: str) -> None:
    """The last lines under git mergetool, which adds the file that it asked for itself."""
    name = printable(conflict.path)
    print(f"{name}: written; git mergetool adds it now")
    if isinstance(conflict, ModelConflict):
        print(f"  the model's shards are written too; to take them: git add {to_add(conflict)}")
    for line in mergetool_git.backup_lines(conflict.repository, conflict.path, backup):
        print(line)


def _conflict(board: Board) -> Conflict:
    if not isinstance(board.conflict, Conflict):
        raise UsageError("another conflict")
    return board.conflict


def _structure_reason(conflict: Conflict, blocks: Blocks) -> str:
    """Why the structure is open, or was before a side was chosen; empty if it never was."""
    settled = any(one.structure for one in conflict.state.resolutions)
    return conflict.structure_reason(blocks) or ("both sides changed it" if settled else "")


def _interact(board: Board, *, plain: bool) -> Leave:
    """In a full screen where there is one, else line by line."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not plain and terminal and os.environ.get("TERM", "dumb") != "dumb":
        try:
            curses: Any = importlib.import_module("curses")
        except ImportError:  # Python for Windows has none
            return by_lines(board, sys.stdin)
        os.environ.setdefault("ESCDELAY", "25")
        with _interrupt_is_a_key():
            left: Leave = curses.wrapper(lambda window: full_screen(board, window, curses))
        return left
    return by_lines(board, sys.stdin)


@contextmanager
def _interrupt_is_a_key() -> Iterator[None]:
    """Let Ctrl-C be read as a key: as a signal it would end git mergetool too, in the middle.

    Its copies of the file, as large as the checkpoint, would stay in the work tree.
    """
    termios: Any = importlib.import_module("termios")
    before = termios.tcgetattr(sys.stdin)
    without = termios.tcgetattr(sys.stdin)
    without[6][termios.VINTR] = without[6][termios.VQUIT] = b"\0"
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, without)
    try:
        yield
    finally:
        with suppress(termios.error):  # a terminal that is gone
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Make what would end this process interrupt it as Ctrl-C does, so that choices are kept."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGHUP", "SIGTERM") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def full_screen(board: Board, window: Any, curses: Any) -> Leave:
    """Draw the board and pass it keys until it is left; Ctrl-C and Ctrl-D are keys here."""
    curses.curs_set(0)
    named = {
        curses.KEY_UP: "up", curses.KEY_DOWN: "down", curses.KEY_PPAGE: "pgup",
        curses.KEY_NPAGE: "pgdn", curses.KEY_HOME: "home", curses.KEY_END: "end",
        curses.KEY_ENTER: "enter", curses.KEY_BACKSPACE: "back",
        "\n": "enter", "\r": "enter", "\x1b": "esc", "\x7f": "back", "\b": "back",
    }  # fmt: skip
    failures = 0
    while failures < _FAILURES:
        _draw(board, window, curses)
        try:
            key = window.get_wch()
        except KeyboardInterrupt:
            return "quit"
        except curses.error:
            # A signal came; or the terminal is gone, and then this is all that ever comes.
            failures += 1
            continue
        failures = 0
        left = board.press(named.get(key, key if isinstance(key, str) else ""))
        if left:
            return left
    return "quit"


def _draw(board: Board, window: Any, curses: Any) -> None:
    height, width = window.getmaxyx()
    lines, place = board.screen(width, height)
    window.erase()
    for number, line in enumerate(lines[:height]):
        style = curses.A_REVERSE if number == place else curses.A_BOLD if number < 2 else 0
        try:
            window.addstr(number, 0, line, style)
        except curses.error:
            continue  # a window that shrank while it was drawn
    window.refresh()
