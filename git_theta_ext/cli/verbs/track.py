"""`git theta track`: say which files are checkpoints, or list what was said."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from git_theta_ext import formats
from git_theta_ext.cli import links, stored_whole
from git_theta_ext.cli.frame.answers import fact
from git_theta_ext.cli.verbs.install import ensure_hooks, warn_of_missing_hooks
from git_theta_ext.core import advice
from git_theta_ext.core.errors import StoreError, ThetaError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.git import attributes
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import hooks, installation
from git_theta_ext.git.work_tree import WorkTree, is_link
from git_theta_ext.manifest.model import HEAD_BYTES, is_manifest
from git_theta_ext.objects.store.reachable import is_raw

ATTRIBUTES_FILE = ".gitattributes"
_LOOKED_INTO = 200
"""Files whose beginning is compared with their extension."""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `track`."""
    parser = subparsers.add_parser(
        "track",
        help="track checkpoints by pattern, or list the tracked patterns",
        description="Add patterns to .gitattributes in the current folder; without patterns, list "
        "those that are tracked. Quote patterns, so that the shell does not expand them.",
    )
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="as in .gitattributes")
    parser.add_argument(
        "--filename", action="store_true", help="take each PATTERN as the name of one file"
    )
    parser.add_argument("--dry-run", "-n", action="store_true", help="change nothing")
    parser.set_defaults(run=run, answers=lambda args: not args.patterns)


def run(args: argparse.Namespace) -> int:
    """Track the patterns, or list."""
    repository = Repository.discover()
    if not args.patterns:
        return _list(repository)
    if args.filename:
        names = [Path(os.path.normpath(name)).as_posix() for name in args.patterns]
        patterns = [attributes.literal(name) for name in names]
    else:
        patterns = [normalise(pattern, repository) for pattern in args.patterns]
    for pattern in patterns:
        attributes.check(pattern)
    before = {entry.oid for entry in raw_entries(repository)}
    added = _track(repository, patterns, dry_run=args.dry_run)
    fact("dry_run", args.dry_run)
    fact("added", added)
    fact("patterns", _records(repository))
    if args.dry_run:
        return 0
    _install_here(repository)
    warn_of_missing_hooks(repository.cwd)
    for path, found, promised in misnamed(repository):
        what = (
            "kept exactly, not split by tensor"
            if found == "opaque"
            else f"split as {found} if whole"
        )
        print(f"{printable(path)}: its content is not {promised}; it will be {what}")
    for line in links.sentences(repository, links.tracked(repository)):
        print(line)
    entries = raw_entries(repository)
    after = {entry.path: entry.oid for entry in entries if entry.oid not in before}
    for line in stored_whole.sentences(repository, after):
        print(line)
    return 0


def _track(repository: Repository, patterns: list[str], *, dry_run: bool) -> list[str]:
    """Give each pattern a line in .gitattributes that counts, and no other line changes.

    Returns:
        The patterns that were not tracked; with `dry_run` nothing is written.
    """
    added = []
    verb = "Would track" if dry_run else "Tracking"
    path = attributes_path(repository)
    content = before = read(path)
    for pattern in patterns:
        shown = printable(pattern)
        filters = [line.filter for line in attributes.lines(content) if line.pattern == pattern]
        longer = attributes.add(content, pattern)
        print(f'"{shown}" already tracked' if longer == content else f'{verb} "{shown}"')
        added += [pattern] if longer != content else []
        if "lfs" in filters and longer != content:
            print(
                "  its line with filter=lfs stays, but has no effect, because later lines win;\n"
                + advice.with_name("  git lfs untrack PATTERN   removes it", pattern, "PATTERN")
            )
        content = longer
    if content != before and not dry_run:
        write(repository, content)
        print("Now run: git add .gitattributes")
    return added


def _install_here(repository: Repository) -> None:
    if installation.is_installed(repository):
        return
    installation.install("local", repository.cwd)
    # What is to be done where hooks are elsewhere is said after this, set up or not.
    for line in [] if hooks.is_elsewhere(repository) else ensure_hooks(repository):
        print(printable(line))
    print("git-theta was not set up: did `git theta install --local` for this repository.")


def _records(repository: Repository) -> list[dict[str, str]]:
    """The tracked patterns for JSON."""
    found = tracked_patterns(repository)
    return [{"pattern": pattern, "source": source} for source, pattern in found]


