"""`git theta get`: a version of somebody's model, without a clone."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from git_theta_ext.cli import signatures
from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, size, to_json
from git_theta_ext.formats import BUILDERS
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.getting import get
from git_theta_ext.packages.remote import without_secret
from git_theta_ext.packages.sources import parse
from git_theta_ext.packages.values import Got, How, Wanted


def add_parser(subparsers: Any) -> None:
    """Add the parser of `get`."""
    parser = subparsers.add_parser(
        "get",
        help="get a version of somebody's model, whole or in part, without a clone",
        description="Write the files of a version of a repository into a folder, each checkpoint "
        "byte for byte; or only some tensors. Nothing travels but the commit and what the wanted "
        "tensors are made of, and that only once: it is kept in a cache that all repositories "
        "share.",
    )
    parser.add_argument(
        "source", metavar="URL[@VERSION][:PATH]",
        help="any repository that Git can reach; a tag, branch or commit (default: its HEAD); a "
        "file or folder in it (default: everything)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="OUT",
        help="the folder, or the file where PATH is one (default: a folder of the URL's last name)",
    )  # fmt: skip
    parser.add_argument(
        "--tensors", action="append", default=[], metavar="PATTERN",
        help="of checkpoints only these tensors, such as 'encoder.*'; may be given more than once",
    )  # fmt: skip
    parser.add_argument("--to", choices=list(BUILDERS), help="write checkpoints as this container")
    parser.add_argument(
        "--dtype", metavar="DTYPE", help="cast floats of checkpoints to bf16, f16, f32 or f64"
    )
    parser.add_argument(
        "--force", "-f", action="store_true", help="replace files there that are others"
    )
    parser.add_argument("--offline", action="store_true", help="ask no remote: only the cache")
    parser.add_argument(
        "--refresh", action="store_true", help="ask the remote whether a tag was moved"
    )
    signatures.add_trust(parser)
    parser.add_argument(
        "--signature", type=Path, metavar="FILE",
        help="the signature, where it is not in the repository; theta_tensors.json lies beside it",
    )  # fmt: skip
    parser.add_argument("--quiet", "-q", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Get it, and say what is there now."""
    source = parse(args.source)
    if args.offline and args.refresh:
        raise UsageError("--refresh asks the remote, and --offline does not")
    if args.output == "-":
        raise UsageError("files are written, and - is the name of none", hint="-o FILE, or -o ./-")
    dtype = None
    if args.dtype is not None:
        from git_theta_ext.checkpoints.exporting.outgoing import dtype_named

        dtype = dtype_named(args.dtype)
    trust = signatures.trust_of(args)
    if args.signature is not None and trust is None:
        raise UsageError("--signature: whose is it to be?", hint="add --public-key KEY")
    wanted = Wanted(tuple(args.tensors), args.to, dtype)
    how = How(wanted, args.force, args.offline, args.refresh, trust, args.signature)
    output = None if args.output is None else Path(args.output)
    cache = Cache.open()
    watch = Progress if not (args.quiet or args.json) else None
    got = get(cache, source, output, how, watch)
    if got.written:
        from git_theta_ext.packages.trimming import trim_to_limit

        trim_to_limit(cache)
    for name in got.left:
        print(
            f"git theta: warning: {printable(name)} is of an earlier version and was changed here:"
            " it stays",
            file=sys.stderr,
        )
    for remark in got.remarks:
        print(f"git-theta: {remark}", file=sys.stderr)
    if args.json:
        print(to_json(_record(got)))
    elif not args.quiet:
        print(_line(got))
        for name in got.removed:
            print(f"  removed {printable(name)}, which this version does not have")
    return 0


def _line(got: Got) -> str:
    """`model: 3 files, 1.0 GB (v1.2, 6c5a74b1d2e3)`."""
    total = sum(one.size for one in got.files)
    package = got.package
    version = "" if package.version in (None, package.commit) else f"{package.version}, "
    what = f"{plural(len(got.files), 'file')}, {size(total)}"
    same = "" if got.written or got.removed else ": there already"
    return f"{printable(str(got.place))}: {what} ({printable(version)}{package.commit[:12]}){same}"


def _record(got: Got) -> dict[str, Any]:
    """What was got, as JSON has it."""
    new = set(got.written)
    return {
        "url": without_secret(got.package.url),
        "version": got.package.version,
        "ref": got.package.ref,
        "commit": got.package.commit,
        "place": os.fspath(got.place),
        "files": [
            {"path": one.path, "bytes": one.size, "sha256": one.sha256, "new": one.path in new}
            for one in got.files
        ],
        "removed": list(got.removed),
        "left": list(got.left),
    }
