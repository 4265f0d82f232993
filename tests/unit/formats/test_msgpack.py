"""Flax's msgpack and CoreML's weights: names, dtypes, and what lies."""

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext import formats
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.layout.source import BytesSource
from tests.scenarios.examples import coreml, flax, rebuilt


def table(data: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    layout = formats.read_layout(BytesSource(data))
    assert rebuilt(data, layout) == data
    infos = [item.tensor for item in layout.segments if isinstance(item, Span)]
    return {info.name: (info.dtype.name, info.shape) for info in infos}


def test_names_dtypes_and_shapes() -> None:
    data = flax({"kernel": np.zeros((2, 3), "f4"), "steps": np.arange(4), "s": np.float32(1)[...]})
    assert table(data) == {
        "params.Dense_0.kernel": ("F32", (2, 3)),
        "params.Dense_0.steps": ("I64", (4,)),
        "params.Dense_0.s": ("F32", ()),
    }


def test_constants_of_coreml_are_called_by_position() -> None:
    assert table(coreml()) == {"weight.0": ("F16", (50,)), "weight.1": ("F32", (50,))}


def array(shape: object, dtype: object, data: object) -> bytes:
    return bytes(msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb((shape, dtype, data)))}))


@pytest.mark.parametrize(
    "data",
    [
        array((5,), "float32", bytes(16)),
        array((1 << 63, 1 << 63), "float32", bytes(16)),
        array((-4,), "float32", bytes(16)),
        array("x", "float32", bytes(16)),
        array((4,), 3, bytes(16)),
        array((4,), "float32", "text"),
        b"\xdf\xff\xff\xff\xff\xa1a\x01",
        b"\x81\xa1a" + b"\x91" * 100_000,
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x81\xa1a\xc1",
        coreml()[:64] + b"\xef\xbe\xad\xde\x01\0\0\0" + b"\xff" * 16 + bytes(100),
        b"\xff\xff\xff\xff" + coreml()[4:],
    ],
)
def test_files_that_lie_are_opaque(data: bytes) -> None:
    assert list(table(data)) == ["content"]


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_come_back(tail: bytes) -> None:
    assert isinstance(table(b"\x82\xa1a" + tail), dict)
