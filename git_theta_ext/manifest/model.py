"""The manifest: what Git stores in place of a checkpoint.

`docs/manifest.md` is the normative grammar, and `manifest.text` reads and writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut

FIRST_LINE = b"git-theta manifest v1\n"
"""How every manifest begins; what tells it from a checkpoint."""


MAX_BYTES = limits.MANIFEST_BYTES
"""Longest manifest that is read."""

HEAD_BYTES = 64
"""Enough of a file's beginning to tell a manifest, of any version."""

_ANY_FIRST_LINE = re.compile(rb"git-theta manifest v[0-9]{1,9}\r?\n")


def is_manifest(head: bytes) -> bool:
    """Whether content that begins with `head` (64 bytes are enough) claims to be a manifest.

    True for versions not known here and for CR LF line ends too: `parse_manifest` refuses those
    with a message, whereas taking one for a checkpoint would lose the way to its tensors.
    """
    return _ANY_FIRST_LINE.match(head) is not None


@dataclass(frozen=True, slots=True)
class UpdateRef:
    """One parameter file of a block's chain: its kind, its LFS object id and size, and remarks."""

    kind: str
    oid: str
    size: int
    info: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """A block: the SHA-256 of its raw bytes and how to rebuild it.

    Either `inline` holds the bytes themselves (up to 64), or `chain` lists the parameter files,
    the base first and each update applied to what came before.
    """

    nbytes: int
    sha256: str
    chain: tuple[UpdateRef, ...] = ()
    inline: bytes | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor and its blocks in file order; `opaque` where they are content-defined chunks."""

    tensor: TensorInfo
    blocks: tuple[Block, ...]
    opaque: bool = False

    def specs(self) -> list[BlockSpec]:
        """What each block is, in file order."""
        if self.opaque:
            return [BlockSpec(DTYPES["U8"], (block.nbytes,)) for block in self.blocks]
        return list(cut(self.tensor))

    def parts(self) -> list[tuple[BlockSpec, Block]]:
        """Each block with what it is, in file order."""
        return list(zip(self.specs(), self.blocks, strict=True))


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is needed to rebuild one checkpoint, tensors in natural order of their names."""

    format: str
    skeleton: Block
    entries: tuple[Entry, ...]

    def by_name(self) -> dict[str, Entry]:
        """The entries by the names of their tensors, in order."""
        return {entry.tensor.name: entry for entry in self.entries}

    def objects(self) -> Iterator[UpdateRef]:
        """Every parameter file that the checkpoint needs (one may come more than once)."""
        yield from self.skeleton.chain
        for entry in self.entries:
            for block in entry.blocks:
                yield from block.chain
