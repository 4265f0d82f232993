"""Which files a command is about: pathspecs, and the patterns of `--include` and `--exclude`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import IndexEntry, Repository


def in_index(
    repository: Repository,
    entries: Sequence[IndexEntry],
    pathspecs: Sequence[str],
    typed: Sequence[str] | None = None,
) -> list[IndexEntry]:
    """Those of some entries of the index that pathspecs match; all where there are none.

    Args:
        repository: whose index it is.
        entries: to choose from.
        pathspecs: as the user typed them, in the folder that they stand in.
        typed: what the user typed, where that was not the pathspecs.

    Raises:
        UsageError: none matches, or Git does not understand one.
    """
    if not pathspecs:
        return list(entries)
    try:
        chosen = {entry.path for entry in repository.index(*pathspecs)}
    except RepositoryError as error:
        raise UsageError(error.message) from error
    found = [entry for entry in entries if entry.path in chosen]
    if not found:
        raise _nothing(typed or pathspecs)
    return found


def tracked(repository: Repository, pathspecs: Sequence[str]) -> list[str]:
    """The tracked checkpoints of the index, without those in conflict, that pathspecs match.

    Raises:
        UsageError: none matches, or Git does not understand one.
    """
    entries = [entry for entry in repository.tracked() if entry.stage == 0]
    return [entry.path for entry in in_index(repository, entries, pathspecs)]


def in_revision(
    repository: Repository, commit: str, files: Sequence[tuple[str, str]], pathspecs: Sequence[str]
) -> list[tuple[str, str]]:
    """Those files of a commit, with their blobs, that pathspecs match; all where there are none.

    Args:
        repository: a bare one, too.
        commit: its full id.
        files: to choose from, path and blob.
        pathspecs: as the user typed them.

    Raises:
        UsageError: none matches, or Git does not understand one.
    """
    if not pathspecs:
        return list(files)
    try:
        answer = repository.git(
            "diff-tree", "-r", "-z", "--name-only", "--no-renames", empty_tree(repository), commit,
            "--", *pathspecs,
        )  # fmt: skip
    except RepositoryError as error:
        raise UsageError(error.message) from error
    chosen = {os.fsdecode(path) for path in answer.split(b"\0")}
    found = [(path, oid) for path, oid in files if path in chosen]
    if not found:
        raise _nothing(pathspecs)
    return found


def empty_tree(repository: Repository) -> str:
    """The id of the tree without files, which Git knows of without having it."""
    return repository.git("hash-object", "-t", "tree", "--stdin").decode().strip()


def _nothing(pathspecs: Sequence[str]) -> UsageError:
    shown = " ".join(printable(word) for word in pathspecs)
    return UsageError(f"no tracked checkpoint matches {shown}", hint="git theta ls-files")


def add_patterns(parser: Any) -> None:
    """Add `--include` and `--exclude`, as `git lfs fetch` has them."""
    for letter, name, what in (("I", "include", "only files"), ("X", "exclude", "no files")):
        parser.add_argument(
            f"-{letter}", f"--{name}", action="append", default=[], metavar="PATTERN",
            help=f"{what} that match; patterns as in .gitignore, several with commas between them",
        )  # fmt: skip


def of_patterns(include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The pathspecs of `--include` and `--exclude`; none where neither was given.

    A pattern without a slash is of a file or folder wherever it is, any other from the top, as in
    `.gitignore`.

    Raises:
        UsageError: a pattern is empty.
    """
    wanted = [f":(top,glob){one}" for one in _globs(include)]
    left_out = [f":(top,glob,exclude){one}" for one in _globs(exclude)]
    return [*(wanted or ([":(top)"] if left_out else [])), *left_out]


def _globs(given: Sequence[str]) -> Iterator[str]:
    for pattern in (one.strip() for words in given for one in words.split(",")):
        bare = pattern.rstrip("/")
        if not bare.strip("/"):
            raise UsageError(f"{pattern!r} is no pattern")
        anywhere = "" if "/" in bare else "**/"
        found = anywhere + bare.removeprefix("/")
        # What is in a folder of that name as well; a pattern that ends with /** has all of it.
        yield found
        if not bare.endswith("**"):
            yield f"{found}/**"


def blobs_of_trees(
    repository: Repository, trees: Sequence[str], pathspecs: Sequence[str]
) -> list[str]:
    """The blobs that some trees have at paths which pathspecs match, each once."""
    found: dict[str, None] = {}
    empty = empty_tree(repository)
    for tree in trees:
        answer = repository.git(
            "diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--no-renames", empty, tree,
            "--", *pathspecs,
        )  # fmt: skip
        found.update(dict.fromkeys(_new_blobs(answer)))
    return list(found)


def blobs_of_history(
    repository: Repository, commits: Sequence[str], pathspecs: Sequence[str]
) -> list[str]:
    """The blobs that commits, or any before them, have at paths which pathspecs match.

    Each commit is compared with all its parents, so that no version is passed over.
    """
    revisions = "".join(f"{one}\n" for one in commits).encode()
    answer = repository.git(
        "log", "--format=", "-z", "--raw", "--no-abbrev", "--no-renames", "-m", "--root",
        "--full-history", "--stdin", "--", *pathspecs, stdin=revisions,
    )  # fmt: skip
    return list(dict.fromkeys(_new_blobs(answer)))


def _new_blobs(raw: bytes) -> Iterator[str]:
    """The second object of each line of `--raw -z` that has a file there."""
    for field in raw.split(b"\0"):
        words = field.strip().split(b" ")
        if field.lstrip(b"\n").startswith(b":") and len(words) == 5 and set(words[3]) != {48}:
            yield words[3].decode("ascii")
