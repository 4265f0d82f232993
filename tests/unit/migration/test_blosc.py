"""Chunks of Blosc: those that TensorStore wrote, and those that mean harm."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.core.errors import FormatError
from git_theta_ext.migration.others.blosc import lz4, unpacked
from git_theta_ext.migration.others.old_arrays import applied
from git_theta_ext.migration.others.old_arrays import unpacked as arrays_of

LZ4, ZLIB, ZSTD = 1 << 5, 3 << 5, 4 << 5
WHOLE = 16


def chunk(raw: bytes, width: int, codec: int, packed: bytes, shuffled: int = 1) -> bytes:
    """One block that is not split."""
    body = struct.pack("<II", 20, len(packed)) + packed
    head = struct.pack("<BBBBIII", 2, 1, codec | WHOLE | shuffled, width, len(raw), len(raw),
                       16 + len(body))  # fmt: skip
    return head + body


def shuffled(raw: bytes, width: int) -> bytes:
    return np.frombuffer(raw, np.uint8).reshape(-1, width).T.tobytes()


def test_each_codec() -> None:
    raw = np.arange(1000, dtype="<f4").tobytes()
    bytes_of = shuffled(raw, 4)
    packed = {ZLIB: zlib.compress(bytes_of), ZSTD: zstandard.compress(bytes_of)}
    for codec, data in packed.items():
        assert unpacked(chunk(raw, 4, codec, data), 4000) == raw
    with pytest.raises(FormatError, match="codec"):
        unpacked(chunk(raw, 4, 0, packed[ZLIB]), 4000)
    with pytest.raises(FormatError, match="size"):
        unpacked(chunk(raw, 4, ZLIB, packed[ZLIB]), 3999)
    bits = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(-1, 4), axis=1, bitorder="little").T
    by_bit = np.packbits(bits, axis=1, bitorder="little").tobytes()
    assert unpacked(chunk(raw, 4, ZLIB, zlib.compress(by_bit), shuffled=4), 4000) == raw


def test_lz4_by_the_letter() -> None:
    """Literals, a match, one that overlaps itself, and lengths of more than fifteen."""
    long = b"\xf0" + bytes([5]) + b"x" * 20
    assert lz4(long, 20) == b"x" * 20
    assert lz4(b"\x1fa\x01\x00\x05\x00", 25) == b"a" * 25
    for bad in (b"\x1fa\x02\x00\x05\x00", b"\x1fa\x00\x00\x05\x00", b"\xff\xff", b"\x1fa\x01"):
        with pytest.raises(FormatError):
            lz4(bad, 25)
    with pytest.raises(FormatError):
        lz4(b"\x1fa\x01\x00" + b"\xff" * 50 + b"\x00", 25)


@given(st.binary(max_size=80))
def test_nothing_but_our_error(data: bytes) -> None:
    for raw in (data, chunk(bytes(64), 4, LZ4, data), b"\x81\xa1a" + data):
        for read in (lambda one: unpacked(one, 1 << 16), lambda one: arrays_of(one, 1 << 16)):
            try:
                read(raw)
            except FormatError:
                continue


def test_updates_as_git_theta_0_2_applies_them() -> None:
    before = np.ones((2, 3), np.float32)
    sparse = {"data": np.array([2.0], np.float32), "indices": np.array([4]),
              "indptr": np.array([0, 1]), "shape": np.array([2, 3])}  # fmt: skip
    assert applied("sparse", sparse, before).tolist() == [[1, 1, 1], [1, 3, 1]]
    factors = {"R": np.ones((2, 1), np.float32), "C": np.ones((1, 3), np.float32)}
    assert (applied("low-rank", factors, before) == 2).all()
    assert (applied("ia3", {"ia3": np.full((1, 3), 4, np.float32)}, before) == 4).all()
    for kind, update in (("sparse", factors), ("other", {}), ("low-rank", sparse)):
        with pytest.raises(FormatError):
            applied(kind, update, before)
