"""What a repository tracks: manifests, told from checkpoints that were committed as plain blobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from git_theta_ext.errors import ManifestError
from git_theta_ext.manifest import FIRST_LINE, Manifest
from git_theta_ext.repository import Repository

MANIFEST_LIMIT = 64 << 20
"""A larger blob is no manifest, and is not read to find out: 64 MiB list 400,000 blocks."""


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
    for oid, length in blob_sizes(repository, oids).items():
        if len(FIRST_LINE) <= length <= MANIFEST_LIMIT:
            text = repository.blob(oid)
            if text.startswith(FIRST_LINE):
                yield oid, text


def is_raw(repository: Repository, oids: Iterable[str]) -> set[str]:
    """Those of the blobs that are not empty and no manifests."""
    sizes = blob_sizes(repository, oids)
    manifests = {oid for oid, _ in manifest_texts(repository, sizes)}
    return {oid for oid, length in sizes.items() if length and oid not in manifests}


def parsed(text: bytes) -> Manifest | ManifestError:
    """A manifest, or why the text is none."""
    try:
        return Manifest.parse(text)
    except ManifestError as error:
        return error
