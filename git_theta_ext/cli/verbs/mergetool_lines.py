"""The mergetool without a full screen: typed commands, the table printed after each choice."""

from __future__ import annotations

import shutil
from typing import TextIO

from git_theta_ext.core.text import nearest, printable
from git_theta_ext.merge.conflicts.board import Board, Leave

_HELP = (
    "NUMBER STRATEGY   settle a tensor        all STRATEGY   settle all that is open\n"
    "list              show the table         undo           take the last choice back\n"
    "accept            write the result       quit           leave; choices are kept\n"
    "NUMBER unfold     a line for each of the tensors that a name in braces stands for"
)
_COMMANDS = ("accept", "list", "quit", "undo", "all")


def by_lines(board: Board, stream: TextIO) -> Leave:
    """The same board with typed commands; the end of the input is as `quit`."""
    _list(board)
    print(_HELP)
    _say(board)
    board.message = ""
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
    """Carry out one line of the user and print the answer; not empty if it ends the mergetool."""
    left: Leave = ""
    if words == ["accept"]:
        left = board.press("w")
    elif words == ["undo"]:
        board.undo()
        _list(board)
    elif words == ["list"]:
        _list(board)
    elif len(words) == 2 and _aim(board, words):
        if words[1].strip() in ("fold", "unfold"):
            board.everything = False
            board.turn()
            _list(board)
        elif board.use(words[1].strip()):
            _list(board)
    elif words and not board.message:
        near = nearest(words[0], _COMMANDS)
        print(_HELP if near is None else f"{words[0]!r} is no command; did you mean: {near}")
    _say(board)
    board.message = ""
    return left


def _say(board: Board) -> None:
    """Print the board's message, in the words of commands."""
    if board.message:
        text = board.message.replace("w again", "accept again").replace("; u takes", "; undo takes")
        print(printable(text))


def _aim(board: Board, words: list[str]) -> bool:
    """Set the scope that the first word names: `all`, or the number of a line."""
    word = words[0]
    if word == "all":
        board.everything = True
        return True
    if not word.isascii() or not word.isdigit():
        return False
    count = len(board.lines)
    if not 1 <= int(word) <= count:
        board.message = f"there is no line {word}: the table has 1 to {count}"
        return False
    board.everything, board.cursor = False, int(word) - 1
    return True


def _list(board: Board) -> None:
    width = max(40, shutil.get_terminal_size((100, 24)).columns)
    title, head, *lines = board.listing(width - 5)
    print(title)
    print(f"     {head}")
    for number, line in enumerate(lines, 1):
        print(f"{number:>3}. {line}")
