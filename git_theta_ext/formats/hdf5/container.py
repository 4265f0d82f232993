"""HDF5: datasets as tensors, named by their paths (Keras' `.h5` and `.weights.h5`, and others).

Contiguous datasets are one tensor; so are chunked ones whose chunks are whole rows, side by side.
Other chunks are `PATH.chunks.N`; compressed ones are bytes of unknown meaning. Strings, records and
big-endian numbers are U8 with one more axis for the bytes of an item. Values that are addresses
within the file (references, strings of varying length) and compact datasets stay literal.
Source: "HDF5 File Format Specification Version 3.0", sections IV.A.2.b, d, i and l.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Source, Span
from git_theta_ext.formats.hdf5.file import MAGIC, Hdf5File, Message
from git_theta_ext.formats.layout.storages import Piece
from git_theta_ext.formats.layout.tiles import Names, assemble, gaps

NAME = "hdf5"
_DATASPACE, _DATATYPE, _LAYOUT, _FILTERS = 0x01, 0x03, 0x08, 0x0B
_COMPACT, _CONTIGUOUS, _CHUNKED = 0, 1, 2
_CHUNK_NODE = 1
_MAX_AXES = 32
_SINGLE_CHUNK = 1
_OPAQUE_RUN = 4096
"""Shorter runs of compressed chunks stay literal."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a dataset's bytes are: kind of layout, address, and the shape of a chunk."""

    kind: int
    address: int
    chunk: tuple[int, ...] = ()
    single: bool = False
    """The address is that of the only chunk, not of an index of chunks."""


def sniff(head: bytes, source: Source) -> bool:
    """Whether the file begins as HDF5 does."""
    return head.startswith(MAGIC)


def layout(source: Source) -> Layout:
    """The datasets; all else is literal, or opaque where it is long."""
    pieces, aliases = read_pieces(source)
    return Layout(NAME, assemble(source, pieces), aliases)


def read_pieces(source: Source, prefix: str = "") -> tuple[list[Piece], Mapping[str, str]]:
    """Where the tensors of a file lie, and the further names of datasets that have several.

    Raises:
        FormatError: the structure is damaged or past a limit, or no dataset can be split.
    """
    file = Hdf5File(source)
    names = Names()
    pieces: list[Piece] = []
    aliases: dict[str, str] = {}
    known: dict[int, str] = {}
    for path, address, messages in file.datasets():
        name = prefix + path
        if address in known:
            aliases[name] = known[address]
            continue
        found = list(_Dataset(file, names, name, messages).pieces())
        if found:
            known[address] = found[0].span.tensor.name
        pieces += found
    if not any(not piece.span.opaque for piece in pieces):
        raise FormatError("hdf5: no dataset that can be split")
    pieces.sort(key=lambda piece: piece.offset)
    return [*pieces, *gaps(source, pieces, names, prefix)], aliases


