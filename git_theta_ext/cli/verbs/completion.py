"""`git theta completion`: completion of commands and options, for a shell."""

from __future__ import annotations

import argparse
from typing import Any

from git_theta_ext.cli import main
from git_theta_ext.cli.frame import completion, manual
from git_theta_ext.core.errors import UsageError


def add_parser(subparsers: Any) -> None:
    """Add the parser of `completion`."""
    parser = subparsers.add_parser(
        "completion",
        help="print what completes git theta commands in bash, zsh or fish",
        description="Print the script with which a shell completes the commands and options of git "
        "theta. An installed wheel has it where the shell looks; this is for all other places.",
    )
    parser.add_argument("shell", nargs="?", choices=list(completion.PLACES), help="which shell")
    parser.add_argument(
        "--of",
        metavar="VERB",
        help="print the options of this command, as the scripts ask for them",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script, or the options.

    Raises:
        UsageError: neither a shell nor a command is named, or there is no such command.
    """
    if (args.shell is None) == (args.of is None):
        raise UsageError("name a shell: bash, zsh or fish", hint="git theta completion bash")
    if args.of is not None:
        for line in completion.options(main.parser_of(args.of)[1]):
            print(line)
        return 0
    verbs = {name: text for name, (_, text) in main.VERBS.items()}
    print(completion.script(args.shell, verbs, list(manual.TOPICS)), end="")
    return 0
