"""The laws of merge strategies, where they hold, and values worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES
from git_theta_ext.core.values import from_floats
from git_theta_ext.merge.strategies.arrays import Arrays, merge_arrays
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.merge.strategies.table import TABLE, NotPossibleError, Strategy, check, get

NAMES = [strategy.name for strategy in TABLE]
WITH_LAMBDA = [s.name for s in TABLE if any(p.name == "lambda" for p in s.parameters)]
FROM_BASE = [name for name in WITH_LAMBDA if name != "reapply"]
SYMMETRIC = [s.name for s in TABLE if s.symmetric]
KEEPS_OURS = {
    # What a merge with an unchanged side gives (then theirs is the base): ours, to the bit or
    # within rounding; the other strategies mix the base in.
    "ours": 0.0, "reapply": 0.0, "task-arithmetic": 1e-15, "sce": 1e-15,
}  # fmt: skip


def statistics(sides: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Positive Fisher diagonals, and well-conditioned Gram matrices."""
    shape = sides[0].shape
    width = shape[1] if len(shape) == 2 else 1
    random = np.random.default_rng(5)
    inputs = [random.normal(size=(4 * width + 1, width)) for _ in sides]
    return {
        "fisher": [np.abs(side) + 1 for side in sides],
        "gram": [matrix.T @ matrix for matrix in inputs],
    }


def merged(name: str, base: np.ndarray | None, *sides: np.ndarray, **given: object) -> np.ndarray:
    choice = Choice(name, tuple(sorted(given.items())))  # type: ignore[arg-type]
    return merge_arrays(choice, base, sides, name="w", statistics=statistics(sides))


