"""Git's trees: what a revision has, and trees and commits that are made without a work tree."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.git.process import run_git
from git_theta_ext.git.repository import Repository


def blobs_of(repository: Repository, revision: str) -> list[tuple[str, str]]:
    """The path, from the top, and blob of every regular file of a revision, in Git's order."""
    found = repository.tree(revision, recursive=True)
    return [(entry.path, entry.oid) for entry in found if entry.mode.startswith("100")]


def file_mode_at(repository: Repository, revision: str, path: str) -> str:
    """The mode that a file has in a revision; that of an ordinary file where there is none."""
    found = repository.tree(revision, path)
    return found[0].mode if found and found[0].mode in ("100644", "100755") else "100644"


def is_file_at(repository: Repository, revision: str, path: str) -> bool:
    """Whether a regular file, not a link, is at a path in a revision."""
    found = repository.tree(revision, path)
    return bool(found) and found[0].mode.startswith("100")


@dataclass(frozen=True, slots=True)
class Row:
    """A line for Git's index: a blob at a path from the top, in a stage; mode "0" removes it."""

    mode: str
    oid: str
    path: str
    stage: int = 0


def store_blob(repository: Repository, content: bytes) -> str:
    """Write a blob, as it is; its object id."""
    answer = repository.git("hash-object", "-w", "--stdin", "--no-filters", stdin=content)
    return answer.decode().strip()


def stage(
    repository: Repository, rows: Iterable[Row], env: Mapping[str, str] | None = None
) -> None:
    """Put rows into the index at once, or into the one that `env` names."""
    text = "".join(f"{row.mode} {row.oid} {row.stage}\t{row.path}\0" for row in rows)
    repository.git("update-index", "-z", "--index-info", stdin=os.fsencode(text), env=env)


def restage(repository: Repository, rows: Sequence[Row]) -> None:
    """As `stage`, of files that are in the index: what `update-index` marked them with stays.

    A file outside of a sparse checkout is marked with `skip-worktree`: without that mark it would
    be taken for deleted. Source: git-ls-files(1), "-v".
    """
    paths = {row.path for row in rows}
    answer = repository.git("ls-files", "-v", "-z", "--full-name", "--", ":(top)")
    marks: dict[str, list[bytes]] = {"--skip-worktree": [], "--assume-unchanged": []}
    for line in answer.split(b"\0")[:-1]:
        if os.fsdecode(line[2:]) in paths:
            marks["--skip-worktree"] += [line[2:]] if line[:1] in b"Ss" else []
            marks["--assume-unchanged"] += [line[2:]] if line[:1].islower() else []
    stage(repository, rows)
    for option, names in marks.items():
        if names:
            listed = b"".join(name + b"\0" for name in names)
            run_git(["update-index", option, "-z", "--stdin"], repository.top, stdin=listed)


@contextmanager
def index_of(repository: Repository, revision: str) -> Iterator[Mapping[str, str]]:
    """An index of its own with the tree of a revision: the environment that names it."""
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        repository.git("read-tree", revision, env=env)
        yield env


def write_tree(repository: Repository, rows: Iterable[Row], env: Mapping[str, str]) -> str:
    """The tree of an index with some files replaced or added."""
    stage(repository, rows, env)
    return repository.git("write-tree", env=env).decode().strip()


def commit_tree(repository: Repository, tree: str, parents: Sequence[str], message: str) -> str:
    """The id of a new commit of a tree, which no ref names yet.

    Args:
        repository: where it is made.
        tree: the full id of the tree.
        parents: full ids of its parents, the first parent first.
        message: of the commit; a line feed is added if it does not end with one.
    """
    options = [word for parent in parents for word in ("-p", parent)]
    text = message if message.endswith("\n") or not message else f"{message}\n"
    made = repository.git("commit-tree", tree, *options, "-F", "-", stdin=text.encode())
    return made.decode().strip()
