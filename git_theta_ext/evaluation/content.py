"""The identity of a checkpoint as results know it: the tensors, not the file, path or commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from git_theta_ext.manifest.model import Entry, Manifest

_KEPT = 1 << 16
"""Entries whose hashes are held."""


def content_of(manifests: Iterable[Manifest]) -> str:
    """The identity of a model: names, element types, shapes and values of all its tensors.

    A sharded model is one model however it is cut into files, and the header of a safetensors file
    says nothing about what it computes. In other containers what is beside the tensors may (the
    tokenizer of a GGUF file, the structure of a Keras model), so it counts there.

    Args:
        manifests: of the file, or of all shards.

    Returns:
        A SHA-256 in hexadecimal.
    """
    return Identities().of(manifests)


class Identities:
    """Identities of many versions; an entry that stood in another one is not hashed again."""

    def __init__(self) -> None:
        """Nothing has been hashed."""
        self._known: dict[int, tuple[Entry, bytes]] = {}

    def of(self, manifests: Iterable[Manifest]) -> str:
        """As `content_of`; quickest where one `Parser` has read all manifests."""
        parts: set[bytes] = set()
        for manifest in manifests:
            if manifest.format != "safetensors":
                parts.add(_hash(b"skeleton", manifest.format, manifest.skeleton.sha256))
            parts.update(map(self._tensor, manifest.entries))
        return hashlib.sha256(b"git-theta content v1\n" + b"".join(sorted(parts))).hexdigest()

    def _tensor(self, entry: Entry) -> bytes:
        known = self._known.get(id(entry))
        if known is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            # The entry is held, so that no other one gets its place in memory.
            known = self._known[id(entry)] = (entry, _tensor(entry))
        return known[1]


def _tensor(entry: Entry) -> bytes:
    info = entry.tensor
    shape = ",".join(map(str, info.shape))
    order = "" if info.order is None else ",".join(map(str, info.order))
    blocks = [block.sha256 for block in entry.blocks]
    return _hash(b"tensor", info.name, info.dtype.name, shape, order, *blocks)


def _hash(kind: bytes, *words: str) -> bytes:
    digest = hashlib.sha256(kind)
    for word in words:
        data = word.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()