def three(
    shape: tuple[int, ...] = (6, 5), seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    base = random.normal(size=shape)
    return base, base + 0.1 * random.normal(size=shape), base + 0.1 * random.normal(size=shape)


@pytest.mark.parametrize("name", NAMES)
def test_equal_sides_give_that_side(name: str) -> None:
    base, ours, _ = three()
    assert np.array_equal(merged(name, base, ours, ours), ours)


@pytest.mark.parametrize("name", KEEPS_OURS)
def test_merging_with_the_base_gives_ours(name: str) -> None:
    base, ours, _ = three()
    found = merged(name, base, ours, base)
    assert np.allclose(found, ours, rtol=KEEPS_OURS[name] * 10, atol=KEEPS_OURS[name])


@pytest.mark.parametrize("name", NAMES)
def test_two_bases_give_the_base(name: str) -> None:
    base, _, _ = three()
    assert np.array_equal(merged(name, base, base, base), base)


@pytest.mark.parametrize("name", FROM_BASE)
def test_nothing_of_the_update_gives_the_base(name: str) -> None:
    base, ours, theirs = three()
    assert np.array_equal(merged(name, base, ours, theirs, **{"lambda": 0.0}), base)


def test_nothing_reapplied_gives_ours() -> None:
    base, ours, theirs = three()
    assert np.array_equal(merged("reapply", base, ours, theirs, **{"lambda": 0.0}), ours)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_the_order_of_the_sides_changes_no_bit(name: str) -> None:
    base, ours, theirs = three()
    third = base + 0.2
    expected = merge_arrays(Choice(name), base, [ours, theirs, third], name="w",
                            statistics=_for([ours, theirs, third]))  # fmt: skip
    for order in permutations([ours, theirs, third]):
        found = merge_arrays(Choice(name), base, order, name="w", statistics=_for(order))
        assert np.array_equal(found, expected)


def _for(sides: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Statistics that depend on the side alone, not on its place."""
    width = sides[0].shape[1]
    return {
        "fisher": [np.abs(side) for side in sides],
        "gram": [side[:width].T @ side[:width] + np.eye(width) for side in sides],
    }


def test_slerp_halfway_is_symmetric() -> None:
    _, ours, theirs = three()
    assert np.array_equal(merged("slerp", None, ours, theirs), merged("slerp", None, theirs, ours))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (1,), (3, 1, 2)])
def test_scalars_empty_and_deep_tensors_work(name: str, shape: tuple[int, ...]) -> None:
    base, ours, theirs = three(shape)
    found = merged(name, base, ours, theirs)
    assert found.shape == shape
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_are_equal_and_inputs_are_left_alone(name: str) -> None:
    base, ours, theirs = three((70, 30))
    copies = base.copy(), ours.copy(), theirs.copy()
    first = merged(name, base, ours, theirs)
    assert np.array_equal(first, merged(name, base, ours, theirs))
    for before, after in zip(copies, (base, ours, theirs), strict=True):
        assert np.array_equal(before, after)


@pytest.mark.parametrize("strategy", [s for s in TABLE if s.needs_base], ids=lambda s: s.name)
def test_without_a_base_those_that_need_one_say_so(strategy: Strategy) -> None:
    _, ours, theirs = three()
    with pytest.raises(NotPossibleError, match="needs a common base"):
        merged(strategy.name, None, ours, theirs)


@pytest.mark.parametrize("name", [s.name for s in TABLE if s.by_entry])
def test_entries_are_merged_each_for_itself(name: str) -> None:
    base, ours, theirs = three((4, 4))
    whole = merged(name, base, ours, theirs).ravel()
    apart = [
        merged(name, *(one.ravel()[i : i + 1] for one in (base, ours, theirs))) for i in range(16)
    ]
    assert np.array_equal(whole, np.concatenate(apart))


def of(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float64)


ZERO = of(0, 0, 0, 0)
A, B = of(4, -3, 2, 1), of(-1, -5, 6, 0)

BY_HAND = [
    ("ours", {}, ZERO, A, B, A),
    ("theirs", {}, ZERO, A, B, B),
    ("base", {}, ZERO, A, B, ZERO),
    ("average", {}, ZERO, A, B, of(1.5, -4, 4, 0.5)),
    ("average", {"weights": (3.0, 1.0)}, ZERO, A, B, of(2.75, -3.5, 3, 0.75)),
    ("reapply", {}, of(1, 1, 1, 1), A, B, of(2, -9, 7, 0)),
    ("task-arithmetic", {}, of(1, 1, 1, 1), A, B, of(2, -9, 7, 0)),
    ("task-arithmetic", {"lambda": 0.5, "weights": (1.0, 0.5)}, ZERO, A, B,
     of(1.75, -2.75, 2.5, 0.5)),
    # Kept: 4 and −3 of A, −5 and 6 of B. Signs +, −, +, +; means of those that agree.
    ("ties", {"density": 0.5}, ZERO, A, B, of(4, -4, 6, 0)),
    # Nothing trimmed: 4 − 1 > 0 keeps 4; −3 and −5; 2 and 6; 1.
    ("ties", {"density": 1.0}, ZERO, A, B, of(4, -4, 4, 1)),
    ("ties", {"density": 1.0, "lambda": 0.5}, of(1, 1, 1, 1), A + 1, B + 1, of(3, -1, 3, 1.5)),
    # The largest quarter of each (4; 6) and the smallest quarter (1; 0) are left out.
    ("breadcrumbs", {"gamma": 0.25, "density": 0.5}, ZERO, A, B, of(-1, -8, 2, 0)),
    ("dare-linear", {"density": 1.0}, ZERO, A, B, A + B),
    ("dare-ties", {"density": 1.0}, ZERO, A, B, of(4, -4, 4, 1)),
    ("della", {"density": 1.0, "epsilon": 0.0}, ZERO, A, B, of(4, -4, 4, 1)),
    # Energies 30 and 62: weights 30/92 and 62/92, among those with the sign of the sum.
    ("sce", {}, ZERO, A, B, of(4, -(3 * 30 + 5 * 62) / 92, (2 * 30 + 6 * 62) / 92, 1)),
    # Variances 12.5, 2, 8, 0.5: the upper half are entries 0 and 2; energies 20 and 37.
    ("sce", {"density": 0.5}, ZERO, A, B, of(4, 0, (2 * 20 + 6 * 37) / 57, 0)),
    # Right angle: both weights are sin 45° / sin 90°.
    ("slerp", {}, None, of(2, 0), of(0, 2), of(2**0.5, 2**0.5)),
    ("slerp", {"t": 0.0}, None, of(2, 1), of(0, 2), of(2, 1)),
    ("karcher", {}, None, of(2, 0), of(0, 4), of(3 * 0.5**0.5, 3 * 0.5**0.5)),
    # Updates (2, 0) and (1, 1): cos = 1/√2, t = 2c/(1 + c).
    ("model-stock", {}, of(0, 0), of(2, 0), of(1, 1),
     of(1.5, 0.5) * (2 * 0.5**0.5 / (1 + 0.5**0.5))),
    ("model-stock", {}, of(5, 5), of(6, 5), of(5, 6), of(5, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "base", "ours", "theirs", "expected"), BY_HAND)
def test_values_by_hand(  # noqa: PLR0917
    name: str,
    given: dict[str, object],
    base: np.ndarray | None,
    ours: np.ndarray,
    theirs: np.ndarray,
    expected: np.ndarray,
) -> None:
    assert merged(name, base, ours, theirs, **given) == pytest.approx(expected, abs=1e-12)


def test_fisher_by_hand() -> None:
    weights = {"fisher": [of(1, 0, 3), of(3, 0, 0)]}
    found = merge_arrays(Choice("fisher"), None, [of(4, 2, 1), of(8, 6, 9)], statistics=weights)
    assert found == pytest.approx(of(7, 4, 1))


def test_regmean_by_hand() -> None:
    # Each side saw one of two inputs only, so each gives one column of the merged weight.
    grams = {"gram": [np.diag([4.0, 0.0]), np.diag([0.0, 9.0])]}
    ours, theirs = np.array([[1.0, 2.0]]), np.array([[30.0, 40.0]])
    found = merge_arrays(Choice("regmean"), None, [ours, theirs], statistics=grams)
    assert found == pytest.approx(np.array([[1.0, 40.0]]), rel=1e-5)


def test_regmean_solves_the_least_squares_problem() -> None:
    random = np.random.default_rng(0)
    inputs = [random.normal(size=(50, 7)) * np.arange(1, 8) for _ in range(2)]
    sides = [random.normal(size=(3, 7)) for _ in range(2)]
    grams = [x.T @ x for x in inputs]
    expected = np.linalg.solve(sum(grams), sum(g @ w.T for g, w in zip(grams, sides, strict=True)))
    choice = Choice("regmean", (("alpha", 1.0),))
    found = merge_arrays(choice, None, sides, statistics={"gram": grams})
    assert found == pytest.approx(expected.T, rel=1e-4)
    # A kernel of one pixel is the same matrix; one of more pixels is averaged.
    kernels = [side[:, :, None, None] for side in sides]
    pixel = merge_arrays(choice, None, kernels, statistics={"gram": grams})
    assert pixel.tobytes() == found.tobytes()


def test_dare_keeps_about_the_share_and_the_mean() -> None:
    base, update = np.zeros(40_000), np.ones(40_000)
    found = merged("dare-linear", base, update, -2 * update, density=0.25)
    values, counts = np.unique(found, return_counts=True)
    assert set(values) == {-8.0, -4.0, 0.0, 4.0}
    assert counts[values == 0.0] / 40_000 == pytest.approx(0.75**2, abs=0.02)
    assert found.mean() == pytest.approx(-1.0, abs=0.1)


def test_random_masks_are_frozen() -> None:
    # Drawn from Philox, seeded by name and contents: equal on every machine, for ever.
    base, ours, theirs = ZERO, of(1, 2, 3, 4), of(5, 6, 7, 8)
    found = merged("dare-linear", base, ours, theirs)
    again = merge_arrays(Choice("dare-linear"), base, [ours, theirs], name="other")
    assert found.tolist() == FROZEN
    assert not np.array_equal(found, again)


FROZEN = [10.0, 0.0, 0.0, 8.0]


def test_della_drops_small_entries_more_often() -> None:
    base = np.zeros(20_000)
    update = np.where(np.arange(20_000) % 2 == 0, 1.0, 100.0)
    found = merged("della", base, update, update * 0.5, density=0.5, epsilon=0.8)
    small, large = found[::2] != 0, found[1::2] != 0
    assert small.mean() < 0.6
    assert large.mean() > 0.85


@given(st.integers(2, 200), st.integers(0, 1000), st.sampled_from(NAMES))
@settings(deadline=None, max_examples=60)
def test_slices_change_nothing_but_sums(count: int, seed: int, name: str) -> None:
    base, ours, theirs = three((count,), seed)
    strategy = get(name)
    stats = {"fisher": [np.abs(ours) + 1, np.abs(theirs) + 1]}
    results = []
    for length in (7, 1000):
        arrays = Arrays(base, [ours, theirs], "w", stats, length)
        combine = strategy.prepare(arrays)
        results.append(np.concatenate([combine(piece) for piece in arrays]))
    # Random masks are drawn slice by slice, and slices have one length wherever it matters.
    if name not in ("dare-linear", "dare-ties", "della"):
        assert results[0] == pytest.approx(results[1], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", ["BF16", "F16", "F8_E4M3", "F8_E5M2"])
def test_numbers_are_rounded_once(name: str) -> None:
    types = {
        "BF16": ml_dtypes.bfloat16, "F16": np.float16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
    }  # fmt: skip
    kind = types[name]
    size = np.dtype(kind).itemsize
    all_bits = np.arange(2 ** (8 * size), dtype=f"<u{size}")
    with np.errstate(invalid="ignore"):  # signalling NaNs are among them
        every = np.unique(all_bits.view(kind).astype(np.float64))
    every = every[np.isfinite(every)]
    middle = (every[:-1] + every[1:]) / 2
    for factor, nearest in ((1 - 1e-13, np.minimum), (1 + 1e-13, np.maximum)):
        # A hair off the middle, less than a float32 can tell: still the nearer neighbour.
        numbers = middle * factor
        towards_zero = nearest is np.minimum
        lower, upper = np.abs(every[:-1]), np.abs(every[1:])
        expected = np.minimum(lower, upper) if towards_zero else np.maximum(lower, upper)
        found = from_floats(DTYPES[name], numbers).view(kind).astype(np.float64)
        moved = middle != 0
        assert np.array_equal(np.abs(found[moved]), expected[moved])
    exact = from_floats(DTYPES[name], every).view(kind).astype(np.float64)
    assert np.array_equal(exact, every)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice("tise"), "unknown merge strategy 'tise'; known: ours, theirs"),
        (Choice("zeros"), "regmean, conflict, zero\n  hint: did you mean: zero"),
        (Choice("ties", (("densty", 0.2),)), "ties has no parameter 'densty'; it has: density"),
        (Choice("ties", (("density", 1.5),)), "density takes a number from 0 to 1, not 1.5"),
        (Choice("ties", (("density", "x"),)), "density takes a number from 0 to 1, not 'x'"),
        (Choice("average", (("weights", "x"),)), "weights takes numbers, such as 0.7:0.3"),
        (Choice("zero", (("density", 1.0),)), "zero has no parameters"),
    ],
)
def test_mistakes_are_told(choice: Choice, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        check(choice)


def test_weights_must_fit_the_sides() -> None:
    base, ours, theirs = three()
    with pytest.raises(UsageError, match="weights are needed for 2 sides"):
        merged("average", base, ours, theirs, weights=(1.0, 1.0, 1.0))


def test_fisher_without_statistics_is_not_possible() -> None:
    _, ours, theirs = three()
    with pytest.raises(NotPossibleError, match="no fisher statistics"):
        merge_arrays(Choice("fisher"), None, [ours, theirs])


def test_regmean_is_the_same_whatever_the_slices() -> None:
    random = np.random.default_rng(1)
    sides = [random.normal(size=(11, 7)) for _ in range(2)]
    stats = {"gram": [x.T @ x for x in random.normal(size=(2, 20, 7))]}
    found = []
    for length in (5, 16, 1000):
        arrays = Arrays(None, sides, "w", stats, length)
        combine = get("regmean").prepare(arrays)
        found.append(np.concatenate([combine(piece) for piece in arrays]))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("dtype", "values"),
    [(np.float16, (0, 6e4, 5e4)), (np.float32, (0, 3e38, 2e38)), (np.uint8, (100, 200, 210))],
)
def test_arrays_beyond_the_range_of_their_dtype_are_refused(
    dtype: Any, values: tuple[float, float, float]
) -> None:
    base, ours, theirs = (np.array([1, value], dtype) for value in values)
    choice = Choice("task-arithmetic", (("lambda", 1.5),))
    with pytest.raises(NotPossibleError, match="w: 1 entries would be infinite or NaN"):
        merge_arrays(choice, base, [ours, theirs], name="w")
    # What a side holds already is not made here.
    ours[1] = theirs[1]
    if dtype != np.uint8:
        ours[1] = theirs[1] = np.inf
        assert np.isinf(merge_arrays(choice, base, [ours, theirs])[1])
