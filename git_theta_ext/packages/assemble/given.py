"""A tensor of the checkpoint that is assembled: which bytes of which tensors it is made of.

Nothing is read to say so. A tensor that is another one as it is keeps that one's blocks, under
whatever name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from git_theta_ext.checkpoints.exporting.outgoing import casts
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.manifest.model import Entry


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a tensor, from `start` to `stop`."""

    entry: Entry
    start: int
    stop: int

    @classmethod
    def whole(cls, entry: Entry) -> Piece:
        """All bytes of a tensor."""
        return cls(entry, 0, entry.tensor.nbytes)

    @property
    def is_whole(self) -> bool:
        """Whether these are all bytes of the tensor."""
        return self.start == 0 and self.stop == self.entry.tensor.nbytes

    @property
    def identity(self) -> tuple[object, ...]:
        """What the bytes are, by the hashes of the blocks that they lie in."""
        hashes = tuple(block.sha256 for block in self.entry.blocks)
        return self.start, self.stop, hashes


@dataclass(frozen=True, slots=True)
class Given:
    """What a part gives under a name: the bytes of pieces, one after the other, maybe cast.

    `info` is the tensor that is made; `dtype` names the element type of the pieces.
    """

    info: TensorInfo
    pieces: tuple[Piece, ...]
    dtype: str
    part: int = 0

    @classmethod
    def plain(cls, entry: Entry) -> Given:
        """A tensor as it is."""
        return cls(entry.tensor, (Piece.whole(entry),), entry.tensor.dtype.name)

    @property
    def name(self) -> str:
        """The name that it gets."""
        return self.info.name

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the tensors that it is made of, each once."""
        return tuple(dict.fromkeys(piece.entry.tensor.name for piece in self.pieces))

    @property
    def is_plain(self) -> bool:
        """Whether it is another tensor as it is, but for its name."""
        one = self.pieces[0]
        return (
            len(self.pieces) == 1
            and one.is_whole
            and replace(one.entry.tensor, name=self.name) == self.info
        )

    @property
    def entry(self) -> Entry:
        """The entry of a plain one: the blocks of the other under its name."""
        return replace(self.pieces[0].entry, tensor=self.info)

    @property
    def identity(self) -> tuple[object, ...]:
        """What it is, whatever its name: equal ones have the same bytes."""
        pieces = tuple(piece.identity for piece in self.pieces)
        return self.info.dtype.name, self.info.shape, self.info.order, self.dtype, pieces

    def named(self, name: str) -> Given:
        """The same under another name."""
        return self if name == self.name else replace(self, info=replace(self.info, name=name))

    def cast(self, dtype: str | None) -> Given:
        """The same in another element type, if it is cast at all; None leaves it as it is."""
        if dtype is None or not casts(self.info.dtype) or self.info.dtype.name == dtype:
            return self
        return replace(self, info=replace(self.info, dtype=DTYPES[dtype]))
