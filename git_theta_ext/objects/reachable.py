"""What a repository tracks: manifests, told from checkpoints that were committed as plain blobs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from git_theta_ext.core.errors import ManifestError, ThetaError
from git_theta_ext.formats.base import Literal
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.derived import derived_length
from git_theta_ext.formats.layout.skeleton import SpanRef
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import FIRST_LINE, MAX_BYTES, Block, Manifest, UpdateRef
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store

_BATCH_BYTES = 64 << 20
"""How much of candidate blobs is held at a time."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a manifest says in numbers; sizes in bytes.

    `parameters` counts the elements of all tensors; `stored` the objects it names, each once.
    `raw` is the length of the file, without `exact` about so: the structure of the file, which
    tells how long it is, is not on this machine.
    """

    format: str
    tensors: int
    parameters: int
    raw: int
    stored: int
    opaque: int
    exact: bool = True


def summarise(manifest: Manifest, blocks: Blocks) -> Summary:
    """The numbers of one manifest; spans of unknown meaning count as no tensors."""
    length = file_size(manifest, blocks)
    tensors = [entry.tensor for entry in manifest.entries if not entry.opaque]
    return Summary(
        format=manifest.format,
        tensors=len(tensors),
        parameters=sum(tensor.count for tensor in tensors),
        raw=sum(block.nbytes for block in _blocks(manifest)) if length is None else length,
        stored=sum(objects(manifest).values()),
        opaque=sum(
            block.nbytes for entry in manifest.entries if entry.opaque for block in entry.blocks
        ),
        exact=length is not None,
    )


def file_size(manifest: Manifest, blocks: Blocks) -> int | None:
    """The length of the file in bytes; None where its structure is not here, or is damaged.

    Nothing is fetched, and no tensor is read.
    """
    structure = manifest.skeleton
    if not all(blocks.store.has(ref.oid, ref.size) for ref in structure.chain):
        return None
    try:
        segments = skeleton.decode(blocks.read_bytes(structure)).segments
    except ThetaError:
        return None
    lengths = {entry.tensor.name: entry.tensor.nbytes for entry in manifest.entries}
    total = 0
    for segment in segments:
        if isinstance(segment, Literal):
            total += len(segment.data)
        elif isinstance(segment, SpanRef):
            total += lengths.get(segment.name, 0)
        else:
            total += derived_length(segment)
    return total


def objects(manifest: Manifest) -> dict[str, int]:
    """The objects that a manifest names, each once: id -> size in bytes."""
    return {ref.oid: ref.size for ref in manifest.objects()}


def missing(manifest: Manifest, store: Store) -> dict[str, int]:
    """The objects that a manifest names and the local store does not have: id -> size."""
    return {oid: size for oid, size in objects(manifest).items() if not store.has(oid, size)}


def _blocks(manifest: Manifest) -> Iterator[Block]:
    yield manifest.skeleton
    for entry in manifest.entries:
        yield from entry.blocks


def blob_sizes(repository: Repository, oids: Iterable[str]) -> dict[str, int]:
    """The size in bytes of each blob that is here."""
    request = "".join(f"{oid}\n" for oid in dict.fromkeys(oids)).encode()
    if not request:
        return {}
    answer = repository.git("cat-file", "--batch-check", stdin=request).decode("ascii")
    rows = (line.split() for line in answer.splitlines())
    return {row[0]: int(row[2]) for row in rows if len(row) == 3 and row[1] == "blob"}


def manifest_texts(repository: Repository, oids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The blobs that begin as a manifest does, with their object ids; large blobs are not read."""
    sizes = blob_sizes(repository, oids)
    batch: list[str] = []
    held = 0
    for oid, length in sizes.items():
        if not len(FIRST_LINE) <= length <= MAX_BYTES:
            continue
        if held + length > _BATCH_BYTES and batch:
            yield from _beginning_as_manifests(repository, batch)
            batch, held = [], 0
        batch.append(oid)
        held += length
    yield from _beginning_as_manifests(repository, batch)


def _beginning_as_manifests(repository: Repository, oids: list[str]) -> Iterator[tuple[str, bytes]]:
    for oid, content in repository.blobs(oids):
        if content.startswith(FIRST_LINE):
            yield oid, content


def manifests(
    repository: Repository, oids: Iterable[str]
) -> Iterator[tuple[str, Manifest | ManifestError]]:
    """The manifests among blobs, or why one that begins like a manifest is none."""
    for oid, text in manifest_texts(repository, oids):
        try:
            yield oid, parse_manifest(text)
        except ManifestError as error:
            yield oid, error


def is_raw(repository: Repository, oids: Iterable[str]) -> set[str]:
    """Those of the blobs that are not empty and do not begin as a manifest."""
    sizes = blob_sizes(repository, oids)
    found = {oid for oid, _ in manifest_texts(repository, sizes)}
    return {oid for oid, length in sizes.items() if length and oid not in found}


def blobs_of(repository: Repository, revision: str) -> list[tuple[str, str]]:
    """The path, from the top, and blob of every regular file of a revision, in Git's order."""
    answer = repository.git("ls-tree", "-r", "-z", "--full-tree", revision)
    rows = []
    for line in answer.split(b"\0")[:-1]:
        fields, path = line.split(b"\t", 1)
        mode, _, oid = fields.decode("ascii").split()
        if mode.startswith("100"):
            rows.append((os.fsdecode(path), oid))
    return rows


def reachable_manifests(
    repository: Repository, revisions: Iterable[str] = ()
) -> Iterator[tuple[str, Manifest | ManifestError]]:
    """Every blob that begins as a manifest and that anything in the repository names.

    Args:
        repository: any, bare ones too.
        revisions: full object ids; only what these reach, if there are any.
    """
    named = list(revisions)
    sources = ["--stdin"]
    if not named:
        sources = ["--all", "--reflog", "--indexed-objects", "--stdin"]
        named = repository.revisions_in_progress()
    answer = repository.git(
        "rev-list", "--objects", "--no-object-names", "--ignore-missing", "--missing=print",
        *sources, stdin="".join(f"{name}\n" for name in named).encode(),
    )  # fmt: skip
    oids = [line for line in answer.decode().split() if not line.startswith("?")]
    yield from manifests(repository, oids)


def reachable_objects(
    repository: Repository, revisions: Iterable[str] = ()
) -> dict[str, UpdateRef]:
    """The objects, by id, that the readable ones of `reachable_manifests` need."""
    found: dict[str, UpdateRef] = {}
    for _, manifest in reachable_manifests(repository, revisions):
        if isinstance(manifest, Manifest):
            found.update((ref.oid, ref) for ref in manifest.objects())
    return found
