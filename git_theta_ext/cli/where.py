"""`--on`: where a command has its work on blocks done."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.cluster import choice
from git_theta_ext.objects.executor import Executor


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--on`."""
    parser.add_argument(
        "--on", metavar="WHERE",
        help="where blocks are worked on: dask://HOST:PORT of the scheduler of a Dask cluster that "
        "sees the same files, or here (default: theta.executor in git config, else here)",
    )  # fmt: skip


@contextmanager
def executor(repository: Repository, args: argparse.Namespace) -> Iterator[Executor]:
    """The executor of a command, which was asked whether it can do the work.

    What Git starts meanwhile uses it, too.

    Raises:
        UsageError: `--on`, the environment or git config names none.
        ClusterError: it cannot.
    """
    text = choice.chosen(repository, args.on, os.environ)
    found = choice.executor_at(repository, text)
    before = os.environ.get(choice.VARIABLE)
    try:
        found.check()
        os.environ[choice.VARIABLE] = text
        yield found
    finally:
        found.close()
        os.environ.pop(choice.VARIABLE, None)
        if before is not None:
            os.environ[choice.VARIABLE] = before
