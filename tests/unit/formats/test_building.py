"""New files from tensors: other libraries read them, and they are split into the same tensors."""

from __future__ import annotations

import io
import zipfile
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load as load_safetensors

from git_theta_ext import formats
from git_theta_ext.checkpoints.write import ArraysSource, describe
from git_theta_ext.core.errors import FormatError, UsageError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats import npy, safetensors
from git_theta_ext.formats.base import Crc32, Layout, Literal, Span
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.zips import archive as zip
from git_theta_ext.formats.zips.build import Member, archive

Arrays = Mapping[str, NDArray[Any]]
ARRAYS = {
    "layer.0.weight": np.arange(600, dtype=np.float32).reshape(20, 30),
    "layer.0.bias": np.arange(30, dtype=np.float16),
    "steps": np.array([1, 2, 3], np.int64),
    "grüße": np.ones((2, 1, 3)),
}


def written(container: str, arrays: Arrays, metadata: Mapping[str, str] | None = None) -> bytes:
    source = ArraysSource(arrays, metadata or {}, container)
    return source.read(0, source.size)


def spans(data: bytes) -> dict[str, TensorInfo]:
    layout = formats.read_layout(BytesSource(data))
    return {s.tensor.name: s.tensor for s in layout.segments if isinstance(s, Span)}


@pytest.mark.parametrize(
    ("container", "name"),
    [("safetensors", "safetensors"), ("pt", "torch-zip"), ("npz", "npz"), ("gguf", "gguf")],
)
def test_what_is_made_is_split_into_the_same_tensors(container: str, name: str) -> None:
    data = written(container, ARRAYS)
    layout = formats.read_layout(BytesSource(data))
    assert layout.format == name
    assert spans(data) == {key: describe(key, array) for key, array in ARRAYS.items()}
    derived = sum(isinstance(segment, Crc32) for segment in layout.segments)
    assert derived == (8 if container in ("pt", "npz") else 0)


def test_numpy_reads_npz() -> None:
    arrays = {
        **ARRAYS,
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 4)),
        "flag": np.array([True]),
    }
    with np.load(io.BytesIO(written("npz", arrays)), allow_pickle=False) as found:
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)


def test_the_headers_of_arrays_are_numpys_own() -> None:
    for array in (
        np.zeros((3, 4), "<f4"),
        np.zeros(7, "?"),
        np.array(1.0),
        np.zeros((2, 3, 4), "u1"),
    ):
        stream = io.BytesIO()
        np.save(stream, array)
        expected = stream.getvalue()[: len(stream.getvalue()) - array.nbytes]
        assert npy.header(describe("a", array)) == expected
    stream = io.BytesIO()
    np.save(stream, np.asfortranarray(np.zeros((3, 5))))
    info = TensorInfo("a", DTYPES["F64"], (3, 5), (1, 0))
    assert stream.getvalue().startswith(npy.header(info))


def test_the_library_reads_safetensors() -> None:
    found = load_safetensors(written("safetensors", ARRAYS, {"a": "b"}))
    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


def test_zip_archives_are_sound() -> None:
    for container in ("pt", "npz"):
        with zipfile.ZipFile(io.BytesIO(written(container, ARRAYS))) as made:
            assert made.testzip() is None


def test_storages_are_aligned_and_strides_kept() -> None:
    info = TensorInfo("w", DTYPES["F32"], (4, 6), (1, 0))
    layout = formats.build("pt", {"w": info})
    data = b"".join(
        s.data if isinstance(s, Literal) else bytes(4 if isinstance(s, Crc32) else s.tensor.nbytes)
        for s in layout.segments
        if isinstance(s, Literal | Crc32 | Span)
    )
    found = spans(data)["w"]
    assert (found.shape, found.order) == ((4, 6), (1, 0))
    for entry in zip.read_entries(BytesSource(data)):
        assert entry.data_offset % 64 == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"])
def test_extended_types(dtype: str) -> None:
    arrays = {"w": np.arange(12).reshape(3, 4).astype(getattr(ml_dtypes, dtype))}
    for container in ("safetensors", "pt"):
        assert spans(written(container, arrays)) == {"w": describe("w", arrays["w"])}
    with pytest.raises(UsageError, match=f"ml_dtypes.{dtype}"):
        written("npz", arrays)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e8m0fnu"])
