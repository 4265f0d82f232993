"""HDF5 and Keras: datasets by path, whatever wrote them; damage and cycles are refused."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext import formats
from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.base import Crc32, Layout, Literal, Span
from git_theta_ext.formats.hdf5 import container
from git_theta_ext.formats.hdf5 import file as hdf5_file
from git_theta_ext.formats.layout.source import BytesSource
from tests.scenarios.containers import hdf5 as written
from tests.scenarios.containers import keras

KERNEL = np.arange(600, dtype=np.float32).reshape(20, 30)


def read(data: bytes) -> Layout:
    return formats.read_layout(BytesSource(data))


def values(data: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Dtype, shape and bytes of every tensor that is no opaque span."""
    found, position = {}, 0
    for segment in read(data).segments:
        length = (
            len(segment.data) if isinstance(segment, Literal)
            else segment.tensor.nbytes if isinstance(segment, Span)
            else 4
        )  # fmt: skip
        if isinstance(segment, Span) and not segment.opaque:
            info = segment.tensor
            found[info.name] = (info.dtype.name, info.shape, data[position : position + length])
        position += length
    return found


@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (KERNEL, ("F32", (20, 30))),
        (np.arange(9, dtype="<f2"), ("F16", (9,))),
        (np.arange(9, dtype="<f8"), ("F64", (9,))),
        (np.arange(9, dtype="<u2"), ("U16", (9,))),
        (np.arange(9, dtype="<i8"), ("I64", (9,))),
        (np.arange(9, dtype="<c8"), ("C64", (9,))),
        (np.arange(9, dtype="<c16"), ("C128", (9,))),
        (np.array([True, False]), ("BOOL", (2,))),
        (np.array(7, np.int64), ("I64", ())),
        (np.arange(6, dtype=">f4").reshape(2, 3), ("U8", (2, 3, 4))),
        (np.array([b"ab", b"cde"]), ("U8", (2, 3))),
    ],
)
def test_datasets_of_every_type(
    array: np.ndarray, expected: tuple[str, tuple[int, ...]], libver: str
) -> None:
    data = written({"layer/dense/value:0": array, "other": KERNEL}, libver=libver)
    assert values(data)["layer/dense/value:0"] == (*expected, array.tobytes())


@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
def test_many_groups_and_datasets(libver: str) -> None:
    arrays = {f"block_{n}/layer_{m}/w": np.full((3, n + 1), m) for n in range(12) for m in range(9)}
    data = written(arrays, libver=libver)
    assert {name: found[2] for name, found in values(data).items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }
    deep = written({"/".join("abcdefghijklmnop"): KERNEL})
    assert values(deep)["a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p"][2] == KERNEL.tobytes()


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("count", [9, 100, 700, 5000])
def test_groups_of_thousands_have_trees_of_several_levels(count: int, libver: str) -> None:
    data = written({f"{'w' * (n % 40)}{n:05}": np.array([n]) for n in range(count)}, libver=libver)
    assert {name: found[2] for name, found in values(data).items()} == {
        f"{'w' * (n % 40)}{n:05}": np.array([n]).tobytes() for n in range(count)
    }


@pytest.mark.parametrize(
    ("chunks", "names"),
    [
        ((20, 30), ["w"]),
        ((5, 30), ["w"]),
        ((8, 30), ["w.chunks.0", "w.chunks.1", "w.chunks.2"]),
        ((10, 15), ["w.chunks.0", "w.chunks.1", "w.chunks.2", "w.chunks.3"]),
    ],
)
def test_chunked_datasets(chunks: tuple[int, int], names: list[str]) -> None:
    found = values(written({"w": KERNEL}, chunks=chunks))
    assert list(found) == names
    if names == ["w"]:
        assert found["w"] == ("F32", (20, 30), KERNEL.tobytes())
    else:
        assert {shape for _, shape, _ in found.values()} == {chunks}
        assert found["w.chunks.0"][2] == KERNEL[: chunks[0], : chunks[1]].tobytes()


def test_compressed_datasets_are_opaque() -> None:
    noise = np.random.default_rng(0).normal(size=(100, 100))
    layout = read(written({"gz": noise, "w": KERNEL}, compressed={"gz"}))
    spans = {s.tensor.name: s.opaque for s in layout.segments if isinstance(s, Span)}
    assert spans == {"gz (compressed)": True, "w": False}


def test_bytes_that_no_dataset_explains_are_opaque_where_they_are_long() -> None:
    noise = np.random.default_rng(0).normal(size=(600, 600))
    arrays = {"grid": noise, "w": np.ones(9)}
    layout = read(written(arrays, libver="latest", chunks=(64, 64)))
    spans = {s.tensor.name: s.opaque for s in layout.segments if isinstance(s, Span)}
    assert spans == {"w": False, "(content)": True}


