"""Forged and damaged parameter files: an error of ours, or wrong values that the hash catches."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zstandard

from git_theta_ext.core.errors import CorruptObjectError, UnknownUpdateError
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.updates import get
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.parameter_file import build, parse

SPEC = BlockSpec(DTYPES["F32"], (200, 350))
VALUES = np.random.default_rng(0).standard_normal(70_000).astype(np.float32).view(np.uint32)
MOVED = VALUES + np.arange(70_000, dtype=np.uint32) % 7
TOUCHED = VALUES.copy()
TOUCHED[::9] += 3
DECAYED = VALUES - np.where(VALUES & 0x400000, np.uint32(5), np.uint32(3))
SCALED = (VALUES.view(np.float32) * np.float32(1.37)).view(np.uint32)
RANDOM = np.random.default_rng(2)
LEFT, RIGHT = (RANDOM.standard_normal(shape).astype(np.float32) for shape in ((200, 2), (2, 350)))
MERGED = (VALUES.view(np.float32) + (0.01 * LEFT @ RIGHT).ravel()).view(np.uint32)
NEW = {
    "dense": VALUES,
    "delta": MOVED,
    "sparse": TOUCHED,
    "step": DECAYED,
    "scale": SCALED,
    "low-rank": MERGED,
}


def file_of(kind: str) -> bytes:
    encoded = get(kind).encode(SPEC, NEW[kind], VALUES)
    assert encoded is not None
    return b"".join(encoded.pieces)


@pytest.mark.parametrize("kind", list(NEW))
def test_mutations_never_escape(kind: str) -> None:
    base, good = parse(file_of("dense")), file_of(kind)
    random = np.random.default_rng(1)
    refused = 0
    for _ in range(1500):
        data = bytearray(good)
        # Half of the mutations hit the header and the streams' beginnings, where the lies are.
        reach = min(2000, len(data)) if random.random() < 0.5 else len(data)
        for _ in range(int(random.integers(1, 4))):
            data[int(random.integers(0, reach))] = int(random.integers(0, 256))
        try:
            parameters = parse(bytes(data))
            chain = [base, parameters] if get(kind).needs_base else [parameters]
            found = decode_chain(SPEC, chain)
        except (CorruptObjectError, UnknownUpdateError):
            refused += 1
            continue
        assert found.nbytes == SPEC.nbytes
    assert refused > 50


@pytest.mark.parametrize("kind", list(NEW))
def test_truncations_are_refused(kind: str) -> None:
    good = file_of(kind)
    for length in [*range(0, min(600, len(good)), 7), len(good) // 2, len(good) - 1]:
        with pytest.raises(CorruptObjectError):
            parse(good[:length])


def test_a_header_that_claims_too_much() -> None:
    with pytest.raises(CorruptObjectError, match="claims"):
        parse((1 << 60).to_bytes(8, "little") + b"{}")


def test_extents_that_are_no_integers_are_not_multiplied() -> None:
    # A text times a number is a text as long as the number says: of gigabytes, or a MemoryError.
    for extents in (["x", 1 << 60], [[0], 1 << 60], [1.5], [True]):
        part = {"data_offsets": [0, 1], "dtype": "U8", "shape": extents}
        header = {"__metadata__": {"theta": '{"kind":"dense","v":1}'}, "data": part}
        text = json.dumps(header).encode()
        with pytest.raises(CorruptObjectError, match="'data' has an extent that is no integer"):
            parse(len(text).to_bytes(8, "little") + text + b"?")


def test_a_pack_is_no_parameter_file_and_no_plug_in_is_asked_for() -> None:
    with pytest.raises(CorruptObjectError, match="a pack"):
        parse(b"".join(build("pack", {}, {"0": b"x"})))


def test_a_bomb_is_refused_before_anything_is_allocated() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(300 << 20))
    pieces = build("dense", {"coder": "zstd"}, {"data": bomb})
    with pytest.raises(CorruptObjectError, match="does not hold"):
        decode_chain(BlockSpec(DTYPES["U8"], (1000,)), [parse(b"".join(pieces))])


def test_a_patch_cannot_ask_for_gigabytes() -> None:
    base = parse(
        b"".join(Dense().encode(BlockSpec(DTYPES["U8"], (3,)), np.zeros(3, np.uint8)).pieces)
    )
    for size in (1 << 40, -1, 1.5, "9", None):
        patch = build("patch", {"coder": "zstd", "size": size}, {"data": b"x"})
        with pytest.raises(CorruptObjectError):
            decode_chain(BlockSpec(DTYPES["U8"], (9,)), [base, parse(b"".join(patch))])


def test_pcodec_streams_of_other_types_and_lengths_are_refused() -> None:
    from pcodec import ChunkConfig, standalone

    base = parse(file_of("dense"))
    for numbers in (
        np.zeros(70_000, np.uint64) + 5,
        np.zeros(70_000, np.uint16) + 5,
        np.ones(65_535, np.uint32),
        np.ones(65_537, np.uint32),
        np.ones(10_000_000, np.uint32),
    ):
        stream = bytes(standalone.simple_compress(numbers, ChunkConfig()))
        lengths = np.array([len(stream), 0], np.uint32)
        forged = build("delta", {"coder": "pco"}, {"data": stream, "lengths": lengths})
        with pytest.raises(CorruptObjectError):
            decode_chain(SPEC, [base, parse(b"".join(forged))])


def test_an_update_at_the_wrong_place() -> None:
    dense, delta = parse(file_of("dense")), parse(file_of("delta"))
    for chain in ([delta], [dense, dense], []):
        with pytest.raises(CorruptObjectError):
            decode_chain(SPEC, chain)


def test_an_unknown_kind_names_the_known_ones() -> None:
    pieces = build("telepathy", {}, {})
    with pytest.raises(UnknownUpdateError, match=r"telepathy.*dense, delta, patch"):
        decode_chain(SPEC, [parse(b"".join(pieces))])


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["data"].update(data_offsets=[0, 99]),
        lambda header: header["data"].update(shape=[-4]),
        lambda header: header["data"].update(shape=[1 << 62, 1 << 62]),
        lambda header: header["data"].update(dtype="F99"),
        lambda header: header.pop("__metadata__"),
        lambda header: header["__metadata__"].update(theta="[]"),
        lambda header: header["__metadata__"].update(theta='{"kind": 3, "v": 1}'),
        lambda header: header["__metadata__"].update(theta='{"kind": "dense", "v": 2}'),
    ],
)
def test_lying_headers(change: object) -> None:
    data = b"".join(build("dense", {"coder": "raw"}, {"data": b"1234"}))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)  # type: ignore[operator]
    text = json.dumps(header).encode()
    with pytest.raises(CorruptObjectError):
        parse(len(text).to_bytes(8, "little") + text + data[8 + length :])
