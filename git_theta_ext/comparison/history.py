"""The versions of one checkpoint in history: from commits and manifests alone, no values read.

A checkpoint that was renamed is followed to its old path, as `git log --follow` does, and the
folder of a trainer that keeps one (`checkpoint-10` becomes `checkpoint-20`) too. Manifests are read
as they are asked for, so that a long history costs no more than what is looked at.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.contents import Content, Contents
from git_theta_ext.comparison.renames import renamed
from git_theta_ext.core.errors import UsageError
from git_theta_ext.git import near
from git_theta_ext.git.repository import Repository, literal
from git_theta_ext.git.revisions import commit_of
from git_theta_ext.manifest.model import Entry, Manifest

_Part = TypeVar("_Part")

_FORMAT = "%H%x00%P%x00%an%x00%ae%x00%aI%x00%s"
_Place = tuple[str, str]
"""A commit, and the path at which the checkpoint stands in it."""
_MOST_RENAMES = 1000
"""Deleted files that are looked at when a checkpoint appears; git has a `diff.renameLimit` too."""


@dataclass(frozen=True, slots=True)
class Version:
    """A commit that touched the checkpoint, which then stood at `path`.

    `parents` are the nearest commits before it that touched the checkpoint. `boundary` says that
    the history before this commit is not on this machine, as in a shallow clone: what it changed
    is then not known.
    """

    commit: str
    parents: tuple[str, ...]
    author: str
    email: str
    date: str
    subject: str
    path: str
    boundary: bool


class History:
    """The versions of one checkpoint, newest first, those under older paths after the others."""

    def __init__(self, repository: Repository, revision: str, path: str) -> None:
        """The history of the checkpoint that stands, or stood, at `path` (from the top).

        A path that stands for the shards of a model gives the versions of the whole model.

        Raises:
            UsageError: there is no such revision, or nothing was ever at that path.
        """
        commit_of(repository, revision)
        self._repository = repository
        self.contents = Contents(repository)
        self._versions: dict[_Place, Version] = {}
        self._logs: dict[_Place, list[Version]] = {}
        """What `git log` says of each path, by the newest version in it."""
        self._older: dict[_Place, Version | None] = {}
        found = self._log(revision, path)
        if not found:
            raise UsageError(
                f"no commit of {revision} touched {path!r}",
                hint=near.hint(
                    repository, revision, path, f"git theta ls-files {revision}   lists what it has"
                ),
            )
        self._first = found
        self.newest = found[0]

    def _log(self, revision: str, path: str) -> list[Version]:
        """The versions under one path, newest first."""
        answer = self._repository.git(
            "log", "-z", "--topo-order", "--full-history", "--simplify-merges", "--parents",
            f"--format=%x01{_FORMAT}", "--end-of-options", revision, "--",
            shards.pathspec_of(path) if shards.names_model(path) else literal(path),
        )  # fmt: skip
        found = []
        for record in os.fsdecode(answer).split("\x01")[1:]:
            commit, parents, author, email, date, subject = record.rstrip("\0").split("\0")[:6]
            version = Version(
                commit, tuple(parents.split()), author, email, date, subject, path,
                commit in self._shallow,
            )  # fmt: skip
            found.append(version)
            self._versions.setdefault((commit, path), version)
        if found:
            self._logs[found[0].commit, path] = found
        return found

    @cached_property
    def _shallow(self) -> frozenset[str]:
        """The commits at which a shallow clone ends."""
        try:
            text = (self._repository.common_dir / "shallow").read_text("ascii")
        except (OSError, UnicodeDecodeError):
            return frozenset()
        return frozenset(text.split())

    def __iter__(self) -> Iterator[Version]:
        """Every version."""
        waiting, seen = deque([self._first]), set[_Place]()
        while waiting:
            found = [one for one in waiting.popleft() if (one.commit, one.path) not in seen]
            seen.update((one.commit, one.path) for one in found)
            yield from found
            older = filter(None, map(self._before_rename, found))
            waiting += [self._logs[one.commit, one.path] for one in older]

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths at which the checkpoint is known to have stood, as far as was looked."""
        return tuple(dict.fromkeys(path for _, path in self._versions))

    def parents(self, version: Version) -> list[Version]:
        """The versions before one; where it was renamed, the last under the old path."""
        before = [self._versions.get((parent, version.path)) for parent in version.parents]
        older = self._before_rename(version)
        return [older] if older is not None else [one for one in before if one is not None]

    def content(self, version: Version) -> Content | None:
        """What stands at the path in a version; None where it is not there (any more)."""
        return self.at(version.commit, version.path)

    def at(self, commit: str, path: str) -> Content | None:
        """What stands at a path in any commit; None where it is not there."""
        return content_at(self.contents, commit, path)

    def absent(self, version: Version) -> str:
        """Why a version has no content: `deleted`, `empty`, or `not on this machine`."""
        if shards.names_model(version.path):
            return "deleted"
        oid = self._repository.blob_at(version.commit, version.path)
        if oid is None:
            return "deleted"
        there = self._repository.blob_sizes([oid]).get(oid)
        return "not on this machine" if there is None else "empty"

    def _is_there(self, version: Version) -> bool:
        """Whether there is anything at the path, whatever it is."""
        if shards.names_model(version.path):
            return self.content(version) is not None
        return self._repository.blob_at(version.commit, version.path) is not None

    def manifest(self, version: Version) -> Manifest | None:
        """The manifest of a version; None where it is not there, or its bytes are not here."""
        content = self.content(version)
        return None if content is None else content.manifest

    # -- renames -----------------------------------------------------------------------------------

    def _before_rename(self, version: Version) -> Version | None:
        """The last version under the path that the checkpoint had before it came to this one."""
        place = version.commit, version.path
        if place not in self._older:
            before = (self._versions.get((parent, version.path)) for parent in version.parents)
            began = not any(one is not None and self._is_there(one) for one in before)
            self._older[place] = self._followed(version) if began else None
        return self._older[place]

    def _followed(self, version: Version) -> Version | None:
        parent = self._repository.resolve(f"{version.commit}^1")
        manifest = None if parent is None or version.boundary else self.manifest(version)
        if parent is None or manifest is None:
            return None
        gone = {}
        for path, oids in self._deleted(parent, version.commit).items():
            parts = [(name, found) for name, oid in oids if (found := self.contents.manifest(oid))]
            if parts:
                gone[path] = parts[0][1] if len(parts) == 1 else shards.join(parts)
        old = renamed(gone, {version.path: manifest}).get(version.path)
        return None if old is None else self._log(parent, old)[0]

    def _deleted(self, parent: str, commit: str) -> dict[str, list[tuple[str, str]]]:
        """What a commit deleted: by path, or pattern of a model, names and blobs of the files."""
        answer = self._repository.git(
            "diff-tree", "-r", "-z", "--no-renames", "--diff-filter=D", parent, commit
        )
        fields = iter(os.fsdecode(answer).split("\0"))
        rows = [(header.split()[2], next(fields)) for header in fields if header]
        found: dict[str, list[tuple[str, str]]] = {}
        for oid, path in rows[:_MOST_RENAMES]:
            found.setdefault(shards.model_of(path) or path, []).append((path, oid))
        return found


