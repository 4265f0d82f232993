"""The versions of one checkpoint in history: from commits and manifests alone, no values read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from git_theta_ext import sharded
from git_theta_ext.errors import UsageError
from git_theta_ext.manifest import Entry, Manifest
from git_theta_ext.repository import Repository

_FORMAT = "%H%x00%P%x00%an%x00%ae%x00%aI%x00%s"


@dataclass(frozen=True, slots=True)
class Version:
    """A commit that touched the checkpoint; `manifest` is None where it is not there (any more).

    `parents` are the nearest commits before it that touched the checkpoint.
    """

    commit: str
    parents: tuple[str, ...]
    author: str
    email: str
    date: str
    subject: str
    manifest: Manifest | None

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The tensors by name."""
        if self.manifest is None:
            return {}
        return {entry.tensor.name: entry for entry in self.manifest.entries}


def versions(repository: Repository, revision: str, path: str) -> list[Version]:
    """The versions of the checkpoint at `path` (from the top), newest first.

    A path that stands for the shards of a model gives the versions of the whole model.

    Raises:
        UsageError: there is no such revision, or nothing was ever at that path.
    """
    if repository.resolve(f"{revision}^{{commit}}") is None:
        raise UsageError(f"there is no revision {revision!r} here")
    answer = repository.git(
        "log", "-z", "--topo-order", "--full-history", "--simplify-merges", "--parents",
        f"--format=%x01{_FORMAT}", "--end-of-options", revision, "--",
        sharded.pathspec_of(path) if sharded.names_model(path) else f":(top,literal){path}",
    )  # fmt: skip
    found = []
    read = sharded.reader(repository)
    for record in os.fsdecode(answer).split("\x01")[1:]:
        commit, parents, author, email, date, subject = record.rstrip("\0").split("\0")[:6]
        found.append(
            Version(
                commit, tuple(parents.split()), author, email, date, subject,
                _manifest(repository, commit, path, read),
            )
        )  # fmt: skip
    if not found:
        raise UsageError(f"no commit of {revision} touched {path!r}")
    return found


def _manifest(
    repository: Repository, commit: str, path: str, read: Callable[[str], Manifest | None]
) -> Manifest | None:
    """The manifest of a commit: joined, where the path stands for the shards of a model."""
    if sharded.names_model(path):
        try:
            model = sharded.find(repository, commit, path, read)
        except UsageError:
            return None
        return None if model is None else model.manifest
    oid = repository.blob_at(commit, path)
    return None if oid is None else read(oid)


def signature(entry: Entry) -> tuple[object, ...]:
    """What a tensor is, to the bit: equal exactly where nothing of it changed."""
    tensor = entry.tensor
    hashes = tuple(block.sha256 for block in entry.blocks)
    return tensor.dtype.name, tensor.shape, tensor.order, hashes


def blame(history: list[Version]) -> dict[str, Version]:
    """For each tensor of the newest version the commit that last changed it, to the bit.

    As in `git blame`, a merge is blamed only for what is as in none of its parents.
    """
    if not history:
        return {}
    by_commit = {version.commit: version for version in history}
    pending: dict[str, set[str]] = {history[0].commit: set(history[0].entries)}
    found: dict[str, Version] = {}
    for version in history:
        names = pending.pop(version.commit, set())
        entries = version.entries
        parents = [by_commit[parent] for parent in version.parents if parent in by_commit]
        before = [(parent.commit, parent.entries) for parent in parents]
        for name in names:
            origin = _same_in(before, entries[name])
            if origin is None:
                found[name] = version
            else:
                pending.setdefault(origin, set()).add(name)
    return found


def _same_in(parents: list[tuple[str, Mapping[str, Entry]]], entry: Entry) -> str | None:
    for commit, entries in parents:
        then = entries.get(entry.tensor.name)
        if then is not None and signature(then) == signature(entry):
            return commit
    return None


def first_versions(history: list[Version], names: set[str]) -> dict[str, Version]:
    """The oldest version that has each of the tensors."""
    found: dict[str, Version] = {}
    for version in reversed(history):
        for name in version.entries:
            if name in names:
                found.setdefault(name, version)
    return found


def changes(history: list[Version]) -> Iterator[tuple[Version, Version | None]]:
    """Each version with the one before it, along first parents; newest first."""
    by_commit = {version.commit: version for version in history}
    for version in history:
        parent = version.parents[0] if version.parents else ""
        yield version, by_commit.get(parent)
