"""Builds PyTorch zip archives by hand, byte by byte, without PyTorch.

Pickles are written from plain values and the records below in the opcodes that `torch.save` uses
(protocol 2, everything memoized); the archive has its paddings, descriptors and end records.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Global:
    """A class or function."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Call:
    """REDUCE (or NEWOBJ) of a function on arguments, then SETITEMS and BUILD."""

    function: Any
    args: tuple[Any, ...] = ()
    pairs: Mapping[Any, Any] | None = None
    state: Any = None
    new: bool = False


@dataclass(frozen=True, eq=False)
class Storage:
    """A persistent id of `torch.save`."""

    key: str
    kind: str = "FloatStorage"
    count: int = 0
    module: str = "torch"


def dumps(value: Any) -> bytes:
    """The pickle of plain values and records, with shared objects memoized."""
    memo: dict[int, int] = {}
    keep: list[Any] = []

    def emit(item: Any) -> bytes:
        if item is None or isinstance(item, bool | int | float | str | bytes):
            body = pickle.dumps(item, 2)[2:-1]  # without protocol and STOP
            return body.split(b"q\x00")[0] if isinstance(item, str) else body
        if id(item) in memo:
            return b"j" + struct.pack("<I", memo[id(item)])
        if isinstance(item, Storage):
            kind = Global(item.module, item.kind)
            return emit(("storage", kind, item.key, "cpu", item.count)) + b"Q"
        late = b""
        if isinstance(item, Global):
            early = f"c{item.module}\n{item.name}\n".encode()
        elif isinstance(item, tuple):
            early = b"(" + b"".join(map(emit, item)) + b"t"
        elif isinstance(item, list):
            early, late = b"]", b"(" + b"".join(map(emit, item)) + b"e"
        elif isinstance(item, dict):
            early, late = b"}", pairs(item)
        elif isinstance(item, Call):
            early = emit(item.function) + emit(item.args) + (b"\x81" if item.new else b"R")
            late = pairs(item.pairs) if item.pairs else b""
            late += emit(item.state) + b"b" if item.state is not None else b""
        else:
            raise TypeError(type(item))
        memo[id(item)] = len(memo)
        keep.append(item)
        return early + b"r" + struct.pack("<I", memo[id(item)]) + late

    def pairs(items: Mapping[Any, Any]) -> bytes:
        return b"(" + b"".join(emit(key) + emit(item) for key, item in items.items()) + b"u"

    return b"\x80\x02" + emit(value) + b"."


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides, in elements."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(1, size)
    return tuple(reversed(strides))


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
ORDERED = Global("collections", "OrderedDict")


def tensor(
    storage: Storage,
    shape: Sequence[int],
    stride: Sequence[int] | None = None,
    offset: int = 0,
) -> Call:
    """A tensor over a storage."""
    strides = contiguous(shape) if stride is None else tuple(stride)
    return Call(REBUILD, (storage, offset, tuple(shape), strides, False, Call(ORDERED)))


def state_dict(tensors: Mapping[str, Any]) -> Call:
    """An OrderedDict with a `_metadata` attribute, as modules make it."""
    return Call(ORDERED, (), tensors, {"_metadata": Call(ORDERED, (), {"": {"version": 1}})})


@dataclass
class Record:
    """An entry; `crc` overrides the true CRC-32."""

    name: str
    data: bytes
    crc: int | None = None
    flags: int = 0x808
    method: int = 0
    wide: bool = False


def fold(crcs: Sequence[int]) -> bytes:
    """The digits that PyTorch makes of the CRCs of all entries that are not empty."""
    value = 0
    for crc in crcs:
        value ^= (crc + 0x9E3779B9 + (value << 6) + (value >> 2)) % 2**64
    return str(value).zfill(20).encode()


def archive(records: Sequence[Record], *, zip64_end: bool = True, prefix: bytes = b"") -> bytes:
    """A zip archive in the style of PyTorch's writer: data at multiples of 64, descriptors."""
    out, directory = bytearray(prefix), bytearray()
    for record in records:
        name, length = record.name.encode(), len(record.data)
        crc = zlib.crc32(record.data) if record.crc is None else record.crc
        start = len(out)
        padding = -(start + 30 + len(name) + 4) % 64
        extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
        sizes = (0xFFFFFFFF,) * 2 if record.wide else (length, length)
        extra64 = struct.pack("<2H2Q", 1, 16, length, length) if record.wide else b""
        described = record.flags & 8 and length
        local = (0, 0, 0) if described else (crc, *sizes)
        out += struct.pack(
            "<4s5H3I2H", b"PK\x03\x04", 0, record.flags, record.method, 0, 0, *local,
            len(name), len(extra) if described or not record.wide else len(extra64),
        )  # fmt: skip
        out += name + (extra if described or not record.wide else extra64) + record.data
        if described:
            width = "<2Q" if record.wide else "<2I"
            out += b"PK\x07\x08" + struct.pack("<I", crc) + struct.pack(width, length, length)
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 0, 0, record.flags, record.method, 0, 0, crc, *sizes,
            len(name), len(extra64), 0, 0, 0, 0, start,
        )  # fmt: skip
        directory += name + extra64
    at, count = len(out), len(records)
    out += directory
    if zip64_end:
        end = len(out)
        size = len(directory)
        out += struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 30, 45, 0, 0, count, count, size, at)
        out += struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    out += struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), at, 0)
    return bytes(out)


def save(
    value: Any,
    storages: Mapping[str, bytes],
    *,
    root: str = "archive",
    extra: Sequence[Record] = (),
    wide: bool = False,
    zip64_end: bool = True,
) -> bytes:
    """What `torch.save(value)` writes, the values of `storages` being their bytes."""
    data = value if isinstance(value, bytes) else dumps(value)
    records = [Record(f"{root}/data.pkl", data), Record(f"{root}/byteorder", b"little")]
    records += [Record(f"{root}/data/{key}", body, wide=wide) for key, body in storages.items()]
    records += [Record(f"{root}/{item.name}", item.data, item.crc) for item in extra]
    records.append(Record(f"{root}/version", b"3\n"))
    crcs = [zlib.crc32(item.data) for item in records if item.data]
    identity = b"01234567890123456789" + fold(crcs)
    records.append(Record(f"{root}/.data/serialization_id", identity))
    return archive(records, zip64_end=zip64_end)


def legacy(value: Any, storages: Mapping[str, tuple[int, bytes]]) -> bytes:
    """What `torch.save(value)` wrote before 1.6; each storage with the count that it claims."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    out = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps(system, 2)
    out += dumps(value) + pickle.dumps(list(storages), 2)
    for count, data in storages.values():
        out += struct.pack("<Q", count) + data
    return out
