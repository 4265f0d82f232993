"""`git theta release`: a version as a folder that loads without this program."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from git_theta_ext.cli import reshaping
from git_theta_ext.core.text import plural, printable, size, to_json
from git_theta_ext.git.paths import from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.packages.release.weights import Wishes
from git_theta_ext.packages.release.write import Released, Request, release


def add_parser(subparsers: Any) -> None:
    """Add the parser of `release`."""
    parser = subparsers.add_parser(
        "release",
        help="write a version as a folder that loads without git-theta",
        description="Write a version as a folder that from_pretrained, vLLM or llama.cpp loads: "
        "the weights as safetensors files, GGUF files as they are, and what was committed beside "
        "them; with a section in the model card, the hash of every tensor, and checksums.",
    )
    parser.add_argument("revision", metavar="REV", help="a tag, a branch or a commit")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--path", metavar="PATH",
        help="a folder or a checkpoint of REV; by default the folder that all checkpoints are in",
    )  # fmt: skip
    reshaping.add_options(parser)
    reshaping.add_shards(parser)
    parser.add_argument("--force", action="store_true", help="replace what is in DIR")
    parser.add_argument("--json", action="store_true", help="say what was written as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Release, and say what was written."""
    repository = Repository.discover()
    wishes = Wishes(
        tuple(args.drop), args.strip_prefix, args.dtype, args.allow_overflow, args.max_shard_size
    )
    request = Request(
        args.revision, Path(args.output), _path(repository, args), wishes, force=args.force
    )
    done = release(repository, request)
    for note in done.notes:
        print(f"git-theta: {printable(note)}", file=sys.stderr)
    print(to_json(_record(args.output, done)) if args.json else _line(args.output, done))
    return 0


def _path(repository: Repository, args: argparse.Namespace) -> str | None:
    """`--path` from the top; empty is the top itself."""
    if args.path is None:
        return None
    path = args.path if repository.work_tree is None else from_top(repository, args.path)
    if path in ("", "."):
        return ""
    return str(path).rstrip("/")


def _line(output: str, done: Released) -> str:
    named = done.version or done.commit[:9]
    return (
        f"{printable(output)}: {printable(named)}, {plural(done.tensors, 'tensor')}, "
        f"{plural(len(done.files), 'file')}, {size(done.size)}"
    )


def _record(output: str, done: Released) -> dict[str, Any]:
    return {
        "folder": output,
        "version": done.version,
        "commit": done.commit,
        "tensors": done.tensors,
        "bytes": done.size,
        "files": [
            {"path": one.path, "bytes": one.size, "sha256": one.sha256} for one in done.files
        ],
        "notes": list(done.notes),
    }