def _list(repository: Repository) -> int:
    found = tracked_patterns(repository)
    fact("patterns", _records(repository))
    print("Listing tracked patterns")
    for source, pattern in found:
        print(f"    {printable(pattern)} ({printable(source)})")
    return 0


def tracked_patterns(repository: Repository) -> list[tuple[str, str]]:
    """Pairs of a file, from the top of the work tree, and a pattern that it tracks."""
    tree = WorkTree(repository.top)
    answer = repository.git(
        "ls-files", "-z", "--full-name", "--cached", "--others", "--exclude-standard",
        "--", ":(top,glob)**/.gitattributes",
    )  # fmt: skip
    names = sorted({os.fsdecode(name) for name in answer.split(b"\0") if name})
    files = [(name, repository.top / name) for name in names if tree.has_file(name)]
    files.append(("info/attributes", repository.common_dir / "info" / "attributes"))
    return [(name, pattern) for name, path in files for pattern in attributes.tracked(read(path))]


def raw_entries(repository: Repository) -> list[Any]:
    """The tracked index entries whose blob is a checkpoint itself, committed without the filter."""
    entries = repository.tracked()
    raw = is_raw(repository, [entry.oid for entry in entries])
    return [entry for entry in entries if entry.oid in raw]


def misnamed(repository: Repository) -> Iterator[tuple[str, str, str]]:
    """Files that the filter now gets whose content is not what their extension promises.

    Yields:
        The path, the container that the file begins like, and the one that was expected.
    """
    listed = repository.git(
        "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--full-name",
        "--", ":(top,attr:filter=theta)",
    )  # fmt: skip
    tree = WorkTree(repository.top)
    for name in itertools.islice(dict.fromkeys(listed.split(b"\0")[:-1]), _LOOKED_INTO):
        path = os.fsdecode(name)
        if not tree.has_file(path) or stored_whole.is_pointer(repository.top / path):
            continue
        try:
            with FileSource(repository.top / path) as source:
                head = source.read(0, min(HEAD_BYTES, source.size))
                found = formats.sniff(source) if head and not is_manifest(head) else None
        except (OSError, ThetaError):
            continue
        promised = formats.expected_format(path, found) if found else None
        if found and promised:
            yield path, found, promised


def normalise(pattern: str, repository: Repository) -> str:
    """A pattern as typed, made relative to the current folder, with forward slashes.

    Raises:
        UsageError: an absolute path outside the current folder.
    """
    if os.name == "nt":
        pattern = pattern.replace("\\", "/")
    while pattern.startswith("./"):
        pattern = pattern[2:].lstrip("/")
    if not pattern.strip():
        raise UsageError("an empty pattern matches no file", hint="git theta track '*.safetensors'")
    drive = os.path.splitdrive(pattern)[0]
    here = repository.cwd.resolve().as_posix()
    if pattern.startswith(here + "/"):
        return pattern[len(here) :]
    if drive or (repository.work_tree and pattern.startswith(f"{repository.top.as_posix()}/")):
        raise UsageError(
            f"{pattern} is not in the current folder",
            hint="run git theta track in the folder that holds the checkpoints",
        )
    if "/" not in pattern.strip("/") and (repository.cwd / pattern).is_dir():
        raise UsageError(
            f"{pattern} is a folder; attributes belong to files",
            hint=advice.with_name("git theta track FILE", f"{pattern.rstrip('/')}/**"),
        )
    return pattern


def attributes_path(repository: Repository) -> Path:
    """`.gitattributes` of the current folder.

    Raises:
        RepositoryError: there is no work tree.
        UsageError: the current folder is not in it, or the file is a symbolic link.
    """
    if not repository.cwd.resolve().is_relative_to(repository.top.resolve()):
        raise UsageError(f"{repository.cwd} is not in the work tree {repository.top}")
    path = repository.cwd / ATTRIBUTES_FILE
    if is_link(path):
        raise UsageError(f"{path} is a symbolic link; Git does not follow it")
    return path


def read(path: Path) -> bytes:
    """The file's bytes; none where there is no such file.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def write(repository: Repository, content: bytes) -> None:
    """Replace the current folder's file whole, with its permissions.

    Raises:
        StoreError: it cannot be written, or not there; see `WorkTree`.
    """
    top = repository.top.resolve()
    folder = repository.cwd.resolve().relative_to(top)
    WorkTree(top).replace((folder / attributes_path(repository).name).as_posix(), content)
