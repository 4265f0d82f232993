"""The manifest: the text that Git stores in place of a checkpoint.

`docs/manifest.md` is the normative grammar. A manifest has one legal encoding:
`Manifest.parse(text).to_bytes() == text` for every text that parses.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from git_theta_ext.tensors import TensorInfo

FIRST_LINE = b"git-theta manifest v1\n"
"""How every manifest begins; what tells it from a checkpoint."""


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


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is needed to rebuild one checkpoint, tensors in natural order of their names."""

    format: str
    skeleton: Block
    entries: tuple[Entry, ...]

    def objects(self) -> Iterator[UpdateRef]:
        """Every parameter file that the checkpoint needs (one may come more than once)."""
        yield from self.skeleton.chain
        for entry in self.entries:
            for block in entry.blocks:
                yield from block.chain

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(entry.tensor.nbytes for entry in self.entries)

    def to_bytes(self) -> bytes:
        """The text, in its one legal encoding."""
        lines = [FIRST_LINE.decode().rstrip("\n"), f"format {self.format}", "skeleton"]
        lines += _block_lines(f"U8 [{self.skeleton.nbytes}]", self.skeleton)
        for entry in self.entries:
            lines.append("")
            lines += _entry_lines(entry)
        return ("\n".join(lines) + "\n").encode("utf-8")

    @classmethod
    def parse(cls, text: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            ManifestError: it is not one, or not in the one legal encoding; names the line.
        """
        from git_theta_ext.manifest_parser import parse

        return parse(text)


def is_manifest(head: bytes) -> bool:
    """Whether a file that begins with these bytes claims to be a manifest."""
    return head.startswith(FIRST_LINE)


_DIGITS = re.compile(r"(\d+)", re.ASCII)


def natural_key(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sorts `layer.2` before `layer.10`: runs of digits compare as numbers, the rest as text.

    Names that differ only in leading zeros are told apart by the name itself, so the order is
    total.
    """
    parts = _DIGITS.split(name)
    key = ((int(part), "") if odd else (-1, part) for odd, part in _alternate(parts))
    return tuple(key), name


def _alternate(parts: Iterable[str]) -> Iterator[tuple[bool, str]]:
    for number, part in enumerate(parts):
        if part:
            yield number % 2 == 1 and len(part) <= 18, part


def quote(name: str) -> str:
    """A name as it stands in a manifest: bare, or in JSON's quotes where that could mislead."""
    plain = name.isprintable() and name == name.strip() and not name.startswith('"')
    return name if name and plain else json.dumps(name)


def tree_digest(blocks: Iterable[Block]) -> str:
    """One hash over an opaque entry's chunks, so that changes to two of them conflict as text."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(bytes.fromhex(block.sha256))
    return digest.hexdigest()


def has_one_block(entry: Entry) -> bool:
    """Whether an entry's only block stands on the line of its dtype and shape."""
    single = len(entry.blocks) == 1
    return single and (not entry.opaque or entry.blocks[0].inline is not None)


def _entry_lines(entry: Entry) -> list[str]:
    tensor = entry.tensor
    lines = [f"{'opaque' if entry.opaque else 'tensor'} {quote(tensor.name)}"]
    head = f"{tensor.dtype.name} [{', '.join(map(str, tensor.shape))}]"
    if tensor.order is not None:
        head += f" order={','.join(map(str, tensor.order))}"
    if has_one_block(entry):
        return lines + _block_lines(head, entry.blocks[0])
    lines.append(f"  {head} sha256:{tree_digest(entry.blocks)}" if entry.opaque else f"  {head}")
    for block in entry.blocks:
        lines += _block_lines(f"block {block.nbytes}", block)
    return lines


def _block_lines(head: str, block: Block) -> list[str]:
    if block.inline is not None:
        return [f"  {head} inline:{block.inline.hex()}"]
    lines = [f"  {head} sha256:{block.sha256}"]
    for ref in block.chain:
        info = "".join(f" {key}={value}" for key, value in ref.info)
        lines.append(f"  {ref.kind} sha256:{ref.oid} {ref.size}{info}")
    return lines
