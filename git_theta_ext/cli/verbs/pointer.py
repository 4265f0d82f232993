"""`git theta pointer`: the manifest of a file, compared with another one, or checked."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints.clean import Cleaner
from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.checkpoints.predecessors import Predecessors
from git_theta_ext.core import files
from git_theta_ext.core.errors import ManifestError, UsageError
from git_theta_ext.core.text import paragraph, plural, printable, to_json
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.git.paths import from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import MAX_BYTES, Manifest
from git_theta_ext.manifest.text import manifest_bytes, parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store

_LISTED = 10


def add_parser(subparsers: Any) -> None:
    """Add the parser of `pointer`."""
    parser = subparsers.add_parser(
        "pointer",
        help="show, compare or check the manifest of a file",
        description="Write the manifest that git add would make of a file to standard output; "
        "nothing is stored. With --manifest or --stdin, compare it with a manifest: they are alike "
        "if both stand for the same bytes, whatever updates these are made of. With --check, say "
        "whether a text is a manifest.",
    )
    parser.add_argument("--file", metavar="FILE", help="the checkpoint; with --check: the text")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--manifest", metavar="FILE", help="a manifest to compare with")
    other.add_argument("--stdin", action="store_true", help="read the manifest from standard input")
    parser.add_argument("--check", action="store_true", help="only check a manifest")
    parser.add_argument(
        "--strict", action="store_true",
        help="with --check: it must also be written as this version writes manifests",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build, compare or check; 1 if what was compared differs.

    Raises:
        UsageError: the options do not fit together, or a file cannot be read.
        ManifestError: what is to be a manifest is none.
    """
    if args.check:
        return _check(args)
    if args.file is None or args.strict:
        raise UsageError("say which file: --file FILE (--strict goes with --check)")
    text = _built(Repository.discover(), args.file)
    if args.manifest is None and not args.stdin:
        if args.json:
            print(to_json({"file": args.file, "manifest": text.decode("utf-8")}))
        else:
            sys.stdout.write(text.decode("utf-8"))
        return 0
    found = list(_differences(parse_manifest(text), parse_manifest(_read(args.manifest))))
    if args.json:
        print(to_json({"file": args.file, "alike": not found, "differences": found}))
    for line in [] if args.json else found[:_LISTED]:
        print(printable(line))
    if not args.json and len(found) > _LISTED:
        print(f"… and {plural(len(found) - _LISTED, 'more difference')}")
    if not args.json and not found:
        print(f"{printable(args.file)} is what the manifest stands for")
    return 1 if found else 0


def _check(args: argparse.Namespace) -> int:
    """Say whether a text is a manifest; the exit status."""
    if args.manifest is not None or (args.file is not None) == args.stdin:
        raise UsageError("--check takes --file FILE or --stdin")
    text = _read(args.file)
    problem = None
    try:
        manifest = parse_manifest(text)
        if args.strict and manifest_bytes(manifest) != text:
            problem = "it is a manifest, and not written as this version writes one"
    except ManifestError as error:
        problem = error.message
    if args.json:
        print(to_json({"manifest": problem is None, "problem": problem}))
    elif problem is not None:
        print(f"git theta: {paragraph(problem)}", file=sys.stderr)
    return 0 if problem is None else ManifestError.exit_code


def _built(repository: Repository, name: str) -> bytes:
    """The manifest that `git add` would make of a file, with objects in a folder that goes again.

    What the index and HEAD have at its path, or of its contents, is what updates are made from.
    """
    path = from_top(repository, name) if repository.work_tree is not None else name
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        blocks = Blocks.open(repository).writing_to(Store(Path(folder)))
        cleaner = Cleaner(blocks, Predecessors(repository), Memo(Path(folder) / "memo"))
        try:
            with FileSource(Path(name)) as source:
                return cleaner.clean(path, source)
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror or error}") from error


def _read(name: str | None) -> bytes:
    """A manifest's text from a file, or from standard input."""
    try:
        if name is None:
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with files.plain(name, follow=True) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror or error}") from error


def _differences(ours: Manifest, theirs: Manifest) -> Iterator[str]:
    """What differs in the bytes that two manifests stand for; nothing of how they are stored."""
    if ours.format != theirs.format:
        yield f"the file is {ours.format}, the manifest's {theirs.format}"
    if ours.skeleton.sha256 != theirs.skeleton.sha256:
        yield "the structure of the file is another one"
    here, there = ours.by_name(), theirs.by_name()
    for name in dict.fromkeys([*here, *there]):
        one, other = here.get(name), there.get(name)
        if one is None or other is None:
            yield f"{name} is only in the {'file' if other is None else 'manifest'}"
        elif one.tensor != other.tensor:
            yield f"{name} is of another type or shape"
        elif [block.sha256 for block in one.blocks] != [block.sha256 for block in other.blocks]:
            yield f"{name} has other values"
