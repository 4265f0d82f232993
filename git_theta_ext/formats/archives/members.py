"""Files that lie whole in an archive, each by the layout that it has alone.

Tensors are called `MEMBER/TENSOR`. An archive in an archive is bytes: so nothing recurses.
"""

from __future__ import annotations

from collections.abc import Sequence

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats import read_layout
from git_theta_ext.formats.base import (
    Layout,
    Literal,
    Segment,
    SerializationId,
    Source,
    Span,
)
from git_theta_ext.formats.layout import opaque
from git_theta_ext.formats.layout.nested import moved, unfolded
from git_theta_ext.formats.layout.places import segment_length
from git_theta_ext.formats.layout.source import PartSource
from git_theta_ext.formats.layout.storages import OPAQUE_BYTES, Piece
from git_theta_ext.formats.layout.tiles import Names


class Members:
    """The members of an archive: pieces of it, and the segments that lie in them."""

    def __init__(self, source: Source, *, summed: bool = False) -> None:
        """`source` is the whole archive; `summed` says that it has a CRC-32 of each member."""
        self._source = source
        self._summed = summed
        self.names = Names()
        self.pieces: list[Piece] = []
        self._inner: dict[str, list[Segment]] = {}
        self._aliases: dict[str, str] = {}
        self._ties: dict[str, TensorInfo | None] = {}
        self._remark = ""
        self._literal = self._count = 0
        self._known = 0

    def add(self, name: str, offset: int, length: int, *, plain: bool = True) -> None:
        """A member: by its layout, else as opaque bytes if it is long, else as structure.

        Args:
            name: its path in the archive.
            offset, length: where its bytes lie, in bytes.
            plain: whether they are the file's own, not compressed.

        Raises:
            BoundError: all members together are past a limit.
        """
        name = name.removeprefix("./")
        if not length or len(name) > limits.NAME_CHARS:
            return
        found = self._layout(offset, length) if plain else None
        if found is not None and found.format != opaque.NAME:
            self._known += 1
            self._nest(name, offset, length, found)
            return
        if found is not None and found.remark:
            self._remark = self._remark or f"{name}: {found.remark}"
        if length >= OPAQUE_BYTES:
            label = f"{name} ({'content' if plain else 'compressed'})"
            info = TensorInfo(self.names.free(label), DTYPES["U8"], (length,))
            self.pieces.append(Piece(offset, length, Span(info, opaque=True)))

    def _layout(self, offset: int, length: int) -> Layout:
        part = PartSource(self._source, offset, offset + length)
        return read_layout(part, archives=False)

    def _nest(self, name: str, offset: int, length: int, found: Layout) -> None:
        """A member whose tensors are told apart; its derived fields count from its own start."""
        new: dict[str, str] = {}

        def rename(inner: str) -> str:
            if inner not in new:
                new[inner] = self.names.free(f"{name}/{inner}")
            return new[inner]

        self._literal += sum(len(s.data) for s in found.segments if isinstance(s, Literal))
        self._count += len(found.segments)
        if self._literal > limits.STRUCTURE_BYTES or self._count > limits.SEGMENTS:
            raise BoundError(f"{self._literal} bytes of structure in its members")
        place = f"\0{len(self._inner)}"
        segments = found.segments
        if self._summed:
            segments = _without_ids(segments, PartSource(self._source, offset, offset + length))
        self._inner[place] = [moved(segment, 0, rename) for segment in segments]
        info = TensorInfo(place, DTYPES["U8"], (length,))
        self.pieces.append(Piece(offset, length, Span(info)))
        self._aliases |= {rename(alias): rename(of) for alias, of in found.aliases.items()}
        for tie, what in found.ties.items():
            self._ties[rename(tie)] = what
        self._remark = self._remark or (found.remark and f"{name}: {found.remark}")

    def layout(self, name: str, segments: Sequence[Segment]) -> Layout:
        """The layout of the archive, whose `segments` have the spans of `pieces` in them.

        Raises:
            FormatError: none of its members is a container.
        """
        if not self._known:
            raise FormatError(f"{name}: no member is a container of tensors")
        whole = unfolded(segments, self._inner)
        return Layout(name, tuple(whole), self._aliases, self._remark, ties=self._ties)


def _without_ids(segments: Sequence[Segment], source: Source) -> tuple[Segment, ...]:
    """The segments, PyTorch's serialization ids literal.

    A CRC of an archive of a CRC of it would depend on too much.
    """
    found: list[Segment] = []
    offset = 0
    for segment in segments:
        length = segment_length(segment)
        if isinstance(segment, SerializationId):
            segment = Literal(source.read(offset, length))
        found.append(segment)
        offset += length
    return tuple(found)
