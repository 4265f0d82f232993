"""`git theta export`: tensors of a version into a file of another container."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints.read import open_checkpoint
from git_theta_ext.checkpoints.write import container_of, export
from git_theta_ext.core import advice, patterns
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, size
from git_theta_ext.formats import BUILDERS
from git_theta_ext.git.paths import version_typed
from git_theta_ext.git.repository import Repository


def add_parser(subparsers: Any) -> None:
    """Add the parser of `export`."""
    parser = subparsers.add_parser(
        "export",
        help="write tensors of a version to a safetensors, pt, npz or gguf file",
        description="Write the tensors of a version, or some of them, to a file, without a "
        "checkout and without torch. For the very bytes that were committed, use git archive or "
        "git worktree.",
    )
    parser.add_argument("file", metavar="[REV:]FILE", help="without REV, of HEAD")
    parser.add_argument(
        "--tensors", action="append", default=[], metavar="PATTERN",
        help="only these, such as 'encoder.layer.{0..3}.*'; may be given more than once",
    )  # fmt: skip
    parser.add_argument("--to", choices=list(BUILDERS), help="default: by the name of OUT")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the file to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, and say what was written."""
    target = Path(args.output)
    container = args.to or container_of(target.name)
    if container is None:
        raise UsageError(
            f"the name {args.output} does not say which format to write",
            hint=f"add one of: {', '.join(f'--to {name}' for name in BUILDERS)}",
        )
    repository = Repository.discover()
    checkpoint = open_checkpoint(repository, version_typed(repository, args.file))
    names = patterns.select(checkpoint, args.tensors) if args.tensors else list(checkpoint)
    if args.tensors and not names:
        raise UsageError(
            f"no tensor of {args.file} matches {' '.join(args.tensors)}",
            hint=advice.with_name("git theta show FILE   lists them", args.file),
        )
    length = export(checkpoint, names, target, container, repository.work_tree)
    print(f"{printable(args.output)}: {plural(len(names), 'tensor')}, {size(length)}")
    return 0
