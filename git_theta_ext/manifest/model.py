"""The manifest: what Git stores in place of a checkpoint.

`docs/manifest.md` is the normative grammar, and `manifest.text` reads and writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from git_theta_ext.core import limits
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut

VERSIONS = (1, 2)
"""Versions of the text that are read; the last one is written."""

LATEST = VERSIONS[-1]

HEADS = {
    1: b"git-theta manifest v1\n",
    2: (
        b"git-theta manifest v2\n"
        b"# This file stands for a checkpoint: "
        b"git-theta-ext, https://github.com/git-theta-ext/git-theta-ext\n"
        b"# To have the checkpoint: "
        b"pip install git-theta-ext && git theta install && git theta pull\n"
    ),
}
"""How a manifest of each version begins: what tells it from a checkpoint, and what it tells people.

The first line of all versions is alike, so that a program that is older than a version knows it as
one, and does not take it for a checkpoint.
"""

SHORTEST = min(map(len, HEADS.values()))
"""No file below this length is a manifest."""

MAX_BYTES = limits.MANIFEST_BYTES
"""Longest manifest that is read."""

HEAD_BYTES = 64
"""Enough of a file's beginning to tell a manifest, of any version."""

MAGIC = b"git-theta manifest v"
"""What the first line of every version begins with."""

_ANY_FIRST_LINE = re.compile(re.escape(MAGIC) + rb"([0-9]{1,9})\r?\n")


def is_manifest(head: bytes) -> bool:
    """Whether content that begins with `head` (64 bytes are enough) claims to be a manifest.

    True for versions not known here and for CR LF line ends too: `parse_manifest` refuses those
    with a message, whereas taking one for a checkpoint would lose the way to its tensors.
    """
    return _ANY_FIRST_LINE.match(head) is not None


def version_in(head: bytes) -> int:
    """The version that the first line of a manifest names, known here or not.

    Raises:
        ValueError: `is_manifest` says that it is none.
    """
    match = _ANY_FIRST_LINE.match(head)
    if match is None:
        raise ValueError(f"{head[:HEAD_BYTES]!r} is not how a manifest begins")
    return int(match[1])


Place = tuple[str, tuple[int, int] | None]
"""An object, and from which to which byte of it; None where all of it is meant."""


@dataclass(frozen=True, slots=True)
class UpdateRef:
    """One parameter file of a block's chain: its kind, where it is, and remarks.

    `oid` and `size` are id and length of the object that holds it. `part` says from which to which
    byte of that it lies, where the object holds more than this one: a pack of small ones.
    """

    kind: str
    oid: str
    size: int
    info: tuple[tuple[str, str], ...] = ()
    part: tuple[int, int] | None = None

    @property
    def place(self) -> Place:
        """Where it is: the object, and the part of it."""
        return self.oid, self.part

    def moved(self, to: UpdateRef) -> UpdateRef:
        """The same parameter file where another reference says that it is."""
        return replace(self, oid=to.oid, size=to.size, part=to.part)

    @property
    def nbytes(self) -> int:
        """Length of the parameter file itself."""
        return self.size if self.part is None else self.part[1] - self.part[0]


@dataclass(frozen=True, slots=True)
class Parent:
    """One of the versions that a merge is made of: its name (`base`, `ours`, ...) and its chain."""

    name: str
    chain: tuple[UpdateRef, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A block that is computed from other versions of it: the first link of a chain.

    `strategy` and `number` name the function (`updates/recipes`), `settings` what it needs to know,
    and `parents` are what it is given: `base` first, where there is one, then the sides.
    """

    strategy: str
    number: int
    settings: tuple[tuple[str, str], ...]
    parents: tuple[Parent, ...]

    kind = "merge"
    nbytes = 0

    @property
    def has_base(self) -> bool:
        """Whether the first parent is what the sides come from."""
        return self.parents[0].name == BASE

    @property
    def sides(self) -> tuple[str, ...]:
        """The names of the versions that were merged, without that of their base."""
        return tuple(one.name for one in self.parents if one.name != BASE)

    @property
    def info(self) -> tuple[tuple[str, str], ...]:
        """What is worth saying of it in a word or two."""
        return (("by", self.strategy),)


BASE = "base"
"""The name of the parent that all sides of a merge come from."""

Link = UpdateRef | Recipe
Chain = tuple[Link, ...]
"""What a block is made of: a dense parameter file or a recipe, then updates of what came before."""


def references(chain: Iterable[Link]) -> Iterator[UpdateRef]:
    """Every parameter file that a chain needs, those of a recipe's parents first."""
    for link in chain:
        if isinstance(link, Recipe):
            for parent in link.parents:
                yield from parent.chain
        else:
            yield link


@dataclass(frozen=True, slots=True)
class Block:
    """A block: the SHA-256 of its raw bytes and how to rebuild it.

    Either `inline` holds the bytes themselves (up to 64), or `chain` says what it is made of.
    """

    nbytes: int
    sha256: str
    chain: Chain = ()
    inline: bytes | None = None

    @property
    def held(self) -> int:
        """Bytes of all versions that are held at once while the block is rebuilt."""
        first = self.chain[0] if self.chain else None
        return self.nbytes * (1 + len(first.parents) if isinstance(first, Recipe) else 1)

    def objects(self) -> Iterator[UpdateRef]:
        """Every parameter file that the block needs."""
        return references(self.chain)


def stored_bytes(blocks: Iterable[Block]) -> int:
    """What some blocks take in the store, each parameter file once, in bytes."""
    refs = {ref.place: ref.nbytes for block in blocks for ref in block.objects()}
    return sum(refs.values())


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor and its blocks in file order; `opaque` where they are content-defined chunks.

    `runs` are the runs of rows that it was put together of, where it lies in several files, each
    cut into blocks by itself. Such an entry stands in no manifest that is written.
    """

    tensor: TensorInfo
    blocks: tuple[Block, ...]
    opaque: bool = False
    runs: tuple[TensorInfo, ...] = ()

    def specs(self) -> list[BlockSpec]:
        """What each block is, in file order."""
        if self.runs:
            return [spec for run in self.runs for spec in cut(run)]
        if self.opaque:
            return [BlockSpec(DTYPES["U8"], (block.nbytes,)) for block in self.blocks]
        return list(cut(self.tensor))

    def parts(self) -> list[tuple[BlockSpec, Block]]:
        """Each block with what it is, in file order."""
        return list(zip(self.specs(), self.blocks, strict=True))


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is needed to rebuild one checkpoint, tensors in natural order of their names.

    `version` is that of the text; two that say the same are equal, whatever their versions.
    """

    format: str
    skeleton: Block
    entries: tuple[Entry, ...]
    version: int = field(default=LATEST, compare=False)

    def by_name(self) -> dict[str, Entry]:
        """The entries by the names of their tensors, in order."""
        return {entry.tensor.name: entry for entry in self.entries}

    def objects(self) -> Iterator[UpdateRef]:
        """Every parameter file that the checkpoint needs (one may come more than once)."""
        yield from self.skeleton.objects()
        for entry in self.entries:
            for block in entry.blocks:
                yield from block.objects()


def version_of(entries: Iterable[Entry], sides: Iterable[Manifest]) -> int:
    """The version of a manifest that was put together of others.

    What only takes over what these have stays as new as they are, as in a text merge of them; what
    was made anew is written in the latest version.
    """
    sides = list(sides)
    tables = [side.by_name() for side in sides]
    for entry in entries:
        if not any(table.get(entry.tensor.name) == entry for table in tables):
            return LATEST
    return max((side.version for side in sides), default=LATEST)