def test_values_that_are_addresses_stay_literal() -> None:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["text"] = "varying"
        file["w"] = KERNEL
        file["refs"] = np.array([file["w"].ref], dtype=h5py.ref_dtype)
        kind = [("x", "<f4"), ("s", h5py.string_dtype())]
        file["records"] = np.array([(1.0, "a"), (2.0, "b")], kind)
    assert list(values(stream.getvalue())) == ["w"]


def test_hard_links_are_aliases_and_loops_are_entered_once() -> None:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["a/w"] = KERNEL
        file["tied"] = file["a/w"]
        file["a/up"] = file["/"]
        file["soft"] = h5py.SoftLink("/a/w")
    layout = read(stream.getvalue())
    assert [s.tensor.name for s in layout.segments if isinstance(s, Span)] == ["a/w"]
    assert layout.aliases == {"tied": "a/w"}


# -- Keras -----------------------------------------------------------------------------------------


def test_the_weights_of_a_keras_file() -> None:
    data = keras({"layers/dense/vars/0": KERNEL, "layers/dense/vars/1": np.ones(30, np.float32)})
    layout = read(data)
    assert layout.format == "keras"
    assert values(data)["layers/dense/vars/0"] == ("F32", (20, 30), KERNEL.tobytes())
    assert sum(isinstance(segment, Crc32) for segment in layout.segments) == 2


def test_deflated_weights_are_opaque() -> None:
    noise = np.random.default_rng(0).normal(size=5000)
    layout = read(keras({"w": noise}, zipfile.ZIP_DEFLATED))
    assert layout.format == "keras"
    assert [(s.tensor.name, s.opaque) for s in layout.segments if isinstance(s, Span)] == [
        ("model.weights.h5 (compressed)", True)
    ]


def test_damaged_weights_in_an_archive_are_opaque() -> None:
    layout = read(keras({"w": KERNEL}, weights=hdf5_file.MAGIC + bytes(5000)))
    assert [s.tensor.name for s in layout.segments if isinstance(s, Span)] == [
        "model.weights.h5 (content)"
    ]


# -- hostile ---------------------------------------------------------------------------------------


def patched(magic: bytes, at: int, value: bytes) -> bytes:
    data = written({"a/w": KERNEL, "b/w": KERNEL + 1})
    start = data.index(magic) + at
    return data[:start] + value + data[start + len(value) :]


LIES: dict[str, Callable[[], bytes]] = {
    "an unknown superblock": lambda: patched(b"\x89HDF", 8, b"\x09"),
    "offsets of 7 bytes": lambda: patched(b"\x89HDF", 13, b"\x07"),
    "a user block": lambda: patched(b"\x89HDF", 24, b"\x01"),
    "a root beyond the file": lambda: patched(b"\x89HDF", 64, b"\xff" * 4),
    "a tree that leads to itself": lambda: patched(
        b"TREE", 5, b"\x01\x01\x00" + b"\xff" * 24 + struct.pack("<Q", 136)
    ),
    "a tree of 255 levels": lambda: patched(b"TREE", 5, b"\xff"),
    "a tree of many children": lambda: patched(b"TREE", 6, b"\xff\xff"),
    "a heap of 2^63 bytes": lambda: patched(b"HEAP", 8, b"\xff" * 7 + b"\x7f"),
    "a symbol table of 65,535 names": lambda: patched(b"SNOD", 6, b"\xff\xff"),
    "names beyond the heap": lambda: patched(b"SNOD", 8, b"\xff\xff\xff"),
}


@pytest.mark.parametrize("name", LIES)
def test_lying_files_are_opaque(name: str) -> None:
    data = LIES[name]()
    with pytest.raises(FormatError):
        container.layout(BytesSource(data))
    assert read(data).format == "opaque"


def test_structures_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HDF5_STEPS", 100)
    with pytest.raises(FormatError, match="more than 100 steps"):
        container.layout(BytesSource(written({f"w{n}": KERNEL for n in range(100)})))
    monkeypatch.setattr(limits, "HDF5_DEPTH", 3)
    with pytest.raises(FormatError, match="3 groups deep"):
        container.layout(BytesSource(written({"a/b/c/d/e": KERNEL})))


@settings(deadline=None, max_examples=150)
@given(st.data(), st.sampled_from(["earliest", "latest", "keras"]))
def test_damage_is_refused_or_harmless(draw: st.DataObject, kind: str) -> None:
    arrays = {"a/w": KERNEL, "a/v": np.arange(5), "c": np.ones(3, bool)}
    arrays |= {f"many/{n}": np.array([n]) for n in range(10)}
    data = bytearray(keras(arrays) if kind == "keras" else written(arrays, libver=kind))
    for _ in range(draw.draw(st.integers(1, 4))):
        place = draw.draw(st.integers(0, len(data) - 1))
        data[place] ^= draw.draw(st.integers(1, 255))
    del data[draw.draw(st.integers(len(data) // 2, len(data))) :]
    formats.check(read(bytes(data)), len(data))
