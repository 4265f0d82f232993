"""Commits rewritten, parents before children: each distinct folder of a history is visited once.

What becomes of the files of a folder is a converter's business. This module follows trees, keeps
what it has seen, and writes new trees and commits. A commit of which nothing changes stays the same
object, and so keeps its id.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.git.object_pipes import Item, ObjectPipes, tree_bytes
from git_theta_ext.migration.headers import Commit, parse_commit
from git_theta_ext.migration.journal import Journal

_KEPT_FOLDERS = 4096


@dataclass(frozen=True, slots=True)
class Folder:
    """What became of a folder: its tree (None: nothing is left), and paths that matter above it.

    `moved` are files that were converted, `kept` those that the same patterns mean and that stay as
    they were, with what they are (`lfs` or `raw`).
    """

    oid: str | None
    moved: tuple[str, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Contents:
    """The lines of one folder while it is converted; `path` is "" for the top."""

    path: str
    items: dict[bytes, Item]
    moved: list[str] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)

    def path_of(self, name: bytes) -> str:
        """The path of one of its files, from the top."""
        return f"{self.path}/{os.fsdecode(name)}" if self.path else os.fsdecode(name)


class Converter(Protocol):
    """Says what becomes of files."""

    def begin(self, commit: Commit, parents: Sequence[str]) -> Hashable:
        """A commit comes whose parents' new trees are these, the first first.

        What is given back is what folders depend on in it, besides their paths and contents.
        """
        ...

    def folder(self, contents: Contents) -> None:
        """Replace lines of a folder's own files, and note which were moved and which kept."""
        ...

    def top(self, contents: Contents, inherited: frozenset[str]) -> frozenset[str]:
        """Finish the top folder; the patterns that this commit and those after it track."""
        ...


class Rewriter:
    """Rewrites the commits of one history."""

    def __init__(self, pipes: ObjectPipes, converter: Converter, journal: Journal) -> None:
        """`journal` has what an earlier run, which was stopped, has done of it."""
        self._pipes, self._converter, self._journal = pipes, converter, journal
        self._folders: dict[tuple[Hashable, str, str], Folder] = {}
        self._about: Hashable = None
        self._trees: dict[str, str] = {}
        """New commits' trees, of those that may still become parents."""

    def run(self, commits: Iterable[str]) -> Mapping[str, str]:
        """The new ids of these commits, which come parents first."""
        done: dict[str, str] = {}
        for oid in commits:
            if not self._still_holds(oid, done):
                new, patterns = self._commit(oid, done)
                self._journal.note_commit(oid, new, patterns)
            done[oid] = self._journal.moved(oid)
        return done

    def _still_holds(self, oid: str, done: Mapping[str, str]) -> bool:
        """Whether an earlier run has done a commit, and on top of the parents that it has now.

        That one may have been asked for fewer commits, and have left the parents as they were.
        """
        if oid not in self._journal.commits:
            return False
        wanted = [done.get(one, one) for one in self._parents_of(oid)]
        return wanted == self._parents_of(self._journal.moved(oid))

    def _parents_of(self, oid: str) -> list[str]:
        return list(parse_commit(self._pipes.read(oid, "commit")).parents)

    def on_top(self, head: str) -> str:
        """The tree of a commit to make on top of one, in which its files are converted."""
        commit = parse_commit(self._pipes.read(head, "commit"))
        self._about = self._converter.begin(commit, [commit.tree])
        contents = self._contents("", commit.tree)
        self._converter.top(contents, frozenset())
        return self._written(contents, commit.tree) or self._pipes.write("tree", b"")

    def _commit(self, oid: str, done: Mapping[str, str]) -> tuple[str, frozenset[str]]:
        """What became of a commit whose parents were rewritten, and the patterns that it tracks."""
        commit = parse_commit(self._pipes.read(oid, "commit"))
        parents = tuple(done.get(one, one) for one in commit.parents)
        before = [self._tree_of(one) for one in parents]
        self._about = self._converter.begin(commit, before)
        contents = self._contents("", commit.tree)
        inherited = frozenset(
            one
            for parent in commit.parents
            if parent in done
            for one in self._journal.patterns(parent)
        )
        patterns = self._converter.top(contents, inherited)
        tree = self._written(contents, commit.tree) or self._pipes.write("tree", b"")
        new = oid
        if tree != commit.tree or parents != commit.parents:
            made = Commit(tree, parents, commit.rest)
            new = self._pipes.write("commit", made.to_bytes())
        self._trees[new] = tree
        return new, patterns

    def _tree_of(self, commit: str) -> str:
        if commit not in self._trees:
            self._trees[commit] = parse_commit(self._pipes.read(commit, "commit")).tree
        return self._trees[commit]

    def _contents(self, path: str, oid: str) -> Contents:
        """The lines of a folder, what is in the folders below it converted."""
        found = Contents(path, {one.name: one for one in self._pipes.tree(oid, path)})
        for name, item in list(found.items.items()):
            if not item.is_folder:
                continue
            below = self._folder(found.path_of(name), item.oid)
            found.moved += below.moved
            found.kept += below.kept
            if below.oid is None:
                del found.items[name]
            elif below.oid != item.oid:
                found.items[name] = item._replace(oid=below.oid)
        self._converter.folder(found)
        return found

    def _folder(self, path: str, oid: str) -> Folder:
        key = (self._about, path, oid)
        if key not in self._folders:
            contents = self._contents(path, oid)
            made = Folder(self._written(contents, oid), tuple(contents.moved), tuple(contents.kept))
            while len(self._folders) >= _KEPT_FOLDERS:
                self._folders.pop(next(iter(self._folders)))
            self._folders[key] = made
        return self._folders[key]

    def _written(self, contents: Contents, old: str) -> str | None:
        """The tree of the lines as they are now: the old one if they are what they were."""
        before, after = self._pipes.tree(old), list(contents.items.values())
        if after == before:  # empty, or in an order that Git would not write
            return old
        if not after:
            return None
        data = tree_bytes(after)
        if data == tree_bytes(before):
            return old
        if len({one.name for one in before}) < len(before):
            raise RepositoryError(
                f"tree {old} of this repository is damaged: it has two files of one name"
            )
        return self._pipes.write("tree", data)
