"""Ranks of magnitudes found in bounded memory, against sorting; angles against the C library."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.merge.strategies.angles import arccos, sine
from git_theta_ext.merge.strategies.select import kth_largest, kth_largest_each, magnitudes, ranks

floats = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=60)


@given(floats, st.integers(1, 60))
@settings(deadline=None)
def test_the_kth_largest_is_what_sorting_finds(numbers: list[float], wanted: int) -> None:
    array = np.array(numbers)
    found = kth_largest(lambda: np.array_split(array, 3), wanted, len(array))
    ordered = np.sort(magnitudes(array))[::-1]
    assert found == (ordered[wanted - 1] if wanted < len(ordered) else 0)


@pytest.mark.parametrize(("scale", "held"), [(1.0, True), (1e6, False)])
def test_a_first_slice_that_misleads_costs_passes_and_changes_nothing(
    scale: float, held: bool
) -> None:
    array = np.random.default_rng(1).normal(size=50_000)
    array[10_000:] *= scale
    passes = []

    def slices() -> list[np.ndarray]:
        passes.append(1)
        return np.array_split(array, 5)

    assert kth_largest(slices, 10_000, len(array)) == np.sort(magnitudes(array))[-10_000]
    assert (len(passes) == 1) == held


def test_none_wanted_is_out_of_reach() -> None:
    assert kth_largest(lambda: [np.ones(3)], 0, 3) == np.inf


def test_ranks_follow_the_magnitudes() -> None:
    array = np.array([-8.0, 1.0, 2.0, -4.0])
    assert ranks(lambda: [array]).of(array).tolist() == [0.875, 0.125, 0.375, 0.625]


@given(st.floats(-1, 1))
@settings(deadline=None)
def test_arccos(cosine: float) -> None:
    assert arccos(cosine) == pytest.approx(math.acos(cosine), rel=1e-14, abs=1e-15)


@given(st.floats(-2 * math.pi, 2 * math.pi))
@settings(deadline=None)
def test_sine(angle: float) -> None:
    assert sine(angle) == pytest.approx(math.sin(angle), rel=1e-13, abs=1e-15)


def test_several_tensors_side_by_side_have_the_floors_of_each() -> None:
    random = np.random.default_rng(2)
    columns = [random.normal(size=1000), 1e3 * random.normal(size=1000)]
    cut = [0, 300, 1000]
    for wanted in (0, 1, 500, 999, 1000):
        found = kth_largest_each(
            lambda: ([one[a:b] for one in columns] for a, b in pairwise(cut)), 2, wanted, 1000
        )
        alone = [kth_largest(lambda one=one: [one], wanted, 1000) for one in columns]
        assert found == alone
