"""Reads within the process, by libgit2: the only module that knows pygit2.

libgit2 does not open every repository that Git opens (SHA-256 object names, extensions it does not
know) and knows few of the variables that steer Git. Whatever it is not sure of is None here, and is
then asked of Git.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pygit2

VERSION = pygit2.LIBGIT2_VERSION
_REFUSALS = (pygit2.GitError, KeyError, ValueError, OSError)
_STEERING = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_CEILING_DIRECTORIES", "GIT_CONFIG",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM", "GIT_NAMESPACE", "GIT_REPLACE_REF_BASE",
    "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_INDEX_FILE",
)  # fmt: skip
"""Beginnings of the names of variables that tell Git where to look; libgit2 knows few of them."""

_TREES = 64
"""Folders that are held, of the revisions that are looked at: most questions are of the same."""


class Place(NamedTuple):
    """Where a repository is: absolute paths; the work tree is None outside of it."""

    git_dir: Path
    common_dir: Path
    work_tree: Path | None


class Reader:
    """Reads one repository."""

    def __init__(self, repository: pygit2.Repository) -> None:
        """Use `open_reader` or `discover`."""
        self._repository = repository
        self._trees: dict[Any, Any] = {}

    def blob(self, oid: str) -> bytes | None:
        """The content of a blob."""
        try:
            found: Any = self._repository[oid]
        except (KeyError, ValueError):
            return None
        return bytes(found.data) if found.type_str == "blob" else None

    def blob_size(self, oid: str) -> int | None:
        """The length of a blob in bytes, without reading it."""
        try:
            kind, size = self._repository.odb.read_header(pygit2.Oid(hex=oid))
        except _REFUSALS:
            return None
        return int(size) if kind == pygit2.enums.ObjectType.BLOB else None

    def resolve(self, revision: str) -> str | None:
        """The full object id that a revision names."""
        try:
            return str(self._repository.revparse_single(revision).id)
        except _REFUSALS:
            return None

    def setting(self, name: str) -> str | None:
        """A setting of git config."""
        try:
            return self._repository.config[name]
        except KeyError:
            return None

    def blob_at(self, revision: str, path: str) -> str | None:
        """The object id of the blob at a path in a revision."""
        try:
            found: Any = self._repository.revparse_single(revision)
            while found.type_str == "tag":
                found = found.get_object()
            root = found.tree_id if found.type_str == "commit" else found.id
            *folders, name = os.fsencode(path).decode("utf-8", "surrogateescape").split("/")
            tree = self._tree(root)
            for folder in folders:
                tree = self._tree(tree[folder].id)
            entry = tree[name]
        except (KeyError, ValueError, AttributeError, TypeError, UnicodeEncodeError):
            return None
        return str(entry.id) if entry.type_str == "blob" else None

    def _tree(self, oid: Any) -> Any:
        """A tree that was read before, if it is one of the last: a large one takes a while.

        Raises:
            TypeError: it is no tree.
        """
        found = self._trees.get(oid)
        if found is None:
            found = self._read_tree(oid)
            if len(self._trees) >= _TREES:
                self._trees.pop(next(iter(self._trees)))
            self._trees[oid] = found
        return found

    def _read_tree(self, oid: Any) -> Any:
        found = self._repository[oid]
        if found.type_str != "tree":
            raise TypeError
        return found


def open_reader(git_dir: Path) -> Reader | None:
    """The repository in this Git folder."""
    try:
        return Reader(pygit2.Repository(str(git_dir)))
    except _REFUSALS:
        return None


def discover(folder: Path) -> tuple[Reader, Place] | None:
    """The repository around a folder, where that is sure to be the one that Git finds."""
    if any(name.startswith(_STEERING) for name in os.environ):
        return None
    try:
        found = pygit2.discover_repository(str(folder))
        if found is None:
            return None
        opened = pygit2.Repository(found)
    except _REFUSALS:
        return None
    git_dir = Path(opened.path).resolve()
    place = Place(git_dir, _common_dir(git_dir), _top(opened.workdir, git_dir, folder))
    return Reader(opened), place


def _common_dir(git_dir: Path) -> Path:
    """The folder that all work trees of a repository share."""
    try:
        return (git_dir / (git_dir / "commondir").read_text("utf-8").rstrip("\n")).resolve()
    except (OSError, UnicodeDecodeError):
        return git_dir


def _top(work_tree: str | None, git_dir: Path, folder: Path) -> Path | None:
    """The top of the work tree, if the folder is inside it."""
    here = folder.resolve()
    if work_tree is None or here == git_dir or git_dir in here.parents:
        return None
    top = Path(work_tree).resolve()
    return top if here == top or top in here.parents else None
