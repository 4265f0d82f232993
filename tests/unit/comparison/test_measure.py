"""How far values moved, against NumPy on the whole arrays."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.comparison.measure import BINS, Measure, measure_block
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.updates.residual import SLICE


def measured(old: np.ndarray, new: np.ndarray, name: str = "F32", first: int = 0) -> Measure:
    bits = f"u{old.dtype.itemsize}"
    spec = BlockSpec(DTYPES[name], (len(old),))
    return measure_block(spec, old.view(bits), new.view(bits), first)


def test_all_numbers_agree_with_numpy() -> None:
    random = np.random.default_rng(0)
    old = random.normal(0.1, 1, 3 * SLICE + 5).astype(np.float32)
    new = (old + random.normal(0, 0.01, len(old))).astype(np.float32)
    found = measured(old, new)
    a, b = old.astype(np.float64), new.astype(np.float64)
    assert found.relative == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a))
    assert found.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert found.old.mean == pytest.approx(a.mean())
    assert found.new.std == pytest.approx(b.std())
    assert found.changed == np.count_nonzero(a != b)
    assert found.largest == np.abs(b - a).max()
    assert found.largest_at == np.abs(b - a).argmax()
    assert len(found.histogram()) == BINS
    assert found.histogram()[BINS // 2] == max(found.histogram())


def test_blocks_add_up_to_the_tensor() -> None:
    random = np.random.default_rng(1)
    old = random.normal(0, 1, 1000).astype(np.float32)
    new = old.copy()
    new[700] += 3
    new[10] += 1
    whole = measured(old, new)
    parts = measured(old[:400], new[:400]) + measured(old[400:], new[400:], first=400)
    assert parts.largest_at == whole.largest_at == 700
    assert parts.changed == whole.changed == 2
    assert parts.step == pytest.approx(whole.step)


def test_new_nan_and_infinity_are_counted_and_found() -> None:
    old = np.array([1, np.nan, 3, 4, np.inf], np.float32)
    new = np.array([1, 2, np.nan, np.inf, np.inf], np.float32)
    found = measured(old, new, first=10)
    assert (found.not_finite, found.not_finite_at) == (2, 12)
    assert found.old.count == found.new.count == 1
    assert found.step == 0


def test_values_near_the_largest_do_not_fail() -> None:
    old = np.array([np.finfo(np.float64).max, 1.0])
    found = measured(old, -old, "F64")
    assert found.cosine is None
    assert math.isinf(found.step)


def test_other_dtypes_count_their_changes() -> None:
    old = np.arange(100)
    new = old.copy()
    new[3:6] = 0
    found = measured(old, new, "I64")
    assert found.changed == 3
    assert found.relative is None or found.relative > 0
    half = np.arange(100).astype(ml_dtypes.bfloat16)
    assert measured(half, half, "BF16").cosine == pytest.approx(1)


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_any_values_give_numbers_or_nothing(values: list[float]) -> None:
    old = np.array(values, np.float32)
    found = measured(old, old[::-1].copy())
    assert 0 <= found.changed <= len(values)
    assert found.cosine is None or -1 <= found.cosine <= 1
    assert sum(found.histogram()) <= len(values)
