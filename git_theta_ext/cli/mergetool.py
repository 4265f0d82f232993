"""`git theta mergetool`: settle what a merge left open, in the terminal, by keyboard alone."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

from git_theta_ext import advice
from git_theta_ext.blocks import Blocks
from git_theta_ext.errors import UsageError
from git_theta_ext.merge import distance
from git_theta_ext.merge.board import Board, Leave, Settling
from git_theta_ext.merge.models import ModelConflict
from git_theta_ext.merge.resolve import Conflict
from git_theta_ext.paths import from_here, from_top
from git_theta_ext.repository import Repository
from git_theta_ext.sharded import names_model
from git_theta_ext.text import plural, printable

_FAILURES = 100
"""Reads without a key, one after the other, before the terminal is taken to be gone."""
_HELP = (
    "NUMBER STRATEGY   settle a tensor        all STRATEGY   settle all that is open\n"
    "list              show the table         undo           take the last choice back\n"
    "accept            write the result       quit           leave all as it was"
)


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
        "--plain", action="store_true", help="lines and commands in place of a full screen"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Let the user settle; 0 when accepted and nothing is open, else 1."""
    repository = Repository.discover()
    path = from_top(repository, args.file)
    kind = ModelConflict if names_model(path) else Conflict
    conflict = kind.find(repository, path, os.environ)
    blocks = Blocks.open(repository)
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        scratch = blocks.above(Path(folder))
        print(f"Merging {printable(path)} …", flush=True)

        def weigh(settling: Settling, name: str) -> distance.Weighed:
            if not isinstance(settling, Conflict):
                raise UsageError("another conflict")
            return distance.weigh(settling, name, scratch)

        board = Board(conflict, weigh, _structure_reason(conflict, scratch))
        left = _interact(board, plain=args.plain)
    if left != "accept" or not isinstance(board.conflict, Conflict):
        print(f"{printable(path)}: left as it was")
        return 1
    merged = board.conflict.finish(blocks)
    if merged.open:
        print(f"{printable(path)}: written; {plural(len(merged.open), 'part')} open, ours stands")
        return 1
    name = advice.word(from_here(repository, path))
    print(f"{printable(path)}: written; to take it: git add {name}")
    return 0


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
        left: Leave = curses.wrapper(lambda window: full_screen(board, window, curses))
        return left
    return by_lines(board, sys.stdin)


def full_screen(board: Board, window: Any, curses: Any) -> Leave:
    """Draw the board and pass it keys until it is left."""
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


def by_lines(board: Board, stream: TextIO) -> Leave:
    """The same board with typed commands; the end of the input leaves all as it was."""
    _list(board)
    print(_HELP)
    while True:
        print("mergetool> ", end="", flush=True)
        text = stream.readline()
        words = text.split(None, 1)
        if not text or words[:1] in (["quit"], ["q"]):
            print()
            return "quit"
        left = _obey(board, words)
        if left:
            return left


def _obey(board: Board, words: list[str]) -> Leave:
    left: Leave = ""
    if words[:1] == ["accept"]:
        left = board.press("w")
    elif words == ["undo"]:
        board.undo()
        _list(board)
    elif words == ["list"]:
        _list(board)
    elif len(words) == 2 and _aim(board, words[0]):
        board.use(words[1].strip())
        _list(board)
    elif words:
        print(_HELP)
    if board.message:
        print(printable(board.message.replace("w again writes", "accept again writes")))
    if not left and words[:1] != ["accept"]:
        board.message = ""
    return left


def _aim(board: Board, word: str) -> bool:
    """Set the scope that a word names: `all`, or the number of a row."""
    if word == "all":
        board.everything = True
        return True
    if not word.isascii() or not word.isdigit() or not 1 <= int(word) <= len(board.rows):
        return False
    board.everything, board.cursor = False, int(word) - 1
    return True


def _list(board: Board) -> None:
    lines, _ = board.screen(100, len(board.rows) + 6)
    print(lines[0])
    print(f"     {lines[1]}")
    for number, line in enumerate(lines[2 : 2 + len(board.rows)], 1):
        print(f"{number:>3}. {line}")
