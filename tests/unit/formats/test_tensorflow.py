"""TensorFlow Lite models; TensorFlow's checkpoints and ONNX' external data by their neighbours."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext import formats
from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats import companions
from git_theta_ext.formats.base import Layout, Source, Span
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.tensorflow import checkpoint, crc32c, leveldb_table, tflite
from tests.scenarios.containers import crc32c as slow_crc32c
from tests.scenarios.containers import onnx, sorted_table, tagged
from tests.scenarios.containers import tensorflow as written
from tests.scenarios.containers import tflite as model

VALUES = np.arange(600, dtype=np.float32).reshape(20, 30)
DATA = "variables.data-00000-of-00001"
ARRAYS = {"dense/kernel": VALUES, "dense/bias": np.ones(30), "step": np.array(7, np.int64)}


def described(layout: Layout) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        s.tensor.name: (s.tensor.dtype.name, s.tensor.shape)
        for s in layout.segments
        if isinstance(s, Span)
    }


# -- TensorFlow Lite -------------------------------------------------------------------------------


def lite() -> bytes:
    return model(
        {
            "conv": (0, (4, 5), bytes(80), False),
            "codes": (9, (6, 2), bytes(12), True),
            "plain": (9, (12,), bytes(12), False),
            "bias": (2, (3,), bytes(12), True),
            "packed": (17, (4, 4), bytes(8), True),
            "sparse": (0, (9, 9), bytes(20), False),
        },
        {"tied": "conv"},
    )


def test_buffers_of_a_model() -> None:
    layout = formats.read_layout(BytesSource(lite()))
    assert layout.format == "tflite"
    assert described(layout) == {
        "conv": ("F32", (4, 5)),
        "codes": ("QI8", (6, 2)),
        "plain": ("I8", (12,)),
        "bias": ("QI32", (3,)),
        "packed": ("U8", (8,)),
        "sparse": ("U8", (20,)),
    }
    assert layout.aliases == {"tied": "conv"}


def test_names_that_come_twice_are_numbered_with_their_aliases() -> None:
    tensors = {"a": (0, (1,), bytes(4), False), "b": (0, (2,), bytes(8), False)}
    data = model(tensors, {"c": "b"}).replace(b"\1\0\0\0b\0", b"\1\0\0\0a\0")
    layout = formats.read_layout(BytesSource(data))
    assert described(layout) == {"a": ("F32", (1,)), "a#2": ("F32", (2,))}
    assert layout.aliases == {"c": "a#2"}


@pytest.mark.parametrize("at", [0, 32, 40, 44])
def test_offsets_that_lead_away_are_refused(at: int) -> None:
    data = bytearray(lite())
    data[at : at + 4] = b"\xf0\xff\xff\xff"
    with pytest.raises(FormatError):
        tflite.layout(BytesSource(bytes(data)))


def test_models_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FLATBUFFER_STEPS", 50)
    with pytest.raises(FormatError, match="more than 50 steps"):
        tflite.layout(BytesSource(lite()))


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_models_come_back(draw: st.DataObject) -> None:
    data = bytearray(lite())
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(8, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    del data[draw.draw(st.integers(20, len(data))) :]
    formats.check(formats.read_layout(BytesSource(bytes(data))), len(data))


# -- CRC-32C and tables ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 9, 1000, 20_000, 70_001, 200_000])
def test_the_checksum_is_that_of_the_plain_loop(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    assert crc32c.crc32c(BytesSource(b"xy" + data), 2, size) == slow_crc32c(data)
    assert crc32c.crc32c(BytesSource(b"123456789"), 0, 9) == 0xE3069283


def test_the_checksum_of_several_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 256, 100_003, np.uint8).tobytes()
    monkeypatch.setattr(crc32c, "_SLICE_BYTES", 30_000)
    assert crc32c.crc32c(BytesSource(data), 0, len(data)) == slow_crc32c(data)


def test_keys_and_values_of_a_table() -> None:
    pairs = {f"layer/{n}/kernel".encode(): bytes([n]) * n for n in range(30)} | {b"": b"header"}
    assert dict(leveldb_table.entries(BytesSource(sorted_table(pairs)))) == pairs


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_damaged_tables_are_refused_or_read(draw: st.DataObject) -> None:
    data = bytearray(sorted_table({f"key{n}".encode(): b"value" for n in range(9)}))
    data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        assert len(dict(leveldb_table.entries(BytesSource(bytes(data))))) <= 9
    except FormatError:
        pass


# -- neighbours ------------------------------------------------------------------------------------


def beside(data: bytes, path: str, files: dict[str, bytes]) -> Layout | None:
    def opened(name: str) -> Source | None:
        return BytesSource(files[name]) if name in files else None

    return companions.read_layout(BytesSource(data), path, opened)


def test_tensors_of_a_checkpoint() -> None:
    data, index = written(ARRAYS, b"some text")
    layout = beside(data, DATA, {"variables.index": index})
    assert layout is not None
    assert layout.format == "tensorflow"
    assert described(layout) == {
        "dense/kernel": ("F32", (20, 30)),
        "dense/bias": ("F64", (30,)),
        "step": ("I64", ()),
    }


def test_long_texts_of_a_checkpoint_are_opaque() -> None:
    data, index = written(ARRAYS, bytes(1 << 20))
    layout = beside(data, DATA, {"variables.index": index})
    assert layout is not None
    assert described(layout)["(content)"] == ("U8", (1 << 20,))


def test_what_does_not_fit_is_not_believed() -> None:
    data, index = written(ARRAYS)
    other, _ = written({**ARRAYS, "dense/bias": np.zeros(30)})
    assert beside(other, DATA, {"variables.index": index}) is None
    assert beside(data[:-1], DATA, {"variables.index": index}) is None
    assert beside(data, "variables.data-00000-of-00002", {"variables.index": index}) is None
    assert beside(data, DATA, {}) is None
    assert beside(data, DATA, {"variables.index": b"nonsense"}) is None
    assert beside(data, "weights.bin", {"variables.index": index}) is None
    with pytest.raises(FormatError, match="not the name"):
        checkpoint.layout_beside(BytesSource(data), "weights.bin", BytesSource(index))


def external(*tensors: tuple[str, int, int]) -> bytes:
    made = b""
    for name, count, offset in tensors:
        pairs = {"location": "model.onnx.data", "offset": str(offset), "length": str(4 * count)}
        made += tagged(5, tagged(1, count) + tagged(2, 1) + tagged(8, name.encode()) + b"".join(
            tagged(13, tagged(1, key.encode()) + tagged(2, value.encode()))
            for key, value in pairs.items()
        ) + tagged(14, 1))  # fmt: skip
    return onnx({}) + tagged(7, made)


def test_external_data_of_a_model() -> None:
    data = struct.pack("<5f", *range(5))
    files = {"model.onnx": external(("a", 2, 0), ("b", 3, 8))}
    layout = beside(data, "model.onnx.data", files)
    assert layout is not None
    assert layout.format == "onnx-data"
    assert described(layout) == {"a": ("F32", (2,)), "b": ("F32", (3,))}
    assert beside(data + b"0", "model.onnx.data", files) is None
    assert beside(data, "other.onnx.data", {"other.onnx": files["model.onnx"]}) is None


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.binary(max_size=12), st.binary(max_size=60), max_size=6))
def test_any_index_is_refused_or_fits(pairs: dict[bytes, bytes]) -> None:
    data, _ = written(ARRAYS)
    layout = beside(data, DATA, {"variables.index": sorted_table(pairs)})
    if layout is not None:
        formats.check(layout, len(data))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_model_beside_external_data(draw: st.DataObject) -> None:
    model_file = bytearray(external(("a", 2, 0), ("b", 3, 8)))
    model_file[draw.draw(st.integers(0, len(model_file) - 1))] ^= draw.draw(st.integers(1, 255))
    data = struct.pack("<5f", *range(5))
    layout = beside(data, "model.onnx.data", {"model.onnx": bytes(model_file)})
    if layout is not None:
        formats.check(layout, len(data))


def test_a_block_that_is_named_again_and_again_is_read_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be megabytes long, hold nothing, and be checked each time."""
    table = sorted_table({b"key%03d" % n: b"value" for n in range(100)}, per_block=1)
    monkeypatch.setattr(limits, "TABLE_BYTES", 5000)
    assert len(dict(leveldb_table.entries(BytesSource(table)))) == 100
    monkeypatch.setattr(limits, "TABLE_BYTES", 2000)
    with pytest.raises(BoundError, match="more than 2000 bytes of"):
        list(leveldb_table.entries(BytesSource(table)))


def test_an_index_past_a_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    table = sorted_table({b"key%03d" % n: b"" for n in range(100)})
    monkeypatch.setattr(limits, "TABLE_BYTES", 99)
    found = companions.read_layout(
        BytesSource(bytes(8)), "m.data-00000-of-00001", lambda name: BytesSource(table)
    )
    assert found is not None
    assert (found.format, "more than 99 bytes of" in found.remark) == ("opaque", True)
