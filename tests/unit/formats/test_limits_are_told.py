"""A file that is past a limit is opaque, and the remark names the limit."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from git_theta_ext import formats
from git_theta_ext.core import limits
from git_theta_ext.formats.layout.source import BytesSource
from tests.scenarios.hdf5_files import Hdf5


def hdf5(deep: int, width: int = 5) -> bytes:
    file = Hdf5()
    group = file.group([(b"data", file.dataset(64))])
    for _ in range(deep):
        group = file.group([(b"g" * width, group)])
    return file.finish(group)


def safetensors(length: int) -> bytes:
    header = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(length)
    return struct.pack("<Q", len(header)) + header + b"\0"


def texts(*counts: int) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(counts))
    pairs = (
        struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, n) + bytes(8 * n) for n in counts
    )
    return head + b"".join(pairs)


def coreml(count: int) -> bytes:
    out = bytearray(struct.pack("<2I", count, 2) + bytes(56))
    for _ in range(count):
        out += struct.pack("<2I2Q", 0xDEADBEEF, 1, 64, len(out) + 64) + bytes(40 + 64)
    return bytes(out)


def npy(length: int) -> bytes:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}".ljust(length)
    return b"\x93NUMPY\2\0" + struct.pack("<I", len(text)) + text + bytes(4)


def msgpack(deep: int) -> bytes:
    return b"\x81\xa1k" * deep + b"\x90"


CASES: dict[str, tuple[Callable[[], bytes], str, int, str]] = {
    "hdf5 groups": (lambda: hdf5(limits.HDF5_DEPTH + 1), "HDF5_DEPTH", 80, "groups deep"),
    "hdf5 names": (lambda: hdf5(20, 60_000), "HDF5_STEPS", 1 << 21, "steps"),
    "safetensors": (lambda: safetensors(5000), "JSON_HEADER_BYTES", 6000, "a header of more"),
    "gguf": (lambda: texts(400, 400, 300), "GGUF_ITEMS", 1100, "items of arrays"),
    "coreml": (lambda: coreml(9), "COREML_RECORDS", 9, "records"),
    "npy": (lambda: npy(5000), "NPY_HEADER_BYTES", 5000, "a header of 5000 bytes"),
    "msgpack": (lambda: msgpack(20), "MSGPACK_DEPTH", 30, "nested deeper"),
}
"""A file, the limit that it is past, a value of it that it is not past, and the remark."""
LOW = {"HDF5_STEPS": 10_000, "JSON_HEADER_BYTES": 4999, "GGUF_ITEMS": 1099, "COREML_RECORDS": 8,
       "NPY_HEADER_BYTES": 4999, "MSGPACK_DEPTH": 19}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_the_remark_names_the_limit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, limit, enough, said = CASES[kind]
    data = make()
    monkeypatch.setattr(limits, limit, enough)
    assert formats.read_layout(BytesSource(data)).remark == ""
    monkeypatch.setattr(limits, limit, LOW.get(limit, getattr(limits, limit) // 2))
    layout = formats.read_layout(BytesSource(data))
    assert layout.format == "opaque"
    assert said in layout.remark
