"""`git theta export`: tensors of a version into a file of another container."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints.exporting.outgoing import outgoing
from git_theta_ext.checkpoints.read import Checkpoint, open_checkpoint
from git_theta_ext.checkpoints.write import container_of, export, export_shards
from git_theta_ext.cli import reshaping
from git_theta_ext.cli.verbs import export_adapter
from git_theta_ext.core import advice, patterns
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, size, to_json
from git_theta_ext.formats import BUILDERS, safetensors
from git_theta_ext.git.paths import version_typed
from git_theta_ext.git.repository import Repository
from git_theta_ext.packages.parts import own_container


def add_parser(subparsers: Any) -> None:
    """Add the parser of `export`."""
    parser = subparsers.add_parser(
        "export",
        help="write tensors of a version to a file, or a commit as an adapter",
        description="Write the tensors of a version, or some of them, to a file, without a "
        "checkout and without torch. For the very bytes that were committed, use git archive or "
        "git worktree. With A..B: write what changed between two versions as an adapter.",
    )
    parser.add_argument(
        "file", metavar="[REV:]FILE", help="without REV, of HEAD; or A..B[:FILE] with --to peft"
    )
    parser.add_argument(
        "--tensors", action="append", default=[], metavar="PATTERN",
        help="only these, such as 'encoder.layer.{0..3}.*'; may be given more than once",
    )  # fmt: skip
    parser.add_argument(
        "--to", choices=[*BUILDERS, *export_adapter.KINDS], help="default: by the name of OUT"
    )
    reshaping.add_options(parser)
    reshaping.add_shards(parser)
    export_adapter.add_options(parser)
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT",
        help="the file to write; - for standard output",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, and say what was written."""
    if args.to in export_adapter.KINDS:
        return export_adapter.run(args)
    export_adapter.refuse(args)
    target = None if args.output == "-" else Path(args.output)
    container = args.to or (container_of(target.name) if target is not None else None)
    if container is None and target is not None:
        raise _says_no_format(args.output)
    if target is None and args.json:
        raise UsageError("--json and the tensors cannot both go to standard output", hint="-o FILE")
    if target is None and sys.stdout.isatty():
        raise UsageError("not writing binary data to a terminal", hint="add: > FILE")
    repository = Repository.discover()
    checkpoint = open_checkpoint(repository, version_typed(repository, args.file))
    container = container or own_container(checkpoint)
    if container not in BUILDERS:
        raise _says_no_format(args.output)
    names = patterns.select(checkpoint, args.tensors) if args.tensors else list(checkpoint)
    if args.tensors and not names:
        raise UsageError(
            f"no tensor of {args.file} matches {' '.join(args.tensors)}",
            hint=advice.with_name("git theta show FILE   lists them", args.file),
        )
    remark = None
    if args.max_shard_size is not None:
        if target is None or container != safetensors.NAME:
            raise UsageError("--max-shard-size cuts safetensors files", hint="-o NAME.safetensors")
        length = _in_shards(args, checkpoint, names, target, repository)
    else:
        length, remark = export(
            checkpoint,
            names,
            target,
            container,
            repository.work_tree,
            drop=args.drop,
            strip_prefix=args.strip_prefix,
            dtype=args.dtype,
            allow_overflow=args.allow_overflow,
        )
    count = len(names) - len(patterns.select(names, args.drop))
    if args.json:
        print(to_json({"file": args.output, "format": container, "tensors": count, "bytes": length,
                       "remark": remark}))  # fmt: skip
        return 0
    said = f"{printable(args.output)}: {plural(count, 'tensor')}, {size(length)}"
    print(said, file=sys.stderr if target is None else sys.stdout)
    if remark is not None:
        print(f"git-theta: {remark}", file=sys.stderr)
    return 0


def _says_no_format(output: str) -> UsageError:
    return UsageError(
        f"the name {output} does not say which format to write",
        hint=f"add one of: {', '.join(f'--to {name}' for name in BUILDERS)}",
    )


def _in_shards(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    names: list[str],
    target: Path,
    repository: Repository,
) -> int:
    """Write files of a bounded size; how much all of them take."""
    wanted = outgoing(
        [checkpoint.info(name) for name in names],
        drop=args.drop,
        strip_prefix=args.strip_prefix,
        dtype=args.dtype,
    )
    return export_shards(
        checkpoint,
        wanted,
        target,
        args.max_shard_size,
        repository.work_tree,
        allow_overflow=args.allow_overflow,
    )
