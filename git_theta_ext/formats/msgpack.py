"""msgpack with arrays: Flax's checkpoints, thinc's models (spaCy's), and msgpack-numpy's maps.

Flax has arrays as extension type 1, whose payload is itself msgpack: (shape, dtype name, row-major
bytes); one of over 1 GiB is a map with `chunks`, flat pieces that are tensors of their own here.
msgpack-numpy, which thinc uses, has a map of `nd`, `type`, `kind`, `shape` and `data`. Sources:
flax/serialization.py (`_ndarray_to_bytes`, `_chunk`), srsly/msgpack/_msgpack_numpy.py
(`encode_numpy`), thinc/model.py (`Model.to_dict`), and the msgpack specification.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats import npy
from git_theta_ext.formats.base import Layout, Source, Span
from git_theta_ext.formats.layout.storages import OPAQUE_BYTES, Piece
from git_theta_ext.formats.layout.tiles import assemble
from git_theta_ext.formats.layout.views import unique_names
from git_theta_ext.formats.torch.names import DTYPES_BY_NAME

NAME = "msgpack"
_WINDOW_BYTES = 1 << 16
_NDARRAY = 1
_NUMPY = ("nd", "type", "kind", "shape", "data")
"""Keys of the map that is an array, in the order in which msgpack-numpy writes them."""
_BYTE_ORDERS = ("<", ">", "|", "=")
_OF_NODES = ("params", "attrs", "shims")
_LAYER_NAME_BYTES = 40
_WIDTHS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xCA: 4, 0xCB: 8,
           0xC0: 0, 0xC2: 0, 0xC3: 0}  # fmt: skip
"""Bytes that follow the tag of a number, nil or boolean."""
_LENGTHS = {0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4), 0xC4: ("bin", 1),
            0xC5: ("bin", 2), 0xC6: ("bin", 4), 0xC7: ("ext", 1), 0xC8: ("ext", 2),
            0xC9: ("ext", 4), 0xDC: ("array", 2), 0xDD: ("array", 4), 0xDE: ("map", 2),
            0xDF: ("map", 4)}  # fmt: skip
"""Kind of the value and width of its length, for tags that a length follows."""


def sniff(head: bytes, source: Source) -> bool:
    """A map that is not empty and whose first key is a string."""
    if not head:
        return False
    at = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x81 <= head[0] <= 0x8F else 0)
    return 0 < at < len(head) and (0xA0 <= head[at] <= 0xBF or head[at] in (0xD9, 0xDA))


@dataclass(slots=True)
class _Frame:
    """An open map or array: what is left in it, and the key of what comes next."""

    left: int
    is_map: bool
    index: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class _Array:
    path: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def layout(source: Source) -> Layout:
    """Arrays as tensors, named by their keys joined by dots.

    Raises:
        FormatError: damaged, past a limit, or without any array.
    """
    reader = _Reader(source)
    arrays = list(_walk(reader))
    if reader.position != source.size:
        raise FormatError(f"msgpack, offset {reader.position}: bytes follow the top value")
    if not arrays:
        raise FormatError("msgpack: no arrays")
    names = unique_names([_called(item.path, reader.nodes) for item in arrays])
    pieces = [_piece(name, item) for name, item in zip(names, arrays, strict=True)]
    return Layout(NAME, assemble(source, pieces))


def _called(path: tuple[str, ...], nodes: Mapping[str, str]) -> tuple[str, ...]:
    """The keys that an array is named by: of thinc, its layer's number and name, its own name.

    thinc writes a list of its layers (`nodes`) before the lists of what belongs to each: `params`,
    which hold nearly all arrays, `attrs` and `shims`.
    """
    if len(path) < 2 or path[1] not in nodes or path[0] not in _OF_NODES:
        return path
    head = () if path[0] == _OF_NODES[0] else path[:1]
    return (*head, path[1], nodes[path[1]], *path[2:])


def _piece(name: str, item: _Array) -> Piece:
    info = None
    if item.dtype[:1] in _BYTE_ORDERS:
        info = npy.tensor_of(name, item.dtype, False, item.shape, item.offset)
    elif known := DTYPES.get(DTYPES_BY_NAME.get(item.dtype, "")):
        info = TensorInfo(name, known, item.shape)
    if info is None:
        raw = TensorInfo(name, DTYPES["U8"], (item.length,))
        return Piece(item.offset, item.length, Span(raw, opaque=True))
    if info.nbytes != item.length:
        raise FormatError(
            f"msgpack, offset {item.offset}: tensor {name!r} of {item.dtype} {list(item.shape)} "
            f"takes {info.nbytes} bytes, {item.length} are stored"
        )
    return Piece(item.offset, item.length, Span(info))


def _walk(reader: _Reader) -> Iterator[_Array]:
    """Every array below the top value, in the order of the file; nothing recurses."""
    frames: list[_Frame] = []
    for _ in range(limits.MSGPACK_VALUES):
        frame = frames[-1] if frames else None
        if frame is not None:
            frame.key = reader.key() if frame.is_map else str(frame.index)
            frame.index += 1
            frame.left -= 1
        kind, length = reader.tag()
        if kind == "map" and length == len(_NUMPY) and reader.follows(_NUMPY[0]):
            yield _numpy(reader, tuple(item.key for item in frames))
        elif kind in ("map", "array"):
            if len(frames) >= limits.MSGPACK_DEPTH:
                raise BoundError(reader.error(f"nested deeper than {limits.MSGPACK_DEPTH}").message)
            frames.append(_Frame(length, kind == "map"))
        elif kind == "ext":
            yield from _extension(reader, length, tuple(item.key for item in frames))
        else:
            yield from _plain(reader, kind, length, [item.key for item in frames])
        while frames and not frames[-1].left:
            frames.pop()
        if not frames:
            return
    raise BoundError(reader.error(f"more than {limits.MSGPACK_VALUES} values").message)


def _extension(reader: _Reader, length: int, path: tuple[str, ...]) -> Iterator[_Array]:
    """An extension value; an array if it is of Flax's type."""
    code = reader.take(1)[0]
    end = reader.position + length
    if code == _NDARRAY:
        reader.expect("array", 3)
        shape = reader.extents()
        dtype = reader.key()
        kind, size = reader.tag()
        if kind != "bin" or reader.position + size != end:
            raise reader.error(f"an array whose {size} bytes do not end at {end}")
        yield _Array(path, dtype, shape, reader.position, size)
    reader.skip(end - reader.position)