class _Dataset:
    """One dataset, as its object header describes it."""

    def __init__(self, file: Hdf5File, names: Names, name: str, messages: list[Message]) -> None:
        self._file, self._names, self._name = file, names, name
        self._messages = {message.kind: message for message in messages}

    def pieces(self) -> Iterator[Piece]:
        """Its tensors; none where it has no bytes of its own or they mean addresses."""
        parts = [self._messages.get(kind) for kind in (_DATASPACE, _DATATYPE, _LAYOUT)]
        if any(part is None or part.shared for part in parts):
            return  # a committed datatype, or a named type and no dataset at all
        space, kind, where = (part.data for part in parts if part is not None)
        if min(len(space), len(kind), len(where)) < 4:
            raise FormatError(f"hdf5: the description of {self._name!r} is cut short")
        shape, place = self._shape(space), self._place(where)
        info = _tensor(self._name, kind, shape)
        if info is None or place is None or place.address == self._file.undefined:
            return
        if place.kind == _CONTIGUOUS and info.nbytes:
            yield self._piece(place.address, info)
        elif place.kind == _CHUNKED:
            yield from self._chunked(place, info, len(shape))

    def _piece(self, offset: int, info: TensorInfo) -> Piece:
        named = TensorInfo(self._names.free(info.name), info.dtype, info.shape)
        return Piece(offset, named.nbytes, Span(named))

    def _shape(self, data: bytes) -> tuple[int, ...]:
        version, axes = data[0], data[1]
        start = {1: 8, 2: 4}.get(version, 0)
        size = self._file.length_size
        if not start or axes > _MAX_AXES or start + axes * size > len(data):
            raise FormatError(f"hdf5: the shape of {self._name!r} cannot be read")
        if version == 2 and data[3] == 2:
            return (0,)  # a null dataspace: no elements
        return tuple(
            int.from_bytes(data[start + size * axis : start + size * (axis + 1)], "little")
            for axis in range(axes)
        )

    def _place(self, data: bytes) -> _Place | None:
        """Where the bytes are; None for what is not known here."""
        version, size = data[0], self._file.offset_size
        if version in (1, 2):
            axes, kind = data[1], data[2]
            if kind == _CONTIGUOUS:
                return _Place(kind, self._file.address(data, 8))
            chunk = _numbers(data, 8 + size, axes, 4)
            return _Place(kind, self._file.address(data, 8), chunk) if kind == _CHUNKED else None
        kind = data[1]
        if version in (3, 4) and kind == _CONTIGUOUS:
            return _Place(kind, self._file.address(data, 2))
        if version == 3 and kind == _CHUNKED:
            return _Place(kind, self._file.address(data, 3), _numbers(data, 3 + size, data[2], 4))
        if version == 4 and kind == _CHUNKED:
            flags, axes, width = data[2], data[3], int.from_bytes(data[4:5], "little")
            at = 5 + axes * width
            if flags & 2 or data[at : at + 1] != bytes([_SINGLE_CHUNK]):
                return None
            address = self._file.address(data, at + 1)
            return _Place(kind, address, _numbers(data, 5, axes, width), True)
        return None

    def _chunked(self, place: _Place, info: TensorInfo, axes: int) -> Iterator[Piece]:
        """Chunks: as whole rows one after another if they are that, else each for itself."""
        if len(place.chunk) != axes + 1 or 0 in place.chunk:
            raise FormatError(f"hdf5: the chunks of {self._name!r} have other axes than it has")
        shape = (*place.chunk[:-1], *info.shape[axes:])
        full = TensorInfo(self._name, info.dtype, shape)
        chunks = list(self._chunks(place, axes, full.nbytes))
        if chunks and self._filtered(chunks, full.nbytes):
            yield from self._compressed([(offset, length) for _, offset, length in chunks])
        elif _are_rows([(start, offset) for start, offset, _ in chunks], full, info):
            yield self._piece(chunks[0][1], info)
        else:
            for number, (_, offset, _) in enumerate(chunks):
                name = f"{self._name}.chunks.{number}"
                yield self._piece(offset, TensorInfo(name, full.dtype, full.shape))

    def _chunks(
        self, place: _Place, axes: int, nbytes: int
    ) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """Where each chunk begins in the array, its offset, and its length in the file."""
        if place.single:
            yield (0,) * axes, place.address, nbytes
            return
        for key, address in self._file.leaves(place.address, _CHUNK_NODE, 16 + 8 * axes):
            yield _numbers(key, 8, axes, 8), address, int.from_bytes(key[:4], "little")

    def _compressed(self, chunks: list[tuple[int, int]]) -> Iterator[Piece]:
        """Compressed chunks: neighbours together, as bytes of unknown meaning."""
        runs: list[tuple[int, int]] = []
        for offset, length in sorted(chunks):
            if runs and offset == sum(runs[-1]):
                runs[-1] = (runs[-1][0], runs[-1][1] + length)
            else:
                runs.append((offset, length))
        for offset, length in runs:
            if length >= _OPAQUE_RUN:
                label = self._names.free(f"{self._name} (compressed)")
                info = TensorInfo(label, DTYPES["U8"], (length,))
                yield Piece(offset, length, Span(info, opaque=True))

    def _filtered(self, chunks: list[tuple[tuple[int, ...], int, int]], nbytes: int) -> bool:
        message = self._messages.get(_FILTERS)
        return (message is not None and (message.shared or message.data[1:2] != b"\0")) or any(
            length != nbytes for _, _, length in chunks
        )


