"""The layout of a zip archive whose entries hold tensors: CRC-32s derived, all else literal."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.base import Crc32, Literal, Segment, SerializationId, Source
from git_theta_ext.formats.layout.derived import CRC_BYTES, ID_BYTES
from git_theta_ext.formats.layout.storages import Piece
from git_theta_ext.formats.zips.archive import STORED, Entry


@dataclass(frozen=True, slots=True)
class _Field:
    """A derived field to be: the CRC-32 of entry `entry`, or the serialization id."""

    offset: int
    length: int
    entry: int | None


class Assembly:
    """Pieces and fields sorted by offset, with literals in between."""

    def __init__(
        self,
        source: Source,
        entries: list[Entry],
        pieces: list[Piece],
        identity: Entry | None = None,
    ) -> None:
        """`pieces` lie in stored entries; `identity` is the entry of PyTorch's serialization id."""
        self.source = source
        self.entries = entries
        items: list[Piece | _Field] = list(pieces)
        starts = [entry.data_offset for entry in entries]
        changing = {bisect_right(starts, piece.offset) - 1 for piece in pieces if piece.length}
        # Zero is what PyTorch writes when told not to compute CRCs: not worth reading all data.
        changing = {
            index for index in changing if entries[index].crc and entries[index].method == STORED
        }
        self.summed = set(changing)
        if identity is not None and identity.method == STORED and identity.size == 2 * ID_BYTES:
            items.append(_Field(identity.data_offset + ID_BYTES, ID_BYTES, None))
            changing.add(entries.index(identity))
        for index in changing:
            for offset in entries[index].crc_offsets:
                items.append(_Field(offset, CRC_BYTES, index))
        self.items = sorted(items, key=lambda item: (item.offset, item.length))
        bounds = ((item.data_offset, item.data_offset + item.compressed) for item in entries)
        self.cuts = sorted({cut for pair in bounds for cut in pair})
        self.changing = changing

    def segments(self) -> list[Segment]:
        """All segments; FormatError if there are too many literal bytes."""
        size = self.source.size
        literal = size - sum(item.length for item in self.items)
        if literal > limits.STRUCTURE_BYTES:
            raise BoundError(
                f"zip: {literal} bytes lie outside all tensors; at most "
                f"{limits.STRUCTURE_BYTES} are allowed"
            )
        parts: list[Segment | _Field] = []
        reached: dict[int, int] = {}
        position = 0
        for item in self.items:
            position = self._literals(parts, reached, position, item.offset)
            reached.setdefault(position, len(parts))
            parts.append(item if isinstance(item, _Field) else item.span)
            position += item.length
            if item.length:
                reached[position] = len(parts)
        self._literals(parts, reached, position, size)
        ranges = {index: self._range(reached, index) for index in self.changing}
        return [self._derive(part, ranges) if isinstance(part, _Field) else part for part in parts]

    def _literals(
        self, parts: list[Segment | _Field], reached: dict[int, int], start: int, stop: int
    ) -> int:
        """Literals from `start` to `stop`, cut where an entry that is summed begins or ends."""
        if start > stop:
            raise FormatError(f"zip: two fields overlap at offset {stop}")
        cuts = self.cuts[bisect_right(self.cuts, start) : bisect_left(self.cuts, stop)]
        for end in [*cuts, stop]:
            if end > start:
                reached.setdefault(start, len(parts))
                parts.append(Literal(self.source.read(start, end - start)))
                reached[end] = len(parts)
                start = end
        return stop

    def _range(self, reached: dict[int, int], index: int) -> tuple[int, int]:
        entry = self.entries[index]
        return reached[entry.data_offset], reached[entry.data_offset + entry.size]

    def _derive(self, part: _Field, ranges: dict[int, tuple[int, int]]) -> Segment:
        if part.entry is not None:
            return Crc32(*ranges[part.entry])
        crcs: list[tuple[int, int] | int] = []
        for index, entry in enumerate(self.entries):
            if entry.data_offset > part.offset:
                break
            inside = entry.data_offset <= part.offset < entry.data_offset + entry.size
            if entry.size and not inside:
                crcs.append(ranges[index] if index in self.summed else entry.crc)
        return SerializationId(tuple(crcs))
