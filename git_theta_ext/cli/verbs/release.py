"""`git theta release`: a version as a folder that loads without this program."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from git_theta_ext.cli import reshaping, signatures
from git_theta_ext.cli.locked_base import locked_base
from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, size, to_json
from git_theta_ext.git.paths import from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.packages.release.base import base_of
from git_theta_ext.packages.release.signing import Trust
from git_theta_ext.packages.release.verify import count, verify_folder
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
    parser.add_argument("revision", nargs="?", metavar="REV", help="a tag, a branch or a commit")
    parser.add_argument("-o", "--output", metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--path", metavar="PATH",
        help="a folder or a checkpoint of REV; by default the folder that all checkpoints are in",
    )  # fmt: skip
    parser.add_argument(
        "--adapter", metavar="BASE",
        help="release an adapter, with a file that says what it was trained on: URL@VERSION[:PATH],"
        " NAME@VERSION of theta.lock, or REV[:PATH] of this repository",
    )  # fmt: skip
    reshaping.add_options(parser)
    reshaping.add_shards(parser)
    parser.add_argument(
        "--sign", action="store_true", help="sign the folder by OpenSSF Model Signing: model.sig"
    )
    signatures.add_signer(parser)
    parser.add_argument(
        "--verify", metavar="DIR", help="verify the signature of a folder, and write nothing"
    )
    signatures.add_trust(parser)
    parser.add_argument("--force", action="store_true", help="replace what is in DIR")
    parser.add_argument("--json", action="store_true", help="say what was written as JSON")
    parser.set_defaults(run=run, answers=lambda args: args.verify is not None)


def run(args: argparse.Namespace) -> int:
    """Release, and say what was written; or verify a release."""
    trust = signatures.trust_of(args)
    if args.verify is not None:
        return _verify(args, trust)
    if trust is not None:
        raise UsageError("whose signature it has to be matters to verify one", hint=_VERIFY)
    if args.revision is None or args.output is None:
        raise UsageError("say which version is released, and where to", hint=_RELEASE)
    if signatures.signs(args) and not args.sign:
        raise UsageError("a key is there to sign with", hint="add --sign")
    repository = Repository.discover()
    wishes = Wishes(
        tuple(args.drop), args.strip_prefix, args.dtype, args.allow_overflow, args.max_shard_size
    )
    request = Request(
        args.revision,
        Path(args.output),
        _path(repository, args),
        wishes,
        None if args.adapter is None else base_of(repository, args.adapter, locked_base),
        signer=signatures.signer_of(args) if args.sign else None,
        force=args.force,
    )
    done = release(repository, request, None if args.json else Progress)
    for note in done.notes:
        print(f"git-theta: {printable(note)}", file=sys.stderr)
    print(to_json(_record(args.output, done)) if args.json else _line(args.output, done))
    return 0


_RELEASE = "git theta release REV -o DIR"
_VERIFY = "git theta release --verify DIR --public-key KEY"


def _verify(args: argparse.Namespace, trust: Trust | None) -> int:
    if args.revision is not None or args.output is not None:
        raise UsageError("--verify releases nothing", hint=_VERIFY)
    found = verify_folder(Path(args.verify), trust or Trust())
    if args.json:
        print(to_json({"folder": args.verify, "files": dict(found.hashes)}))
    else:
        print(f"{printable(args.verify)}: signed as it should be: {count(found)}")
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
