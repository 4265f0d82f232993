"""npy, npz, GGUF and ONNX: names, dtypes, shapes and order as their users know them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext import formats
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.formats.base import Crc32, Layout, Span
from git_theta_ext.formats.layout.source import BytesSource
from tests.scenarios.containers import gguf, npy, npz, onnx, onnx_tensor, tagged


def read(data: bytes) -> Layout:
    return formats.read_layout(BytesSource(data))


def tensors(data: bytes) -> dict[str, TensorInfo]:
    return {
        segment.tensor.name: segment.tensor
        for segment in read(data).segments
        if isinstance(segment, Span) and not segment.opaque
    }


def described(data: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (info.dtype.name, info.shape) for name, info in tensors(data).items()}


# -- npy and npz -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((3, 4), np.float16), ("F16", (3, 4))),
        (np.zeros(5, "<i8"), ("I64", (5,))),
        (np.zeros((), np.float64), ("F64", ())),
        (np.zeros((2, 2), np.complex64), ("C64", (2, 2))),
        (np.zeros(3, np.bool_), ("BOOL", (3,))),
        (np.zeros((2, 3), ">f4"), ("U8", (2, 3, 4))),
        (np.zeros(4, "<U5"), ("U8", (4, 20))),
        (np.zeros(4, "<M8[ns]"), ("U8", (4, 8))),
    ],
)
def test_arrays(array: np.ndarray, expected: tuple[str, tuple[int, ...]]) -> None:
    assert described(npy(array)) == {"array": expected}
    assert described(npz({"a": array})) == {"a": expected}


def test_fortran_order_is_kept() -> None:
    info = tensors(npy(np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))))["array"]
    assert (info.shape, info.order, info.memory_shape) == ((2, 3, 4), (2, 1, 0), (4, 3, 2))


def test_the_checksums_of_stored_entries_are_derived() -> None:
    layout = read(npz({"a": np.arange(1000.0), "b": np.arange(10)}))
    assert layout.format == "npz"
    assert sum(isinstance(segment, Crc32) for segment in layout.segments) >= 2


def test_deflated_entries_are_opaque() -> None:
    random = np.random.default_rng(0).normal(size=5000)
    layout = read(npz({"a": random, "b": np.zeros(10)}, compressed=True))
    spans = [segment for segment in layout.segments if isinstance(segment, Span)]
    assert [(span.opaque, span.tensor.name) for span in spans] == [(True, "a (compressed)")]


def test_objects_are_never_unpickled() -> None:
    import io

    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert read(stream.getvalue()).format == "opaque"


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}" + " " * 9,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2**70,)}",
        "{'descr': '<f4', 'fortran_order': 'no', 'shape': (4,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,)}",
        "__import__('os').system('true')",
        "(" * 5000,
        "[1, 2]",
    ],
)
def test_lying_headers_are_opaque(header: str) -> None:
    text = header.encode()
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(17)
    assert read(data).format == "opaque"


# -- GGUF ------------------------------------------------------------------------------------------


def test_plain_and_quantised_tensors() -> None:
    pairs = [
        ("general.alignment", 4, struct.pack("<I", 32)),
        (
            "tokens",
            9,
            struct.pack("<IQ", 8, 2) + struct.pack("<Q", 1) + b"a" + struct.pack("<Q", 0),
        ),
        ("scores", 9, struct.pack("<IQ", 6, 3) + bytes(12)),
        ("name", 8, struct.pack("<Q", 3) + b"abc"),
    ]
    data = gguf(
        {
            "blk.0.weight": (0, (4, 8), bytes(128)),
            "blk.0.norm": (30, (7,), bytes(14)),
            "quantised": (12, (3, 512), bytes(3 * 2 * 144)),
        },
        pairs,
    )
    assert described(data) == {
        "blk.0.weight": ("F32", (4, 8)),
        "blk.0.norm": ("BF16", (7,)),
        "quantised": ("U8", (3, 2, 144)),
    }
    assert described(gguf({"w": (1, (3,), bytes(6))}, version=2)) == {"w": ("F16", (3,))}


@pytest.mark.parametrize(
    "data",
    [
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 2**60),
        gguf({"w": (0, (2**40, 2**40), bytes(64))}),
        gguf({"w": (99, (4,), bytes(64))}),
        gguf({"w": (2, (33,), bytes(64))}),
        gguf({"w": (0, (4,), bytes(64)), "v": (0, (2000,), b"")}),
        gguf({}, [("a", 9, struct.pack("<IQ", 9, 2**20) * 10)]),
        gguf({"w": (0, (4,), bytes(16))}, [("general.alignment", 4, bytes(4))]),
    ],
)
def test_lying_gguf_is_opaque(data: bytes) -> None:
    assert read(data).format == "opaque"


# -- ONNX ------------------------------------------------------------------------------------------


def test_initialisers_constants_and_subgraphs() -> None:
    constant = tagged(5, tagged(1, b"value") + tagged(5, onnx_tensor("", 7, (3,), bytes(24))))
    inner = tagged(5, onnx_tensor("inner", 1, (2,), bytes(8), 4))
    branch = tagged(5, tagged(1, b"then_branch") + tagged(6, inner))
    data = onnx(
        {"conv.weight": (1, (8, 3, 3, 3), bytes(864)), "half": (10, (6,), bytes(12))},
        [tagged(2, b"made") + tagged(4, b"Constant") + constant, tagged(4, b"If") + branch],
    )
    assert described(data) == {
        "conv.weight": ("F32", (8, 3, 3, 3)),
        "half": ("F16", (6,)),
        "made": ("I64", (3,)),
        "inner": ("F32", (2,)),
    }
    assert described(onnx({"w": (1, (3, 4), bytes(48))}, packed=True)) == {"w": ("F32", (3, 4))}


def test_names_that_come_twice_are_numbered() -> None:
    node = tagged(4, b"Constant") + tagged(5, tagged(5, onnx_tensor("w", 1, (4,), bytes(16))))
    assert set(tensors(onnx({"w": (1, (4,), bytes(16))}, [node]))) == {"w", "w#2"}


@pytest.mark.parametrize(
    "data",
    [
        onnx({"w": (1, (4,), bytes(15))}),
        onnx({"w": (1, (2**62, 2**62), bytes(16))}),
        onnx({"w": (99, (4,), bytes(16))}),
        onnx({"w": (1, (4,), bytes(16))})[:-3],
        onnx({"w": (1, (4,), bytes(16))}) + b"\x0b",
        tagged(1, 8) + tagged(2, b"") + b"\xff" * 30,
    ],
)
def test_lying_models_are_opaque(data: bytes) -> None:
    assert read(data).format == "opaque"


def test_graphs_within_graphs_have_a_limit() -> None:
    graph = tagged(5, onnx_tensor("deep", 1, (4,), bytes(16)))
    for _ in range(200):
        graph = tagged(1, tagged(5, tagged(6, graph)))
    data = tagged(1, 8) + tagged(2, b"") + tagged(7, graph)
    assert read(data).format == "opaque"


@given(st.binary(max_size=300), st.sampled_from(["npy", "gguf", "onnx", "npz"]))
def test_any_bytes_after_the_magic_come_back(tail: bytes, name: str) -> None:
    heads = {
        "npy": b"\x93NUMPY\x01\x00", "gguf": b"GGUF\x03\0\0\0", "onnx": b"\x08\x08\x12",
        "npz": b"PK\x03\x04" + bytes(22) + b"\x05\0\0\0a.npy",
    }  # fmt: skip
    data = heads[name] + tail
    formats.check(read(data), len(data))
