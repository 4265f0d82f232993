"""Which manifests a repository holds, told from other blobs, and which objects these need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from git_theta_ext.core.errors import ManifestError
from git_theta_ext.git.operations import revisions_in_progress
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import (
    HEAD_BYTES,
    MAX_BYTES,
    SHORTEST,
    Manifest,
    UpdateRef,
    is_manifest,
)
from git_theta_ext.manifest.text import Parser
from git_theta_ext.objects import promised
from git_theta_ext.objects.store.store import Store

_BATCH_BYTES = 64 << 20
"""How much of candidate blobs is held at a time."""


def objects(manifest: Manifest) -> dict[str, int]:
    """The objects that a manifest names, each once: id -> size in bytes."""
    return {ref.oid: ref.size for ref in manifest.objects()}


def missing(manifest: Manifest, store: Store) -> dict[str, int]:
    """The objects that a manifest names and the local store does not have: id -> size."""
    return {oid: size for oid, size in objects(manifest).items() if not store.has(oid, size)}


def manifest_texts(repository: Repository, oids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The blobs that begin as a manifest does, with their object ids; large blobs are not read."""
    sizes = repository.blob_sizes(oids)
    batch: list[str] = []
    held = 0
    for oid, length in sizes.items():
        if not SHORTEST <= length <= MAX_BYTES:
            continue
        if held + length > _BATCH_BYTES and batch:
            yield from _beginning_as_manifests(repository, batch)
            batch, held = [], 0
        batch.append(oid)
        held += length
    yield from _beginning_as_manifests(repository, batch)


def _beginning_as_manifests(repository: Repository, oids: list[str]) -> Iterator[tuple[str, bytes]]:
    for oid, content in repository.blobs(oids):
        if is_manifest(content[:HEAD_BYTES]):
            yield oid, content


def manifests(
    repository: Repository, oids: Iterable[str]
) -> Iterator[tuple[str, Manifest | ManifestError]]:
    """The manifests among blobs, or why one that begins like a manifest is none."""
    parser = Parser()
    for oid, text in manifest_texts(repository, oids):
        try:
            yield oid, parser.parse(text)
        except ManifestError as error:
            yield oid, error


def is_raw(repository: Repository, oids: Iterable[str]) -> set[str]:
    """Those of the blobs that are not empty and do not begin as a manifest."""
    sizes = repository.blob_sizes(oids)
    found = {oid for oid, _ in manifest_texts(repository, sizes)}
    return {oid for oid, length in sizes.items() if length and oid not in found}


def reachable_ids(repository: Repository, revisions: Iterable[str] = ()) -> list[str]:
    """Every object of Git that anything in the repository names, the newest commits' first.

    Args:
        repository: any, bare ones too.
        revisions: full object ids; only what these reach, if there are any.
    """
    return listed(repository, revisions)[0]


def listed(repository: Repository, revisions: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """What `reachable_ids` finds, and the objects of Git that are not here.

    A partial clone has left those at a remote. What a folder holds that is not here cannot be
    known, and is in neither list.
    """
    return promised.listed(repository, *_sources(repository, revisions))


def bring_absent(repository: Repository, revisions: Iterable[str] = ()) -> None:
    """Fetch what a partial clone lacks of what `reachable_ids` is about; else do nothing.

    Raises:
        TransferError: it cannot be had.
    """
    if promised.remotes_of(repository):
        promised.all_listed(repository, *_sources(repository, revisions))


def _sources(repository: Repository, revisions: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Where a walk begins: object ids, and options of rev-list for others."""
    named = list(revisions)
    if named:
        return named, ()
    return revisions_in_progress(repository), ("--all", "--reflog", "--indexed-objects")


def reachable_manifests(
    repository: Repository, revisions: Iterable[str] = ()
) -> Iterator[tuple[str, Manifest | ManifestError]]:
    """Every blob that begins as a manifest and that anything in the repository names.

    Args:
        repository: any, bare ones too.
        revisions: full object ids; only what these reach, if there are any.
    """
    yield from manifests(repository, reachable_ids(repository, revisions))


def reachable_objects(
    repository: Repository, revisions: Iterable[str] = ()
) -> dict[str, UpdateRef]:
    """The objects, by id, that the readable ones of `reachable_manifests` need."""
    found: dict[str, UpdateRef] = {}
    for _, manifest in reachable_manifests(repository, revisions):
        if isinstance(manifest, Manifest):
            found.update((ref.oid, ref) for ref in manifest.objects())
    return found


def manifests_in(
    repository: Repository,
    include: Iterable[str],
    exclude: Iterable[str] = (),
    *,
    whole: bool = False,
) -> Iterator[tuple[str, bytes]]:
    """The blob id and content of every manifest reachable from `include` and not from `exclude`.

    Manifests are known by their size and first line.

    Args:
        repository: where they are.
        include: full ids of commits, tags, trees or blobs; those that are not here are ignored.
        exclude: the same; what is reachable from these is left out.
        whole: fetch what a partial clone lacks; else that is left out.

    Raises:
        TransferError: what a partial clone lacks cannot be fetched.
    """
    wanted = list(include)
    if not wanted:
        return
    request = [*wanted, *(f"^{oid}" for oid in exclude)]
    if whole:
        here = promised.all_listed(repository, request)
    else:
        here, _ = promised.listed(repository, request)
    yield from manifest_texts(repository, here)


def objects_in(
    repository: Repository,
    include: Iterable[str],
    exclude: Iterable[str] = (),
    on_damage: Callable[[str, ManifestError], object] | None = None,
    *,
    whole: bool = False,
) -> dict[str, UpdateRef]:
    """The objects, by id, that the manifests need which `manifests_in` finds.

    Args:
        repository: where the manifests are.
        include: full ids of commits, tags, trees or blobs; those that are not here are ignored.
        exclude: the same; what is reachable from these is left out.
        on_damage: called with the id of a blob that begins like a manifest and is none, and with
            what is wrong with it.
        whole: as of `manifests_in`.

    Raises:
        ManifestError: there is such a blob, and no `on_damage`.
        TransferError: what a partial clone lacks cannot be fetched.
    """
    objects: dict[str, UpdateRef] = {}
    parser = Parser()
    for oid, data in manifests_in(repository, include, exclude, whole=whole):
        try:
            objects.update((item.oid, item) for item in parser.parse(data).objects())
        except ManifestError as error:
            if on_damage is None:
                raise
            on_damage(oid, error)
    return objects