def _are_rows(
    chunks: list[tuple[tuple[int, ...], int]], full: TensorInfo, info: TensorInfo
) -> bool:
    """Whether chunks, one after another, are the very bytes of the array."""
    if not chunks or full.shape[1:] != info.shape[1:]:
        return False
    rows = full.shape[0] if full.shape else 1
    first = chunks[0][1]
    return len(chunks) * full.nbytes == info.nbytes and all(
        start[:1] == ((number * rows,) if start else ()) and offset == first + number * full.nbytes
        for number, (start, offset) in enumerate(chunks)
    )


def _numbers(data: bytes, at: int, count: int, width: int) -> tuple[int, ...]:
    if at + count * width > len(data) or count > _MAX_AXES + 1:
        raise FormatError("hdf5: a message is cut short")
    return tuple(
        int.from_bytes(data[at + width * n : at + width * (n + 1)], "little") for n in range(count)
    )


_FIXED, _FLOAT, _STRING, _BITS, _OPAQUE, _RECORD, _ENUM, _ARRAY = 0, 1, 3, 4, 5, 6, 8, 10
_FLOATS = {
    (2, 10, 5): "F16", (4, 23, 8): "F32", (8, 52, 11): "F64", (2, 7, 8): "BF16",
}  # fmt: skip
"""Bytes, bits of the mantissa, bits of the exponent."""


def _tensor(name: str, data: bytes, shape: tuple[int, ...]) -> TensorInfo | None:
    """The tensor that a datatype and a shape make; None where the values are addresses."""
    if len(data) < 8:
        raise FormatError(f"hdf5: the type of {name!r} is cut short")
    kind, flags, size = data[0] & 15, data[1], int.from_bytes(data[4:8], "little")
    if not size or prod(shape) >= 1 << 63:
        raise FormatError(f"hdf5: {name!r} is of {list(shape)} elements of {size} bytes")
    if kind == _FIXED and not flags & 1 and size in (1, 2, 4, 8):
        return TensorInfo(name, DTYPES[f"{'I' if flags & 8 else 'U'}{8 * size}"], shape)
    if kind == _FLOAT and not flags & 0x41 and len(data) >= 20:
        dtype = _FLOATS.get((size, data[15], data[13]))
        if dtype is not None:
            return TensorInfo(name, DTYPES[dtype], shape)
    if kind == _ENUM and data[8:9] and data[8] & 15 == _FIXED and size == 1:
        truth = data[1:3] == b"\2\0" and b"FALSE\0" in data and b"TRUE\0" in data
        return TensorInfo(name, DTYPES["BOOL" if truth else "U8"], shape)
    if kind == _RECORD and size in (8, 16) and _is_complex(data, size):
        return TensorInfo(name, DTYPES[f"C{8 * size}"], shape)
    if kind in (_FIXED, _FLOAT, _STRING, _BITS, _OPAQUE, _ENUM):
        return TensorInfo(name, DTYPES["U8"], (*shape, size))
    return None


def _is_complex(data: bytes, size: int) -> bool:
    """Whether a record is of two little-endian floats called `r` and `i`, as h5py writes one."""
    last = data[-20:]
    return (
        data[1:3] == b"\2\0"
        and data[8:10] == b"r\0"
        and b"i\0" in data[10:]
        and data.count(last) == 2
        and last[0] & 15 == _FLOAT
        and not last[1] & 0x41
        and int.from_bytes(last[4:8], "little") == size // 2
    )