def content_at(contents: Contents, commit: str, path: str) -> Content | None:
    """What stands at a path in a commit, a model by its pattern; None where it is not there."""
    if not shards.names_model(path):
        return contents.get(contents.repository.blob_at(commit, path), path)
    try:
        model = shards.find(contents.repository, commit, path, contents.manifest)
    except UsageError:
        return None
    return None if model is None else Content("tensors", commit, path, None, model.manifest)


def signature(entry: Entry) -> tuple[object, ...]:
    """What a tensor is, to the bit: equal exactly where nothing of it changed."""
    tensor = entry.tensor
    hashes = tuple(block.sha256 for block in entry.blocks)
    return tensor.dtype.name, tensor.shape, tensor.order, hashes


def entries_of(manifest: Manifest | None) -> Mapping[str, Entry]:
    """The tensors of a manifest by name."""
    if manifest is None:
        return {}
    return manifest.by_name()


@dataclass(frozen=True, slots=True)
class Blame:
    """The commit that last changed a tensor; `certain` unless it may have been an earlier one.

    Not certain where the history ends (a shallow clone), or where the version before is not on
    this machine.
    """

    version: Version
    certain: bool


def blame(history: History) -> dict[str, Blame]:
    """For each tensor of the newest version the commit that last changed it, to the bit.

    As in `git blame`, a merge is blamed only for what is as in none of its parents.
    """

    def same(then: Entry | None, now: Entry) -> bool:
        return then is not None and signature(then) == signature(now)

    return blame_by(history, entries_of, same)


def blame_by(
    history: History,
    parts_of: Callable[[Manifest | None], Mapping[str, _Part]],
    same: Callable[[_Part | None, _Part], bool],
) -> dict[str, Blame]:
    """As `blame`, of whatever a version is made of.

    Args:
        history: of the checkpoint.
        parts_of: the parts of a version, by name.
        same: whether a part is as it was; None is one that was not there.
    """
    newest = history.newest
    pending = {(newest.commit, newest.path): set(parts_of(history.manifest(newest)))}
    found: dict[str, Blame] = {}
    for version in history:
        names = pending.pop((version.commit, version.path), set())
        if not names:
            continue
        parts = parts_of(history.manifest(version))
        parents = [(parent, history.content(parent)) for parent in history.parents(version)]
        lacking = any(then is not None and then.manifest is None for _, then in parents)
        before = [(parent, parts_of(then.manifest)) for parent, then in parents if then is not None]
        for name in names:
            kept = (one for one, its in before if same(its.get(name), parts[name]))
            origin = next(kept, None)
            if origin is None:
                found[name] = Blame(version, not version.boundary and not lacking)
            else:
                pending.setdefault((origin.commit, origin.path), set()).add(name)
        if not pending:
            break
    return found


def first_versions(history: History, names: Iterable[str]) -> dict[str, Version]:
    """The oldest version that has each of the tensors."""
    wanted = set(names)
    found: dict[str, Version] = {}
    for version in history:
        for name in wanted & set(entries_of(history.manifest(version))):
            found[name] = version
    return found


def changes(history: History) -> Iterator[tuple[Version, Version | None]]:
    """Each version with the one before it, along first parents; newest first."""
    for version in history:
        yield version, next(iter(history.parents(version)), None)
