"""`--strategy` and `--set`, which `git theta merge` and `git theta resolve` share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from git_theta_ext.core.errors import UsageError
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.merge.strategies.policy import checked, parse_choice, parse_value
from git_theta_ext.merge.strategies.table import TABLE


def add_options(parser: Any) -> None:
    """Add `--strategy` and `--set` to a parser."""
    names = ", ".join(strategy.name for strategy in TABLE)
    parser.add_argument(
        "--strategy", "-s", metavar="S", help=f"for what both sides changed: {names}"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="a parameter of the strategy, such as density=0.2; may be repeated",
    )  # fmt: skip


def choice_of(args: argparse.Namespace) -> Choice | None:
    """The strategy that was asked for, or None.

    Raises:
        UsageError: it does not exist, or a parameter is not its own.
    """
    if args.strategy is None:
        if args.settings:
            raise UsageError("--set gives a parameter to a strategy: add --strategy S")
        return None
    given = parse_choice(args.strategy, "--strategy")
    settings = dict(given.settings)
    for item in _split(args.settings):
        settings[item[0]] = parse_value(item[1])
    return checked(given.strategy, settings, "--set")


def _split(items: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"--set takes NAME=VALUE, not {item!r}")
        pairs.append((name, value))
    return pairs
