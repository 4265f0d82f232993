"""Which model it is, by its tensors alone: whoever published it, under whatever name and file.

A tensor's identity is the SHA-256 of one line, a model's the SHA-256 of all of its lines, sorted:

    NAME <tab> DTYPE <tab> SHAPE <tab> BLOCK DIGESTS

NAME is written as in a manifest (`core.names.quote`), so that no name can begin a second line.
SHAPE is joined by `x`; a tensor that does not lie row-major in memory has `:` and the order of its
axes after it. The digests are those of the blocks' raw bytes, joined by spaces. All of it stands in
the manifest: no object is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from git_theta_ext.core.names import quote
from git_theta_ext.manifest.model import Entry, Manifest


def line_of(entry: Entry) -> str:
    """All that a tensor is, on one line of ASCII with a line feed."""
    info = entry.tensor
    shape = "x".join(map(str, info.shape))
    if info.order is not None:
        shape += ":" + "x".join(map(str, info.order))
    digests = " ".join(block.sha256 for block in entry.blocks)
    return f"{quote(info.name)}\t{info.dtype.name}\t{shape}\t{digests}\n"


def identity_of(manifests: Iterable[Manifest]) -> str:
    """The identity of a model in one file or in several: a SHA-256 in hexadecimal.

    However it is cut into shards: a tensor that two of them hold alike counts once.
    """
    lines = {line_of(entry) for manifest in manifests for entry in manifest.entries}
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line.encode("ascii"))
    return digest.hexdigest()


def tensors_of(manifests: Iterable[Manifest]) -> dict[str, str]:
    """The identity of each tensor by its name: a SHA-256 in hexadecimal.

    Of a name that two shards hold differently, the one of the later shard.
    """
    return {
        entry.tensor.name: hashlib.sha256(line_of(entry).encode("ascii")).hexdigest()
        for manifest in manifests
        for entry in manifest.entries
    }
