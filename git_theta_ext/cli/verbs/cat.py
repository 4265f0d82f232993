"""`git theta cat`: one tensor of a version, as a .npy file on standard output."""

from __future__ import annotations

import argparse
import io
import sys
from typing import Any

import numpy as np

from git_theta_ext.checkpoints.read import open_checkpoint
from git_theta_ext.core import advice
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import near_name, printable
from git_theta_ext.git.paths import version_typed
from git_theta_ext.git.repository import Repository


def add_parser(subparsers: Any) -> None:
    """Add the parser of `cat`."""
    parser = subparsers.add_parser(
        "cat",
        help="write one tensor to standard output as .npy",
        description="Write one tensor of a version to standard output: as a NumPy .npy file, or "
        "with --raw as its bytes in the checkpoint. Element types that NumPy does not "
        "have (BF16, F8) are written as unsigned integers of their size, holding their bits.",
    )
    parser.add_argument("file", metavar="[REV:]FILE", help="without REV, of HEAD")
    parser.add_argument("tensor", metavar="TENSOR", help="its name")
    parser.add_argument("--raw", action="store_true", help="the bytes alone, without a header")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write."""
    repository = Repository.discover()
    checkpoint = open_checkpoint(repository, version_typed(repository, args.file))
    if args.tensor not in checkpoint:
        near = near_name(args.tensor, list(checkpoint))
        raise UsageError(
            f"{args.file} has no tensor {args.tensor!r}",
            hint=advice.with_name("git theta show FILE   lists them", args.file)
            if near is None
            else f"did you mean: {printable(near)}",
        )
    if sys.stdout.isatty():
        raise UsageError("not writing binary data to a terminal", hint="add: > tensor.npy")
    checkpoint.check_held([args.tensor], checkpoint.info(args.tensor).nbytes)  # written from a copy
    info, array = checkpoint.info(args.tensor), checkpoint[args.tensor]
    if args.raw:
        stored = array if info.order is None else array.transpose(info.order)
        sys.stdout.buffer.write(np.ascontiguousarray(stored).reshape(-1).view(np.uint8).data)
        return 0
    if array.dtype.kind == "V":
        array = array.view(f"<u{array.itemsize}")
    whole = io.BytesIO()
    np.save(whole, array, allow_pickle=False)
    sys.stdout.buffer.write(whole.getbuffer())
    return 0
