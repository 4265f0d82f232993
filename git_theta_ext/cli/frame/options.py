"""Options that every verb has: `-q`, `-v`, `--json` also for errors, and what they do.

A verb that means more by one of them declares it itself, by the same name.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, cast

from git_theta_ext.core.errors import ThetaError, UsageError
from git_theta_ext.core.terminal import HarmlessStream
from git_theta_ext.core.text import nearest, printable, to_json
from git_theta_ext.git import process

ACTING = frozenset({
    "add", "allow", "am", "apply", "assemble", "cache", "checkout", "evaluate", "export", "fetch",
    "format-patch", "get", "import-dvc", "import-hf", "install", "lock", "logs", "merge", "migrate",
    "mirror", "prune", "pull", "push", "release", "repack", "resolve", "restore", "review", "sign",
    "stats", "sync", "track", "uninstall", "unlock", "untrack", "update",
})  # fmt: skip
"""Verbs that do something and then say so: `-q` leaves that out. What others print is the answer
that was asked for. So it is with `-n`, and in modes whose parsers have the default `answers`: true,
or a function that tells by the arguments."""


NO_JSON = frozenset({"cat", "completion", "demo", "diff-filter", "mergetool", "receive-check"})
"""Verbs that answer no question: they write bytes or a script, or talk to a person or to Git."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are told as JSON, too, where that was asked for."""

    json = False

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and end with 2."""
        hint = f"{self.prog} -h   shows the options"
        if self.json:
            print(failure(UsageError(message, hint=hint)))
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\n  hint: {hint}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write a text; argparse would pass over that it could not be written."""
        (file or sys.stderr).write(message)

    def refuse(self, unknown: Sequence[str], arguments: Sequence[str]) -> NoReturn:
        """Say which words are not known, with the usage of the mode that they follow, if any.

        Args:
            unknown: the words; at least one.
            arguments: the whole command line, which names the mode.
        """
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word in arguments[1:]:
                    if isinstance(mode := action.choices.get(word), Parser):
                        mode.json = self.json
                        mode.refuse(unknown, arguments[arguments.index(word) :])
        meant = self._meant(unknown[0])
        text = f"unrecognized arguments: {' '.join(map(printable, unknown))}"
        self.error(f"{text} (did you mean {meant}?)" if meant else text)

    def _meant(self, word: str) -> str | None:
        """The option that was likely meant: one of that name, or one with that value."""
        if not word.startswith("-"):
            return None
        name = word.lstrip("-").partition("=")[0]
        options = {one.lstrip("-"): one for one in self._option_string_actions if one[:2] == "--"}
        for action in self._actions:
            if action.option_strings and name in (action.choices or ()):
                return f"{action.option_strings[-1]} {name}"
        near = nearest(name, options)
        return None if near is None else options[near]


def complete(verb: str, parser: argparse.ArgumentParser) -> None:
    """Add to a verb's parser, and its modes, the options that all have, where it lacks them."""
    has = parser._option_string_actions
    if "--json" not in has and "--format" in has:
        parser.add_argument(
            "--json", dest="format", action="store_const", const="json", help="as --format json"
        )
    elif "--json" not in has and verb not in NO_JSON:
        parser.add_argument(
            "--json", dest="as_json", action="store_true", help="print the result as JSON"
        )
    _add_common(parser, default=False)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for mode in action.choices.values():
                # What was said before the mode stands: it has no default of its own.
                _add_common(mode, default=argparse.SUPPRESS)
    has["-h"].help = "show this; --help: the manual page"


def _add_common(parser: argparse.ArgumentParser, default: object) -> None:
    for names, text in (
        (("-q", "--quiet"), "print nothing but the answer and errors"),
        (("-v", "--verbose"), "name the programs that are run"),
    ):
        lacking = [name for name in names if name not in parser._option_string_actions]
        if lacking:
            parser.add_argument(
                *lacking, dest=names[1][2:], action="store_true", default=default, help=text
            )


def heed(verb: str, args: argparse.Namespace) -> None:
    """Set up the streams, and what tells of programs, as the options say; `ended` is the end."""
    process.tell_of_programs(_told if args.verbose else None)
    if not args.quiet:
        return
    stdout, stderr = sys.stdout, sys.stderr
    if isinstance(stderr, HarmlessStream):
        stderr.still = True
    if isinstance(stdout, HarmlessStream) and verb in ACTING and not _answers(args):
        stdout.kept, stdout.still = [], True


def ended(code: int) -> int:
    """The exit status of a command; what `-q` has kept back is said if something is left to do."""
    if code and isinstance(sys.stdout, HarmlessStream):
        sys.stdout.let_go()
    return code


def _answers(args: argparse.Namespace) -> bool:
    """Whether what is printed is what was asked for, and not what was done."""
    asks = getattr(args, "answers", False)
    dry = getattr(args, "dry_run", False)
    return bool(asks(args) if callable(asks) else asks) or dry or asks_for_json(args)


def asks_for_json(args: argparse.Namespace) -> bool:
    """Whether the answer is to be JSON."""
    given = vars(args)
    return bool(given.get("json") or given.get("as_json")) or given.get("format") == "json"


def names_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, as far as can be told before it is parsed."""
    words = list(arguments)
    words = words[: words.index("--")] if "--" in words else words
    pairs = itertools.pairwise(words)
    return bool({"--json", "--format=json"} & set(words)) or ("--format", "json") in pairs


def failure(error: ThetaError) -> str:
    """An error as the JSON document that stands in place of an answer (docs/schemas/error.json)."""
    return to_json(
        {
            "error": {
                "kind": type(error).__name__.removesuffix("Error"),
                "message": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
        }
    )


def nothing_said() -> bool:
    """Whether nothing was written to stdout yet, so that a document may still be."""
    return not (isinstance(sys.stdout, HarmlessStream) and cast(Any, sys.stdout).used)


def _told(words: Sequence[str]) -> None:
    print("git theta: runs:", *map(printable, words), file=sys.stderr)