def _numpy(reader: _Reader, path: tuple[str, ...]) -> _Array:
    """An array of msgpack-numpy, of which the first key is the next to be read."""
    found: dict[str, str] = {}
    shape: tuple[int, ...] = ()
    offset = size = 0
    for expected in _NUMPY:
        if reader.key() != expected:
            raise reader.error(f"an array without {expected!r}")
        if expected == "shape":
            shape = reader.extents()
        elif expected == "data":
            kind, size = reader.tag()
            if kind not in ("str", "bin"):
                raise reader.error("an array without bytes")
            offset = reader.position
            reader.skip(size)
        elif expected == "nd":
            reader.take(1)
        else:
            found[expected] = reader.key()
    # Structured arrays (kind V) list their fields instead of an element type: those end above.
    return _Array(path, found["type"], shape, offset, size)


def _plain(reader: _Reader, kind: str, length: int, path: list[str]) -> Iterator[_Array]:
    """Any other value: a long string of bytes is kept apart; thinc's names of layers are noted."""
    at = reader.position
    if kind == "str" and len(path) == 3 and (path[0], path[2]) == ("nodes", "name"):
        # Of a layer that joins others the name is a sentence. It has no parameters of its own.
        if length <= _LAYER_NAME_BYTES:
            reader.nodes[path[1]] = reader.take(length).decode("utf-8", "replace")
            return
        reader.nodes[path[1]] = "joined"
    reader.skip(length)
    if reader.nodes and length >= OPAQUE_BYTES:
        yield _Array(tuple(path), "", (), at, length)


class _Reader:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.nodes: dict[str, str] = {}
        """Names of thinc's layers by their numbers; none in other files."""
        self.position = 0
        self.start = 0
        self.window = b""

    def error(self, what: str) -> FormatError:
        return FormatError(f"msgpack, offset {self.position}: {what}")

    def skip(self, length: int) -> None:
        left = self.source.size - self.position
        if not 0 <= length <= left:
            raise self.error(f"{length} bytes announced, {left} left")
        self.position += length

    def take(self, length: int) -> bytes:
        at = self.position
        self.skip(length)
        if not self.start <= at <= self.position <= self.start + len(self.window):
            self.start = at
            self.window = self.source.read(at, min(_WINDOW_BYTES, self.source.size - at))
        return self.window[at - self.start : self.position - self.start]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def tag(self) -> tuple[str, int]:
        """Kind and length of the next value; of a plain one, the bytes that follow the tag."""
        tag = self.take(1)[0]
        if tag in _WIDTHS:
            return "plain", _WIDTHS[tag]
        if tag in _LENGTHS:
            kind, width = _LENGTHS[tag]
            return kind, self.number(width)
        if 0xD4 <= tag <= 0xD8:
            return "ext", 1 << tag - 0xD4
        if tag < 0x80 or tag >= 0xE0:
            return "plain", 0
        if tag < 0x90:
            return "map", tag & 15
        if tag < 0xA0:
            return "array", tag & 15
        if tag < 0xC0:
            return "str", tag & 31
        raise self.error(f"0x{tag:02x} is no tag")

    def expect(self, kind: str, length: int) -> None:
        if self.tag() != (kind, length):
            raise self.error(f"not a value of kind {kind} and length {length}")

    def follows(self, key: str) -> bool:
        """Whether the next value is this key; it is not taken."""
        at = self.position
        left = min(len(key) + 2, self.source.size - at)
        found = self.take(left)
        self.position = at
        word = key.encode()
        heads = (b"\xc4%c" % len(word), b"%c" % (0xA0 | len(word)))
        return found.startswith(tuple(head + word for head in heads))

    def extents(self) -> tuple[int, ...]:
        kind, rank = self.tag()
        if kind != "array" or rank > limits.AXES:
            raise self.error("an array without a shape")
        return tuple(self.natural() for _ in range(rank))

    def natural(self) -> int:
        tag = self.take(1)[0]
        if tag < 0x80:
            return tag
        if not 0xCC <= tag <= 0xCF:
            raise self.error("an extent that is not a natural number")
        return self.number(_WIDTHS[tag])

    def key(self) -> str:
        kind, length = self.tag()
        if kind not in ("str", "bin") or length > limits.MSGPACK_KEY_BYTES:
            raise self.error(
                f"a key that is not a string of up to {limits.MSGPACK_KEY_BYTES} bytes"
            )
        return self.take(length).decode("utf-8", "backslashreplace")
