"""Conversions to and from float16 are those of IEEE 754, for every number."""

from __future__ import annotations

import numpy as np

from git_theta_ext.core.tensors import DTYPES
from git_theta_ext.updates.arithmetic import narrow, widen

F16 = DTYPES["F16"]
EVERY = np.arange(1 << 16, dtype=np.uint16)


def check(numbers: np.ndarray) -> None:
    with np.errstate(over="ignore", under="ignore"):
        expected = numbers.astype(np.float16).view(np.uint16)
    assert np.array_equal(narrow(F16, numbers, np.zeros(len(numbers), np.uint16)), expected)


def test_every_half_is_widened_exactly() -> None:
    expected = EVERY.view(np.float16).astype(np.float32)
    assert np.array_equal(widen(F16, EVERY), expected, equal_nan=True)


def test_numbers_about_every_half_and_between_two() -> None:
    finite = EVERY[(EVERY & 0x7FFF) < 0x7C00].view(np.float16).astype(np.float32).view(np.uint32)
    for step in (0, 1, -1, 0xFFF, 0x1000, 0x1001, -0x1000, 0x800):
        near = (finite.astype(np.int64) + step).astype(np.uint32).view(np.float32)
        check(near[~np.isnan(near)])


def test_numbers_of_every_size() -> None:
    bits = np.arange(0, 1 << 32, 104_729, dtype=np.uint64).astype(np.uint32).view(np.float32)
    check(bits[~np.isnan(bits)])
    check(np.arange(0, 0x38900000, 9_973, dtype=np.uint32).view(np.float32))
    check(np.arange(0x477FE000, 0x47802000, dtype=np.uint32).view(np.float32))


def test_nan_becomes_what_the_caller_says() -> None:
    numbers = np.array([np.nan, 1, -np.nan], np.float32)
    assert narrow(F16, numbers, np.array([7, 8, 9], np.uint16)).tolist() == [7, 0x3C00, 9]
