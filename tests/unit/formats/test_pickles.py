"""Plain, joblib and old PyTorch pickles: which arrays are found, and what hostile ones cost."""

import io
import pickle
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext import formats
from git_theta_ext.formats.base import Layout, Span
from git_theta_ext.formats.layout.source import BytesSource
from tests.scenarios.examples import rebuilt
from tests.scenarios.torchzip import Storage, legacy, state_dict, tensor


def read(data: bytes) -> Layout:
    layout = formats.read_layout(BytesSource(data))
    assert rebuilt(data, layout) == data
    return layout


def table(layout: Layout) -> dict[str, tuple[Any, ...]]:
    infos = [item.tensor for item in layout.segments if isinstance(item, Span)]
    return {info.name: (info.dtype.name, info.shape, info.order) for info in infos}


VALUE = {
    "a": np.arange(600, dtype="f4").reshape(20, 30),
    "deep": [{"f": np.asfortranarray(np.ones((3, 4)))}, 1, "x"],
    "u": np.arange(9, dtype="u2"),
    "names": np.array(["a", None], object),
    "scalar": np.float32(3),
    "big": np.arange(40_000, dtype=">i4"),
}
EXPECTED = {
    "a": ("F32", (20, 30), None),
    "deep.0.f": ("F64", (3, 4), (1, 0)),
    "u": ("U16", (9,), None),
}


def joblib_dump(value: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [*(pickle.dumps(VALUE, n) for n in (3, 4, 5)), joblib_dump(VALUE)],
    ids=["3", "4", "5", "joblib"],
)
def test_arrays_are_tensors(data: bytes) -> None:
    layout = read(data)
    assert layout.format == "pickle"
    found = table(layout)
    assert [found.pop(name) for name in EXPECTED] == list(EXPECTED.values())
    assert [item[:2] for item in found.values()] == [("U8", (160_000,))]


def test_a_shared_array_is_one_tensor() -> None:
    one = np.arange(100)
    layout = read(pickle.dumps({"x": one, "y": one}, 4))
    assert list(table(layout)) == ["x"]


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_arrays_as_text_are_opaque(protocol: int) -> None:
    assert read(pickle.dumps({"a": np.arange(100)}, protocol)).format == "opaque"


def test_old_pytorch_files_share_storages() -> None:
    first, second = Storage("94437", "FloatStorage", 6), Storage("123", "BFloat16Storage", 12)
    tied = tensor(first, (2, 3))
    value = state_dict({"w": tied, "tied": tied, "t": tensor(second, (3, 4), (1, 3))})
    layout = read(legacy(value, {"123": (12, bytes(24)), "94437": (6, bytes(24))}))
    assert layout.format == "torch-legacy"
    assert table(layout) == {"t": ("BF16", (3, 4), (1, 0)), "w": ("F32", (2, 3), None)}


@pytest.mark.parametrize("count", [5, 7, 1 << 62, (1 << 64) - 1])
def test_old_pytorch_files_that_lie_are_opaque(count: int) -> None:
    value = {"w": tensor(Storage("1", "FloatStorage", 6), (2, 3))}
    assert read(legacy(value, {"1": (count, bytes(24))})).format == "opaque"


HOSTILE = {
    "a byte string of 2^63": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "a string of 2 GiB": b"\x80\x02X\xff\xff\xff\x7f.",
    "no end": b"\x80\x04" + b"N" * 1000,
    "a line without an end": b"\x80\x04c" + b"a" * 200_000,
    "a memo index of 2^28": b"\x80\x04Nr\x00\x00\x00\x10.",
    "nested tuples": b"\x80\x04)" + b"\x85" * 100_000 + b".",
    "a list in itself": b"\x80\x04]\x94h\x00a.",
    "arrays in arrays": joblib_dump(np.array([1, None], object))[:-30] * 40,
    "a shape that overflows": pickle.dumps(np.arange(6).reshape(2, 3), 4).replace(
        b"K\x02K\x03\x86", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fM\xff\xff\x86"
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles(name: str) -> None:
    assert "weights" not in table(read(HOSTILE[name]))


@given(st.binary(max_size=60), st.sampled_from([b"\x80\x02", b"\x80\x04", b"\x80\x05"]))
@settings(deadline=None)
def test_any_bytes_come_back(tail: bytes, start: bytes) -> None:
    read(start + tail)
