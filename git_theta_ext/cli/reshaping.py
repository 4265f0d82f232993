"""`--drop`, `--strip-prefix`, `--dtype` and so on, which `git theta export` and `release` share."""

from __future__ import annotations

import argparse
from typing import Any

from git_theta_ext.checkpoints.exporting.outgoing import dtype_named
from git_theta_ext.checkpoints.exporting.sharded import size_named
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DType


def add_options(parser: Any) -> None:
    """Add the options to a parser; `dtype` becomes an element type, or None."""
    parser.add_argument(
        "--drop", action="append", default=[], metavar="PATTERN",
        help="leave out these tensors, such as 'optimizer.*'; may be given more than once",
    )  # fmt: skip
    parser.add_argument(
        "--strip-prefix",
        default="",
        metavar="PREFIX",
        help="names that begin so lose it, such as model.",
    )
    parser.add_argument(
        "--dtype", type=_dtype, metavar="DTYPE",
        help="cast floats to bf16, f16, f32 or f64; codes of quantised weights stay as they are",
    )  # fmt: skip
    parser.add_argument(
        "--allow-overflow", action="store_true",
        help="let numbers become infinite that the dtype is too small for",
    )  # fmt: skip


def add_shards(parser: Any) -> None:
    """Add `--max-shard-size`: bytes, or None."""
    parser.add_argument(
        "--max-shard-size", type=_size, metavar="SIZE",
        help="cut the weights into files of at most SIZE, such as 5GB or 500MB, with an index",
    )  # fmt: skip


def _size(text: str) -> int:
    try:
        return size_named(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _dtype(text: str) -> DType:
    try:
        return dtype_named(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from error
