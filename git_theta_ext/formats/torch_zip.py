"""PyTorch's zip container: `torch.save` since 1.6, TorchScript archives and `torch.export`.

One folder holds `data.pkl` and a stored entry for each storage (`data/KEY`); TorchScript adds
`constants.pkl` with `constants/KEY`. The pickles say which tensor is which part of which storage.
Sources: torch/serialization.py and caffe2/serialize/inline_container.cc of PyTorch 2.13.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from git_theta_ext.errors import FormatError
from git_theta_ext.formats import pickle_machine
from git_theta_ext.formats.base import Crc32, Layout, Literal, Segment, SerializationId, Source
from git_theta_ext.formats.derived import CRC_BYTES, ID_BYTES
from git_theta_ext.formats.torch_names import View, find_views
from git_theta_ext.formats.torch_storages import Piece, Storage, tile
from git_theta_ext.formats.zip import STORED, Entry, read_entries

MAX_LITERAL_BYTES = 64 << 20
_LOCAL_MAGIC = b"PK\x03\x04"
_SERIALIZATION_ID = ".data/serialization_id"
_PICKLES = (("data.pkl", "data/", ()), ("constants.pkl", "constants/", ("constants",)))
"""Each pickle, the folder of its storages, and what its tensors' names begin with."""


NAME = "torch-zip"


def sniff(head: bytes, source: Source) -> bool:
    """A zip archive whose first entry lies in a folder."""
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(_LOCAL_MAGIC) and b"/" in head[30 : 30 + length]


def layout(source: Source) -> Layout:
    """Storages as the tensors that lie in them, CRCs derived, all else literal."""
    entries = read_entries(source)
    root = entries[0].name.split("/", 1)[0] + "/" if entries else ""
    members = {entry.name.removeprefix(root): entry for entry in entries}
    if "data.pkl" not in members or not all(entry.name.startswith(root) for entry in entries):
        raise FormatError("torch-zip: not one folder with a data.pkl")
    order = members.get("byteorder")
    if order is not None and _content(source, order) != b"little":
        raise FormatError("torch-zip: the tensors are not little-endian")
    storages, views = _storages(source, members)
    pieces, aliases = tile(storages, views)
    segments = _Assembly(source, entries, pieces, members.get(_SERIALIZATION_ID)).segments()
    return Layout(NAME, tuple(segments), aliases)


def _content(source: Source, entry: Entry) -> bytes:
    if entry.method != STORED or entry.size > MAX_LITERAL_BYTES:
        raise FormatError(f"torch-zip: entry {entry.name!r} is compressed or too large")
    return source.read(entry.data_offset, entry.size)


def _storages(source: Source, members: dict[str, Entry]) -> tuple[list[Storage], list[list[View]]]:
    """The storages in the order of the file, and the views of each."""
    storages: list[Storage] = []
    views: list[list[View]] = []
    for pickle, folder, prefix in _PICKLES:
        named = _views(source, members.get(pickle), prefix)
        for name, entry in members.items():
            key = name.removeprefix(folder)
            if not name.startswith(folder) or not key or "/" in key:
                continue
            if entry.method != STORED:
                raise FormatError(f"torch-zip: storage {name!r} is compressed")
            label = ".".join((*prefix, "storage", key))
            storages.append(Storage(label, entry.data_offset, entry.size))
            views.append(named.get(key, []))
    return storages, views


def _views(source: Source, entry: Entry | None, prefix: tuple[str, ...]) -> dict[str, list[View]]:
    """The views that a pickle describes, by storage; none if it is past the machine's limits.

    Its storages are then still split, only without the names of their tensors.
    """
    if entry is None:
        return {}
    by_key: dict[str, list[View]] = {}
    try:
        for view in find_views(pickle_machine.load(_content(source, entry)), prefix):
            by_key.setdefault(view.key, []).append(view)
    except FormatError:
        return {}
    return by_key


@dataclass(frozen=True, slots=True)
class _Field:
    """A derived field to be: the CRC-32 of entry `entry`, or the serialization id."""

    offset: int
    length: int
    entry: int | None


class _Assembly:
    """Pieces and fields sorted by offset, with literals in between."""

    def __init__(
        self, source: Source, entries: list[Entry], pieces: list[Piece], identity: Entry | None
    ) -> None:
        self.source = source
        self.entries = entries
        items: list[Piece | _Field] = list(pieces)
        starts = [entry.data_offset for entry in entries]
        changing = {bisect_right(starts, piece.offset) - 1 for piece in pieces if piece.length}
        # Zero is what PyTorch writes when told not to compute CRCs: not worth reading all data.
        changing = {index for index in changing if entries[index].crc}
        self.summed = set(changing)
        if identity is not None and identity.method == STORED and identity.size == 2 * ID_BYTES:
            items.append(_Field(identity.data_offset + ID_BYTES, ID_BYTES, None))
            changing.add(entries.index(identity))
        for index in changing:
            for offset in entries[index].crc_offsets:
                items.append(_Field(offset, CRC_BYTES, index))
        self.items = sorted(items, key=lambda item: (item.offset, item.length))
        bounds = ((item.data_offset, item.data_offset + item.size) for item in entries)
        self.cuts = sorted({cut for pair in bounds for cut in pair})
        self.changing = changing

    def segments(self) -> list[Segment]:
        """All segments; FormatError if there are too many literal bytes."""
        size = self.source.size
        literal = size - sum(item.length for item in self.items)
        if literal > MAX_LITERAL_BYTES:
            raise FormatError(
                f"torch-zip: {literal} bytes lie outside all storages; at most "
                f"{MAX_LITERAL_BYTES} are allowed"
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
            raise FormatError(f"torch-zip: two fields overlap at offset {stop}")
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
