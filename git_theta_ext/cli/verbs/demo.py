"""`git theta demo`: everything at work on a small model, in a temporary folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from git_theta_ext.cli.frame import colours


def add_parser(subparsers: Any) -> None:
    """Add the parser of `demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="show everything at work on a small model, in a temporary folder",
        description="Train a small network, then version, fine-tune, diff, merge, push and clone "
        "it with real git commands, each printed as typed. Needs no network connection; nothing "
        "outside a temporary folder is touched, and that is removed at the end.",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR, and leave it there")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="use a copy of this checkpoint; small random changes stand in for training",
    )
    parser.add_argument("--no-color", action="store_true", help="print without colours")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demonstration."""
    from git_theta_ext.cli.demo.story import tell
    from git_theta_ext.cli.demo.subjects import GivenCheckpoint, TrainedNetwork

    coloured = colours.decide("never" if args.no_color else "auto")
    subject = TrainedNetwork() if args.model is None else GivenCheckpoint(args.model.resolve())
    tell(subject, keep=args.keep, color=coloured)
    return 0
