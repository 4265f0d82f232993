"""Each kind of change is recognised for what it is, at the size that this makes possible."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.updates import get
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.choose import encode_block
from git_theta_ext.updates.find import converting_update, smallest_update
from git_theta_ext.updates.low_rank import directions
from git_theta_ext.updates.low_rank.factors import Factors
from git_theta_ext.updates.low_rank.prediction import predict
from git_theta_ext.updates.low_rank.update import LowRank
from git_theta_ext.updates.parameter_file import parse

NUMPY: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
}  # fmt: skip
SHAPE = (256, 320)


def raw(array: np.ndarray, name: str) -> Values:
    flat: Values = np.ascontiguousarray(array.astype(NUMPY[name])).reshape(-1)
    return flat.view(values_dtype(DTYPES[name]))


def weights(name: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Weights that the dtype holds exactly, as float32 (float64 for F64)."""
    values = np.random.default_rng(seed).standard_normal(shape) * 0.02
    return values.astype(NUMPY[name]).astype(np.float64 if name == "F64" else np.float32)


def found(name: str, new: np.ndarray, old: np.ndarray) -> Encoded:
    """The update that is chosen, after it has come back bit for bit, twice the same."""
    spec, now, then = BlockSpec(DTYPES[name], new.shape), raw(new, name), raw(old, name)
    first, again = (smallest_update(spec, now, then) for _ in range(2))
    assert first is not None
    assert again is not None
    data = b"".join(first.pieces)
    assert data == b"".join(again.pieces)
    assert first.info == again.info
    assert get(first.kind).decode(spec, parse(data), then.copy()).tobytes() == now.tobytes()
    return first


