"""Raw bits of elements: of which width, and what they mean as numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.core.tensors import DTYPES, DType
from git_theta_ext.core.values import as_floats, raw_bytes, values_dtype

EVERY = st.sampled_from(list(DTYPES.values()))


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("BOOL", 1), ("U8", 1), ("I16", 2), ("I32", 4), ("U64", 8),
        ("F8_E4M3", 1), ("BF16", 2), ("F16", 2), ("F32", 4), ("F64", 8),
        # Several elements to a byte, or bits that are no number: bytes.
        ("F4", 1), ("F6_E2M3", 1), ("QU4X2", 1), ("F8_E8M0", 1),
        # The two parts of a complex number, each by itself.
        ("C32", 2), ("C64", 4), ("C128", 8),
    ],
)  # fmt: skip
def test_the_bits_of_an_element_are_an_unsigned_integer(name: str, width: int) -> None:
    found = values_dtype(DTYPES[name])
    assert (found.kind, found.itemsize) == ("u", width)


def test_bytes_are_read_with_the_lowest_first() -> None:
    assert np.frombuffer(b"\x01\x02\x03\x04", values_dtype(DTYPES["F32"])).tolist() == [0x04030201]
    assert np.frombuffer(b"\x01\x02\x03\x04", values_dtype(DTYPES["C32"])).tolist() == [
        0x0201,
        0x0403,
    ]


@given(EVERY, st.binary(max_size=64))
def test_bytes_that_become_values_come_back(dtype: DType, data: bytes) -> None:
    data = data[: len(data) // dtype.itemsize * dtype.itemsize]
    values = np.frombuffer(data, values_dtype(dtype))
    assert bytes(raw_bytes(values)) == data


def test_raw_bytes_are_those_of_the_array_and_no_copy() -> None:
    values = np.array([1, 2], "<u2")
    found = raw_bytes(values)
    values[1] = 0x0304
    assert (found.format, bytes(found)) == ("B", b"\x01\x00\x04\x03")


def test_an_array_without_elements_has_no_bytes() -> None:
    for shape in ((0,), (0, 7), (3, 0)):
        assert bytes(raw_bytes(np.zeros(shape, np.float32))) == b""


@pytest.mark.parametrize(
    ("name", "bits", "numbers"),
    [
        ("F32", [0x3F800000, 0x80000000, 0xC0200000], [1.0, -0.0, -2.5]),
        ("F16", [0x3C00, 0x0001], [1.0, 2.0**-24]),
        ("BF16", [0x3F80, 0xBF80], [1.0, -1.0]),
        ("F64", [0x3FF0000000000000], [1.0]),
        ("F8_E4M3", [0x38, 0x7E], [1.0, 448.0]),
        ("F8_E5M2", [0x3C, 0x7B], [1.0, 57344.0]),
        # Real and imaginary part by turns.
        ("C64", [0x3F800000, 0x40000000], [1.0, 2.0]),
        ("C32", [0x3C00, 0xC000], [1.0, -2.0]),
        ("C128", [0x3FF0000000000000, 0], [1.0, 0.0]),
    ],
)
def test_bits_as_the_numbers_that_they_are(
    name: str, bits: list[int], numbers: list[float]
) -> None:
    found = as_floats(DTYPES[name], np.array(bits, values_dtype(DTYPES[name])))
    assert found is not None
    assert found.astype(np.float64).tolist() == numbers
    assert np.signbit(found.astype(np.float64)).tolist() == np.signbit(numbers).tolist()


@given(EVERY)
def test_only_floats_and_complex_numbers_are_floats(dtype: DType) -> None:
    values = np.zeros(2, values_dtype(dtype))
    found = as_floats(dtype, values)
    assert (found is not None) == (dtype.kind in ("float", "complex"))
    assert found is None or found.base is values
