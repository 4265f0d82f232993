"""`git theta format-patch`: commits and all that they need, in one file."""

from __future__ import annotations

import argparse
import os
import tempfile
from itertools import islice
from typing import IO, Any

from git_theta_ext.cli.progress import Progress
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable, size, to_json
from git_theta_ext.git import outputs
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.transfer.pointer_files import lfs_sizes
from git_theta_ext.packages.patches import mail, make, words
from git_theta_ext.packages.patches.opened import Patch

_MOST_LINES = 1000
"""Of the summary in a mail."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `format-patch`."""
    parser = subparsers.add_parser(
        "format-patch",
        help="write commits, with the objects that they need, to one file",
        description="Write a patch: a bundle of Git with commits, and with the objects of their "
        "checkpoints that the receiver lacks. git theta show, am and apply read it.",
    )
    parser.add_argument("range", metavar="REV..REV", help="the commits; REV alone: REV..HEAD")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("-f", "--force", action="store_true", help="replace FILE if it is there")
    parser.add_argument(
        "--base", metavar="REV",
        help="what the receiver has (default: what both ends of the range come from)",
    )  # fmt: skip
    parser.add_argument(
        "--mail", action="store_true",
        help=f"write a mail with the patch in it; up to {size(mail.MOST_BYTES)}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write a patch, and say what is in it."""
    if args.output == "-":
        raise UsageError("a patch is not written to standard output: -o FILE")
    _check_free(args.output, args.force)
    repository = Repository.discover()
    span = make.range_of(repository, args.range, args.base)
    blocks = Blocks.open(repository)
    contents = make.gather(repository, span, blocks)
    with outputs.writing(args.output, repository.work_tree) as file:
        if args.mail:
            _write_mail(repository, contents, blocks, file)
        else:
            _write(repository, contents, blocks, file)
        length = file.seek(0, 2)
    checkpoints = [one.path for one in contents.description.files if one.checkpoint]
    if args.json:
        print(to_json({"file": args.output, "bytes": length, "base": span.base, "tip": span.tip,
                       "needs": list(span.has), "objects": len(contents.objects),
                       "object_bytes": sum(contents.objects.values()),
                       "checkpoints": checkpoints}))  # fmt: skip
        return 0
    count = int(repository.git("rev-list", "--count", span.tip, *(f"^{one}" for one in span.has)))
    print(
        f"{printable(args.output)}: {size(length)}: {plural(count, 'commit')}, "
        f"{plural(len(checkpoints), 'checkpoint')} changed, "
        f"{plural(len(contents.objects), 'object')} of {size(sum(contents.objects.values()))}"
    )
    pointers = lfs_sizes(repository, contents.names)
    if pointers:
        kept = plural(len(pointers), "file is", "files are")
        print(f"  note: {kept} kept by git-lfs: of those the patch has pointers only")
    for oid in span.has:
        print(f"  the receiver must have {oid[:12]} {make.subject_of(repository, oid)}")
    return 0


def _check_free(name: str, force: bool) -> None:
    """Refuse to replace a file: the patch that it is may be all that there is of its commits.

    Raises:
        UsageError: a file is there.
    """
    if not force and os.path.isfile(name) and os.path.getsize(name):
        raise UsageError(f"{printable(name)} is there already", hint="replace it with --force")


def _write(
    repository: Repository, contents: make.Contents, blocks: Blocks, file: IO[bytes]
) -> None:
    with Progress("Writing", sum(contents.objects.values())) as progress:
        make.write(repository, contents, blocks, file, progress)


def _write_mail(
    repository: Repository, contents: make.Contents, blocks: Blocks, file: IO[bytes]
) -> None:
    """Write a mail; nothing is written where it would be too long.

    Raises:
        UsageError: the patch is too long for a mail.
    """
    with tempfile.SpooledTemporaryFile(mail.MOST_BYTES) as bundle:
        _write(repository, contents, blocks, bundle)
        length = bundle.tell()
        if length > mail.MOST_BYTES:
            raise UsageError(
                f"the patch has {size(length)}; in a mail at most {size(mail.MOST_BYTES)} are sent",
                hint="leave out --mail, and attach the file, or send it in another way",
            )
        patch = Patch("the patch", bundle)
        commit = patch.commit(patch.tip)
        author = commit.author.rpartition(">")[0] + ">"
        text = "\n".join(islice(words.lines(patch), _MOST_LINES))
        bundle.seek(0)
        file.write(mail.as_mail(bundle.read(), patch.tip, author, commit.subject, text))
