"""Factors blended by their product, against the product that numpy computes in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np
import pytest

from git_theta_ext.core.limits import ADAPTER_CONFIG_BYTES
from git_theta_ext.merge.combine.apply import Merged, merge
from git_theta_ext.merge.decide.scaling import Configs, Scalings, Text, Unknown
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.objects.blocks import Blocks
from tests.scenarios.checkpoints import Tensors
from tests.scenarios.factors import MODULE, A, B, config, factors, load
from tests.scenarios.merged import content, manifest

SHARES = {
    "average": (0.5, 0.5, 0.0),
    "task-arithmetic": (1.0, 1.0, -1.0),
    "reapply": (1.0, 1.0, -1.0),
}
Three = tuple[int, int, int]


def merged(
    blocks: Blocks, versions: Sequence[Tensors], texts: Sequence[Text], strategy: str = "average"
) -> Merged:
    """Merge ours, theirs and the base, with their configurations and that of the result."""
    ours, theirs, base = (manifest(blocks, one) for one in versions)
    scalings = Scalings(lambda: Configs.parse(texts[:3], texts[3]))
    return merge(base, ours, theirs, blocks, lambda _: Choice(strategy), scalings=scalings)


def product(tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(tensors[B].astype(np.float64) @ tensors[A].astype(np.float64))


def cut_off(wanted: np.ndarray, rank: int) -> float:
    """What the best product of a rank misses of a matrix, as a share of its length."""
    sizes = np.linalg.svd(wanted, compute_uv=False)
    return float(np.linalg.norm(sizes[rank:]) / np.linalg.norm(sizes))


@pytest.mark.parametrize(
    ("kind", "rounding"),
    [(np.float32, 1e-6), (np.float16, 2e-3), (ml_dtypes.bfloat16, 2e-2)],
)
@pytest.mark.parametrize("strategy", SHARES)
@pytest.mark.parametrize("ranks", [(4, 8, 4), (8, 4, 4), (8, 4, 16), (4, 8, 2), (4, 4, 4)])
def test_ranks_that_differ(
    blocks: Blocks, kind: type, rounding: float, strategy: str, ranks: Three
) -> None:
    versions = [factors(seed, rank, kind) for seed, rank in enumerate(ranks)]
    top = max(ranks[:2])
    found = merged(blocks, versions, [*map(config, ranks), config(top)], strategy)
    assert found.open == {}
    made = load(content(blocks, found))
    assert made[A].shape == (top, 40)
    assert made[B].shape == (24, top)
    assert made[A].dtype == versions[0][A].dtype
    scaled = [16 / rank * product(one) for rank, one in zip(ranks, versions, strict=True)]
    wanted = sum(w * one for w, one in zip(SHARES[strategy], scaled, strict=True))
    assert isinstance(wanted, np.ndarray)
    missed = cut_off(wanted, top)
    assert missed > 0.1
    got = np.linalg.norm(16 / top * product(made) - wanted) / np.linalg.norm(wanted)
    assert got == pytest.approx(missed, abs=rounding)
    (note,) = [one.note for one in found.outcomes if one.note]
    assert f"with rank {top}; {100 * missed:.3g} % of its length was cut off" in note


@pytest.mark.parametrize(
    ("texts", "scales", "target"),
    [
        ([config(4, 8), config(4, 32), config(4, 8), config(4, 32)], (2, 8), 8),
        ([config(4, use_rslora=True), config(9, use_rslora=True), config(4), config(13)],
         (8, 16 / 3), 16 / 13),
        ([config(4, alpha_pattern={"q": 2}), config(9), config(4),
          config(2, rank_pattern={"l.0.q": 13})], (0.5, 16 / 9), 16 / 13),
        ([config(4), config(2, rank_pattern={"q": 9}), config(4),
          config(99, rank_pattern={"q": 13})], (4, 16 / 9), 16 / 13),
    ],
)  # fmt: skip
def test_each_version_counts_as_it_is_scaled(
    blocks: Blocks, texts: list[bytes], scales: tuple[float, float], target: float
) -> None:
    """Where the configuration of the merge has room for both, the result is exact."""
    ranks = (4, 4 if scales[1] == 8 else 9)
    ours, theirs = (factors(seed, rank) for seed, rank in enumerate(ranks))
    if ranks == (4, 4):  # so that the sum still has rank 4
        theirs[A] = ours[A]
    found = merged(blocks, [ours, theirs, factors(5, 4)], texts)
    assert found.open == {}
    made = load(content(blocks, found))
    wanted = (scales[0] * product(ours) + scales[1] * product(theirs)) / 2
    assert np.allclose(target * product(made), wanted, rtol=0, atol=1e-5)
    assert any("e-" in one.note or " 0 %" in one.note for one in found.outcomes)


def test_one_factor_alone_is_not_blended_where_its_scale_changed(blocks: Blocks) -> None:
    ours, theirs, base = (factors(seed, 4) for seed in range(3))
    versions = [{**one, A: base[A]} for one in (ours, theirs, base)]
    same = merged(blocks, versions, [config(4)] * 4)
    assert same.open == {}
    mean = (ours[B].astype(np.float64) + theirs[B]) / 2
    assert np.array_equal(load(content(blocks, same))[B], mean.astype(np.float32))
    other = merged(blocks, versions, [config(4), config(4, 32), config(4), config(4, 32)])
    assert "scale their product differently" in other.open[B]
    assert np.array_equal(load(content(blocks, other))[B], ours[B])


CLASH = Unknown("both sides changed it")


@pytest.mark.parametrize(
    ("ranks", "texts", "why"),
    [
        ((4, 8, 4), [None] * 4, "no adapter_config.json is tracked beside it"),
        ((4, 8, 4), [config(4), None, config(4), config(4)], "not beside it in every version"),
        ((4, 8, 4), [config(4), config(8), config(4), CLASH], "both sides changed it"),
        ((4, 8, 4), [config(4), config(8), config(4), None], "the merge has no adapter_config"),
        ((4, 8, 4), [config(4), config(8), config(4), config(4)], "rank 4, and a side has 8"),
        ((4, 8, 4), [config(4), config(8), config(4), config(8, 0)], "scales them by zero"),
        ((4, 8, 4), [config(4), config(9), config(4), config(9)], "has factors of rank 8"),
        ((4, 4, 4), [config(4), config(4, 8), config(4), b"{"], "is no JSON"),
        ((4, 4, 4), [config(4), b"[]", config(4), config(4)], "is no JSON object"),
        ((4, 4, 4), [config(4, peft_type="ADALORA"), *[config(4)] * 3], "are not a LoRA"),
        ((4, 4, 4), [config(4, use_bdlora=True)] * 4, "sets use_bdlora"),
        ((4, 4, 4), [config(4, use_dora=True), *[config(4)] * 3], "use_dora"),
        ((4, 4, 4), [config(4, "x")] * 4, "lora_alpha is 'x'"),
        ((4, 8, 4), [config(4), config(8), config(4), config(8, rank_pattern={"q": "9"})], "'9'"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_stays_open(
    blocks: Blocks, ranks: Three, texts: list[Text], why: str
) -> None:
    versions = [factors(seed, rank) for seed, rank in enumerate(ranks)]
    found = merged(blocks, versions, texts)
    assert list(found.open) == [A]
    assert "their product cannot be blended" in found.open[A]
    assert why in found.open[A]
    made = load(content(blocks, found))
    assert all(np.array_equal(made[name], versions[0][name]) for name in (A, B))


@pytest.mark.parametrize("more", ["alpha", "lora_magnitude_vector", "lora_B.bias"])
def test_a_tensor_that_hangs_on_the_scaling_keeps_it(blocks: Blocks, more: str) -> None:
    beside = {f"{MODULE}.{more}": np.ones(24, np.float32)}
    versions = [{**factors(seed, rank), **beside} for seed, rank in enumerate((4, 8, 4))]
    found = merged(blocks, versions, [config(4), config(8), config(4), config(8)])
    assert f"{more} beside them depends on their scaling" in found.open[A]
    alike = [{**factors(seed, 4), **beside} for seed in range(3)]
    assert merged(blocks, alike, [config(4)] * 4).open == {}


@pytest.mark.parametrize(("value", "why"), [(60_000, "beyond the range of F16"), (np.nan, "NaN")])
def test_numbers_that_are_none_leave_ours_as_it_is(blocks: Blocks, value: float, why: str) -> None:
    ours, theirs, base = (
        factors(seed, rank, np.float16) for seed, rank in ((0, 4), (1, 8), (2, 4))
    )
    theirs[A][:], theirs[B][:] = value, value
    found = merged(blocks, [ours, theirs, base], [config(4), config(8), config(4), config(8, 0.1)])
    assert why in found.open[A]
    made = load(content(blocks, found))
    assert all(np.array_equal(made[name], ours[name]) for name in (A, B))


def test_embeddings_are_blended_too(blocks: Blocks) -> None:
    names = {A: f"{MODULE}.lora_embedding_A", B: f"{MODULE}.lora_embedding_B"}
    versions = [
        {names[name]: value for name, value in factors(seed, rank).items()}
        for seed, rank in enumerate((4, 8, 4))
    ]
    found = merged(blocks, versions, [config(4), config(8), config(4), config(12)])
    made = load(content(blocks, found))
    left, right = made[names[B]].astype(np.float64), made[names[A]].astype(np.float64)
    wanted = sum(
        s * v[names[B]].astype(np.float64) @ v[names[A]]
        for s, v in zip((2, 1), versions, strict=False)
    )
    assert np.allclose(16 / 12 * left @ right, wanted, rtol=0, atol=1e-5)


def test_convolutions_stay_a_conflict(blocks: Blocks) -> None:
    versions = [
        {name: value.reshape(*value.shape, 1, 1) for name, value in factors(seed, 4).items()}
        for seed in range(3)
    ]
    assert A in merged(blocks, versions, [config(4)] * 4).open


def test_a_configuration_beyond_the_limit_is_not_read() -> None:
    large = Unknown(f"larger than {ADAPTER_CONFIG_BYTES}")
    found = Configs.parse([large, config(4), config(4)], config(4)).weigh("q", (4, 4, 4))
    assert found == large