def low_rank_step(rank: int, size: float, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    random = np.random.default_rng(7)
    up = random.standard_normal((shape[0], rank), np.float32)
    step = up @ random.standard_normal((rank, shape[1]), np.float32)
    return step * np.float32(size / np.sqrt(rank))


@pytest.mark.parametrize("name", list(NUMPY))
def test_a_few_entries_are_sparse(name: str) -> None:
    old = weights(name)
    new = old.copy()
    new.ravel()[::200] *= 1.5
    update = found(name, new, old)
    assert (update.kind, update.info) == ("sparse", ())
    assert update.nbytes < 0.015 * old.size * DTYPES[name].itemsize


def test_a_few_rows_are_listed_as_rows() -> None:
    old = weights("F32", (2000, 64))
    new = old.copy()
    new[::100] += np.float32(0.001)
    update = found("F32", new, old)
    assert (update.kind, update.info) == ("sparse", (("rows", "20"),))


@pytest.mark.parametrize("name", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("axis", [0, 1])
def test_multiplied_rows_and_columns_are_scale(name: str, axis: int) -> None:
    old = weights(name)
    shape = (len(old), 1) if axis == 0 else (1, old.shape[1])
    factors = 1 + 0.1 * np.random.default_rng(1).standard_normal(shape)
    new = (old * factors.astype(old.dtype)).astype(NUMPY[name])
    update = found(name, new, old)
    assert (update.kind, update.info) == ("scale", (("factors", str(factors.size)),))
    # Bounds of float64 multipliers are themselves rounded: some entries miss by an ulp.
    assert update.nbytes < 600 + 8 * factors.size * (4 if name == "F64" else 1)


def test_weight_decay_is_step() -> None:
    old = weights("F32", (300, 400))
    new = old.copy()
    for _ in range(300):
        new -= np.float32(1e-6) * new
    new[:40] += np.random.default_rng(2).standard_normal((40, 400), np.float32) * np.float32(0.001)
    update = found("F32", new, old)
    assert update.kind == "step"
    delta = get("delta").encode(
        BlockSpec(DTYPES["F32"], new.shape), raw(new, "F32"), raw(old, "F32")
    )
    assert delta is not None
    assert update.nbytes < 0.6 * delta.nbytes


@pytest.mark.parametrize(
    ("name", "size", "limit"), [("F32", 2e-4, 0.07), ("BF16", 2e-4, 0.07), ("F16", 2e-4, 0.08)]
)
@pytest.mark.parametrize("order", ["sum", "rounded"])
def test_a_merged_product_is_low_rank(name: str, size: float, limit: float, order: str) -> None:
    old = weights(name)
    step = low_rank_step(4, size)
    if order == "rounded":
        step = step.astype(NUMPY[name]).astype(np.float32)
    update = found(name, old + step, old)
    assert (update.kind, update.info) == ("low-rank", (("rank", "4"),))
    assert update.nbytes < limit * old.size * DTYPES[name].itemsize


def test_a_product_below_the_ulp_is_low_rank() -> None:
    shape = (512, 512)
    old = weights("BF16", shape)
    new = (old + low_rank_step(4, 0.3 * 2.0**-14 / 0.6745, shape)).astype(NUMPY["BF16"])
    assert np.mean(raw(new, "BF16") == raw(old, "BF16")) > 0.7
    update = found("BF16", new, old)
    assert (update.kind, update.info) == ("low-rank", (("rank", "4"),))
    assert update.nbytes < 0.03 * 2 * old.size


def test_a_product_with_sparse_noise_is_low_rank() -> None:
    old = weights("F32")
    new = old + low_rank_step(4, 2e-4)
    places = np.random.default_rng(4).integers(0, new.size, 80)
    new.ravel()[places] += np.float32(0.05)
    assert found("F32", new, old).info == (("rank", "4"),)


def test_much_sparse_noise_is_no_direction() -> None:
    old = weights("F32")
    new = old + low_rank_step(4, 2e-4)
    random = np.random.default_rng(4)
    places = random.integers(0, new.size, new.size // 200)
    new.ravel()[places] += 0.02 * random.standard_normal(len(places), np.float32)
    update = found("F32", new, old)
    assert (update.kind, update.info) == ("low-rank", (("rank", "4"),))
    assert update.nbytes < 0.15 * 4 * old.size


@pytest.mark.parametrize("name", ["F32", "BF16"])
def test_heavy_tails_are_no_outliers(name: str) -> None:
    # The entries of one outer product, and of rows that changed more than others.
    old = weights(name)
    assert found(name, old + low_rank_step(1, 2e-4), old).info == (("rank", "1"),)
    rows = np.exp(np.random.default_rng(5).standard_normal((len(old), 1), np.float32))
    update = found(name, old + rows * low_rank_step(4, 2e-4), old)
    assert (update.kind, update.info) == ("low-rank", (("rank", "4"),))


@pytest.mark.parametrize(("name", "limit"), [("F32", 0.16), ("BF16", 0.2)])
def test_directions_of_unequal_sizes_are_found(name: str, limit: float) -> None:
    random = np.random.default_rng(6)
    left = random.standard_normal((SHAPE[0], 12)) * 0.6 ** np.arange(12)
    step = 2e-4 * left @ random.standard_normal((12, SHAPE[1]))
    old = weights(name)
    update = found(name, old + step.astype(np.float32), old)
    assert update.kind == "low-rank"
    assert update.nbytes < limit * old.size * DTYPES[name].itemsize


@pytest.mark.parametrize("shape", [(90, 40), (40, 90)])
def test_energies_are_the_squares_of_singular_values(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(8).standard_normal(shape)
    energies = directions.energies(matrix)
    np.testing.assert_allclose(energies, np.linalg.svd(matrix, compute_uv=False) ** 2, rtol=1e-9)


def test_a_convolution_counts_as_a_matrix() -> None:
    old = weights("F32", (64, 64, 3, 3))
    new = old + low_rank_step(2, 2e-4, (64, 576)).reshape(old.shape)
    assert found("F32", new, old).info == (("rank", "2"),)


def test_full_fine_tuning_is_delta_and_training_afresh_is_dense() -> None:
    old = weights("F32")
    noise = np.random.default_rng(3).standard_normal(SHAPE, np.float32)
    assert found("F32", old + noise * np.float32(1e-4), old).kind == "delta"
    spec = BlockSpec(DTYPES["F32"], SHAPE)
    other = weights("F32", seed=9)
    assert smallest_update(spec, raw(other, "F32"), raw(old, "F32")) is None


def test_awkward_values_do_not_hide_a_change() -> None:
    old = weights("F32")
    old[3, :4] = [np.nan, np.inf, -np.inf, -0.0]
    with np.errstate(invalid="ignore"):
        assert found("F32", old * np.float32(1.25), old).kind == "scale"
        assert found("F32", old + low_rank_step(4, 2e-4), old).kind == "low-rank"


@pytest.mark.parametrize(("then", "now"), [("F32", "BF16"), ("F32", "F16"), ("BF16", "F32")])
def test_another_dtype_is_cast(then: str, now: str) -> None:
    old = weights(then)
    specs = [BlockSpec(DTYPES[name], SHAPE) for name in (then, now)]
    update = converting_update(specs[1], raw(old, now), specs[0], raw(old, then))
    assert update is not None
    assert (update.kind, update.info) == ("cast", (("from", then),))
    assert update.nbytes < 400


def test_more_rows_are_resize_and_another_rank_is_dense() -> None:
    old = weights("F32")
    new = np.concatenate([old, weights("F32", (5, SHAPE[1]), 5)])
    specs = [BlockSpec(DTYPES["F32"], array.shape) for array in (old, new)]
    update = converting_update(specs[1], raw(new, "F32"), specs[0], raw(old, "F32"))
    assert update is not None
    assert update.kind == "resize"
    assert update.nbytes < 5 * SHAPE[1] * 4 + 400
    flat = BlockSpec(DTYPES["F32"], (old.size,))
    assert converting_update(flat, raw(old, "F32"), specs[0], raw(old, "F32")) is None
    assert encode_block(flat, raw(old, "F32"), None).encoded.kind == "dense"


def test_products_of_wide_factors_do_not_depend_on_the_order_of_sums() -> None:
    random = np.random.default_rng(0)
    limit = (1 << 30) - 1
    left = random.integers(-limit, limit, (40, 64)).astype(np.float64)
    right = random.integers(-limit, limit, (64, 50)).astype(np.float64)
    shuffle = random.permutation(64)
    old = raw(weights("F32", (40, 50)), "F32")
    for order in ("sum", "rounded"):
        one = predict(DTYPES["F32"], old.copy(), Factors(left, right, -72, order))
        other = predict(
            DTYPES["F32"], old.copy(), Factors(left[:, shuffle], right[shuffle], -72, order)
        )
        assert one.tobytes() == other.tobytes()


def test_given_factors_are_exact_whatever_they_are() -> None:
    spec = BlockSpec(DTYPES["F16"], (40, 50))
    old, new = (raw(weights("F16", (40, 50), seed), "F16") for seed in (1, 2))
    factors = Factors(np.full((40, 1), 9.0), np.full((1, 50), 1e6), 40, "sum")
    update = LowRank().encode_factors(spec, new, old, factors)
    decoded = LowRank().decode(spec, parse(b"".join(update.pieces)), old.copy())
    assert decoded.tobytes() == new.tobytes()