def test_types_of_ml_dtypes_are_saved_as_numpy_saves_them(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(getattr(ml_dtypes, dtype))
    info = describe("w", array)
    for one, order in ((array, None), (np.asfortranarray(array), (1, 0))):
        stream = io.BytesIO()
        np.save(stream, one)
        assert stream.getvalue().startswith(npy.header(replace(info, order=order)))


def built(container: str, *infos: TensorInfo, model: Layout | None = None) -> Layout:
    return formats.build(container, {info.name: info for info in infos}, model)


@pytest.mark.parametrize("name", ["F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "C64"])
def test_every_type_of_the_specification(name: str) -> None:
    info = TensorInfo("w", DTYPES[name], (2, 4))
    layout = built("safetensors", info)
    header = layout.segments[0]
    assert isinstance(header, Literal)
    data = header.data + bytes(info.nbytes)
    assert spans(data) == {"w": info}
    assert set(load_names(data)) == {"w"}


def load_names(data: bytes) -> list[str]:
    """The names that the library itself finds."""
    from safetensors import deserialize

    return [name for name, _ in deserialize(data)]


@pytest.mark.parametrize(
    ("container", "info", "message"),
    [
        ("safetensors", TensorInfo("w", DTYPES["C128"], (2,)), "no element type C128"),
        ("safetensors", TensorInfo("w", DTYPES["F4"], (3,)), "end in a byte"),
        ("pt", TensorInfo("w", DTYPES["F4"], (2,)), "torch has no element type F4"),
        ("gguf", TensorInfo("w", DTYPES["U16"], (2,)), "no element type U16"),
        ("gguf", TensorInfo("w", DTYPES["F32"], (1,) * 5), "5 axes"),
        ("npz", TensorInfo("w", DTYPES["F32"], (2, 3, 4), (1, 0, 2)), "cannot tell"),
    ],
)
def test_what_a_container_cannot_hold(container: str, info: TensorInfo, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        built(container, info)


def test_unknown_containers_are_refused() -> None:
    with pytest.raises(UsageError, match="known: safetensors, pt, npz, gguf"):
        formats.build("tar", {})


def test_quantised_tensors_keep_their_types_and_key_values() -> None:
    from tests.scenarios.containers import gguf

    pairs = [
        ("general.name", 8, b"\3" + bytes(7) + b"abc"),
        ("general.alignment", 4, b"\x40\0\0\0"),
    ]
    data = gguf({"q": (12, (3, 512), bytes(864)), "w": (0, (5, 7), bytes(140))}, pairs)
    model = formats.read_layout(BytesSource(data[:28] + data[28:]))
    info = TensorInfo("q", DTYPES["U8"], (3, 2, 144))
    header = built("gguf", info, model=model).segments[0]
    assert isinstance(header, Literal)
    assert spans(header.data + bytes(864)) == {"q": info}
    assert b"general.name" in header.data
    assert b"general.alignment" not in header.data
    with pytest.raises(FormatError, match="no element type U8"):
        built("gguf", info)


class _Hollow:
    """A layout as a file whose tensors are zeros: of any length, without the memory."""

    def __init__(self, layout: tuple[Any, ...]) -> None:
        self._starts: list[int] = []
        self._data: list[bytes] = []
        self.size = 0
        for segment in layout:
            literal = isinstance(segment, Literal)
            self._starts.append(self.size)
            self._data.append(segment.data if literal else b"")
            length = 4 if isinstance(segment, Crc32) else 0
            self.size += len(segment.data) if literal else length or segment.tensor.nbytes

    def read(self, offset: int, length: int) -> bytes:
        found = bytearray(length)
        at = bisect_right(self._starts, offset) - 1
        while at < len(self._starts) and self._starts[at] < offset + length:
            start, data = self._starts[at], self._data[at]
            first, stop = max(offset, start), min(offset + length, start + len(data))
            if first < stop:
                found[first - offset : stop - offset] = data[first - start : stop - start]
            at += 1
        return bytes(found)


def test_entries_above_4_gib() -> None:
    large = TensorInfo("l", DTYPES["F32"], (1300, 1 << 20))
    members = [Member("a", [Span(large)]), Member("b", [Literal(b"later")]), Member("c", [])]
    entries = zip.read_entries(_Hollow(archive(members, 64)))
    assert [(entry.name, entry.size) for entry in entries] == [
        ("a", large.nbytes),
        ("b", 5),
        ("c", 0),
    ]
    many = zip.read_entries(_Hollow(archive([Member(str(n), []) for n in range(70_000)])))
    assert len(many) == 70_000


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda name: not set("/\\.") & set(name)  # no name of a member of an archive
)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        names,
        st.tuples(
            st.sampled_from(["f4", "f8", "i4", "f2", "i1"]),
            st.lists(st.integers(1, 5), max_size=4),
        ),
        max_size=6,
    ),
    st.sampled_from(["safetensors", "pt", "npz", "gguf"]),
)
def test_any_tensors_come_back(shapes: dict[str, tuple[str, list[int]]], container: str) -> None:
    arrays = {name: np.ones(shape, kind) for name, (kind, shape) in shapes.items()}
    found = formats.build(container, {name: describe(name, a) for name, a in arrays.items()})
    formats.check(found, ArraysSource(arrays, {}, container).size)
    if arrays and container == "safetensors":
        assert safetensors.metadata(found) == {}
    if container != "gguf" or arrays:
        expected = {name: array.shape for name, array in arrays.items()}
        made = spans(written(container, arrays))
        assert {name: info.shape for name, info in made.items() if name in expected} == expected
