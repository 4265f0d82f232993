"""What a push to a server needs and the server's LFS store lacks, seen before any ref moves.

Run from a `pre-receive` hook: the new Git objects are still in quarantine, where only Git commands
with the environment that Git passes on see them. The manifests come from a stranger, so each is
parsed as strictly as everywhere, one at a time, and all of them together may have so many bytes
(`limits.RECEIVED_BYTES`). Of what is missing the first few are kept, the others only counted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from git_theta_ext.core import limits
from git_theta_ext.core.errors import ManifestError, ProtocolError, UsageError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.manifest.text import Parser
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer import endpoints, folders

_NAMED = 20
"""Manifests, and objects of each, that are named in full."""


@dataclass(frozen=True, slots=True)
class Update:
    """One line of stdin: a ref and the commits before and after; None for zeros."""

    old: str | None
    new: str | None
    ref: str


@dataclass(slots=True)
class Lacking:
    """A manifest whose objects are not all in the store: the first of them, and how many."""

    blob: str
    objects: list[UpdateRef] = field(default_factory=list)
    count: int = 0
    places: list[str] = field(default_factory=list)
    """The paths at which the pushed commits have it."""


@dataclass(slots=True)
class Answer:
    """What was found: manifests that lack objects, how many there are, blobs that are damaged."""

    lacking: list[Lacking] = field(default_factory=list)
    count: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)


def parse(text: bytes) -> list[Update]:
    """The lines that Git writes to a pre-receive hook.

    Raises:
        ProtocolError: a line does not have three fields.
    """
    updates = []
    for line in os.fsdecode(text).split("\n"):
        fields = line.split(" ", 2)
        if not line:
            continue
        if len(fields) != 3 or not all(_is_id(one) for one in fields[:2]):
            raise ProtocolError(f"pre-receive: expected '<old> <new> <ref>', found {line!r}")
        old, new = (None if set(one) == {"0"} else one for one in fields[:2])
        updates.append(Update(old, new, fields[2]))
    return updates


def _is_id(text: str) -> bool:
    return len(text) in (40, 64) and set(text) <= set("0123456789abcdef")


def store_of(repository: Repository, named: Path | None) -> Path:
    """The folder of the LFS store: the one named, else git-lfs's own of a repository on disk.

    Raises:
        UsageError: the folder that was named is not there.
    """
    if named is None:
        return endpoints.lfs_folder(repository, repository.common_dir)
    if not named.is_dir():
        raise UsageError(
            f"{named} is no folder, so nothing can be looked up in it",
            hint="give --store the folder in which the server keeps LFS objects",
        )
    return named


def check(repository: Repository, updates: Sequence[Update], store: Path) -> Answer:
    """Look up every object that the pushed refs need and that no ref here needed before.

    Raises:
        ManifestError: the push holds more bytes of manifests than `limits.RECEIVED_BYTES`.
    """
    new = [update.new for update in updates if update.new]
    old = repository.git("for-each-ref", "--format=%(objectname)").decode().split()
    answer = Answer()
    seen: set[str] = set()
    room, parser = limits.RECEIVED_BYTES, Parser()
    for blob, data in reachable.manifests_in(repository, new, old):
        room -= len(data)
        if room < 0:
            raise ManifestError(
                f"the manifests of this push have more than {limits.RECEIVED_BYTES} bytes",
                hint="push fewer commits at a time",
            )
        try:
            manifest = parser.parse(data)
        except ManifestError as error:
            if len(answer.damaged) < _NAMED:
                answer.damaged.append((blob, error.message))
            continue
        found = _look_up(blob, manifest.objects(), store, seen)
        if found.count:
            answer.count += 1
            if len(answer.lacking) < _NAMED:
                answer.lacking.append(found)
    if answer.lacking:
        _find_places(repository, answer, new, old)
    return answer


def _look_up(blob: str, objects: Iterable[UpdateRef], store: Path, seen: set[str]) -> Lacking:
    """What a manifest lacks; `seen` are objects that are there."""
    found = Lacking(blob)
    missing: set[str] = set()
    for item in objects:
        if item.oid in seen or item.oid in missing:
            continue
        if is_there(store, item):
            seen.add(item.oid)
            continue
        missing.add(item.oid)
        if len(found.objects) < _NAMED:
            found.objects.append(item)
    found.count = len(missing)
    return found


def is_there(store: Path, item: UpdateRef) -> bool:
    """Whether a store has an object: as git-lfs lays it out, or Gitea, Forgejo and GitLab."""
    one, two, rest = item.oid[:2], item.oid[2:4], item.oid[4:]
    for path in (
        folders.object_path(store, item.oid),
        store / one / two / rest,
        store / one / two / item.oid,
    ):
        try:
            status = path.stat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size == item.size:
            return True
    return False


def _find_places(
    repository: Repository, answer: Answer, new: Sequence[str], old: Sequence[str]
) -> None:
    """Name the paths of manifests; asked of Git only once something is missing."""
    wanted = {found.blob: found for found in answer.lacking}
    for path, oid in places_in(repository, new, old):
        if (found := wanted.get(oid)) is not None:
            found.places.append(path)


def places_in(
    repository: Repository, new: Sequence[str], old: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """The paths and ids of blobs and folders that `new` has and `old` has not."""
    request = "".join(f"{oid}\n" for oid in new) + "".join(f"^{oid}\n" for oid in old)
    listed = repository.git(
        "rev-list", "--objects", "--ignore-missing", "--missing=print", "--stdin",
        stdin=request.encode(),
    )  # fmt: skip
    for line in listed.split(b"\n"):
        oid, _, path = line.partition(b" ")
        if path:
            yield os.fsdecode(path), oid.decode("ascii", "replace")
