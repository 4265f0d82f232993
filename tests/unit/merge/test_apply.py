"""Whole merges without Git, against a model of them in a few lines of Python."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from git_theta_ext.merge.combine.apply import Merged, merge
from git_theta_ext.merge.conflicts.explain import plan_lines
from git_theta_ext.merge.decide.kinds import kind_of
from git_theta_ext.merge.decide.plan import make_plan
from git_theta_ext.merge.strategies.arrays import merge_arrays
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from tests.scenarios.checkpoints import Tensors, awkward
from tests.scenarios.checkpoints import safetensors as file_of
from tests.scenarios.merged import TYPES, content, manifest


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    return Blocks(Store(tmp_path_factory.mktemp("store")))


def run(blocks: Blocks, *versions: Tensors, choice: Choice = CONFLICT) -> Merged:
    base, ours, theirs = (manifest(blocks, one) for one in versions)
    return merge(base, ours, theirs, blocks, lambda _: choice)


SMALL = st.integers(0, 3).map(lambda value: np.full(3, value, np.float32))
SIDE = st.dictionaries(st.sampled_from("abcdef"), SMALL, max_size=6)


@given(SIDE, SIDE, SIDE)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_tensors_merge_as_the_keys_of_dictionaries_do(
    blocks: Blocks,
    base: dict[str, np.ndarray],
    ours: dict[str, np.ndarray],
    theirs: dict[str, np.ndarray],
) -> None:
    merged = run(blocks, base, ours, theirs)
    expected, open_names = {}, set()
    for name in {*base, *ours, *theirs}:
        old, mine, yours = (
            None if name not in one else one[name].tobytes() for one in (base, ours, theirs)
        )
        value = yours if mine == old else mine
        if old not in (mine, yours) and mine != yours:
            open_names.add(name)
        if value is not None:
            expected[name] = value
    assert set(merged.open) == open_names
    found = merged.manifest.by_name()
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert b"".join(block.inline or b"" for block in found[name].blocks) == value
    content(blocks, merged)
    swapped = run(blocks, base, theirs, ours)
    assert set(swapped.open) == open_names
    settled = {entry for entry in merged.manifest.entries if entry.tensor.name not in open_names}
    assert settled <= set(swapped.manifest.entries)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_entries_merge_as_three_way_as_tensors_do(blocks: Blocks, seed: int) -> None:
    random = np.random.default_rng(seed)
    kinds = [np.float32, np.float16, ml_dtypes.bfloat16, np.int64, ml_dtypes.float8_e4m3fn]
    kind = np.dtype(kinds[seed % len(kinds)])
    base = random.integers(-9, 9, 200).astype(kind)
    ours, theirs = base.copy(), base.copy()
    for side in (ours, theirs):
        places = random.choice(200, random.integers(0, 20), replace=False)
        side[places] = random.integers(-9, 9, len(places)).astype(kind)
    merged = run(blocks, {"w": base}, {"w": ours}, {"w": theirs})
    bits = [one.view(f"u{kind.itemsize}") for one in (base, ours, theirs)]
    collide = (bits[1] != bits[0]) & (bits[2] != bits[0]) & (bits[1] != bits[2])
    assert bool(merged.open) == bool(collide.any())
    expected = np.where((bits[2] != bits[0]) & ~collide, bits[2], bits[1]).view(kind)
    assert content(blocks, merged) == file_of({"w": expected})


def test_a_side_that_did_nothing_changes_nothing(blocks: Blocks) -> None:
    base, changed = awkward(), awkward()
    changed["tiny"] = changed["tiny"] * 2
    for versions in ((base, changed, base), (base, base, changed)):
        merged = run(blocks, *versions)
        assert not merged.open
        assert content(blocks, merged) == file_of(changed)


@pytest.mark.parametrize("kind", ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_blending_is_rounded_once_in_every_dtype(blocks: Blocks, kind: str) -> None:
    dtype = next(key for key, value in TYPES.items() if value == kind)
    base = np.zeros(300).astype(dtype)
    ours, theirs = np.linspace(1, 2, 300).astype(dtype), np.linspace(2, 3, 300).astype(dtype)
    merged = run(blocks, {"w": base}, {"w": ours}, {"w": theirs}, choice=Choice("average"))
    mean = (ours.astype(np.float64) + theirs.astype(np.float64)) / 2
    assert content(blocks, merged) == file_of({"w": mean.astype(dtype)})


def test_an_average_sees_only_entries_that_both_changed(blocks: Blocks) -> None:
    base = np.zeros(100, np.float32)
    ours, theirs = base.copy(), base.copy()
    ours[:2], theirs[1:3] = 2, 4
    merged = run(blocks, {"w": base}, {"w": ours}, {"w": theirs}, choice=Choice("average"))
    expected = base.copy()
    expected[:3] = (2, 3, 4)
    assert content(blocks, merged) == file_of({"w": expected})
    measure = merged.outcomes[0].measure
    assert measure is not None
    assert (measure.entries, measure.collided) == (100, 1)
    assert measure.cosine == pytest.approx(8 / (8 * 32) ** 0.5)
    assert measure.ratio == pytest.approx(2)


def test_infinity_stops_a_whole_tensor_strategy_and_equal_ones_do_not(blocks: Blocks) -> None:
    base, ours, theirs = (np.full(100, value, np.float32) for value in (0, 1, 2))
    for one in (base, ours, theirs):
        one[7] = -np.inf
    ties = Choice("ties", (("density", 1.0),))
    merged = run(blocks, {"w": base}, {"w": ours}, {"w": theirs}, choice=ties)
    assert not merged.open
    ours[8] = np.inf
    merged = run(blocks, {"w": base}, {"w": ours}, {"w": theirs}, choice=ties)
    assert "NaN or infinite" in merged.open["w"]


@pytest.mark.parametrize("name", ["fisher", "regmean"])
def test_without_statistics_a_tensor_stays_open(blocks: Blocks, name: str) -> None:
    base, ours, theirs = (np.full((8, 8), value, np.float32) for value in (0, 1, 2))
    merged = run(blocks, {"w": base}, {"w": ours}, {"w": theirs}, choice=Choice(name))
    assert "statistics of both sides" in merged.open["w"]


def test_zero_resets_optimizer_state(blocks: Blocks) -> None:
    name = "optimizer.state.0.exp_avg"
    versions = [{name: np.full(300, value, np.float32)} for value in (1, 2, 3)]
    assert "never blended" in run(blocks, *versions, choice=Choice("average")).open[name]
    merged = run(blocks, *versions, choice=Choice("zero"))
    assert content(blocks, merged) == file_of({name: np.zeros(300, np.float32)})


def test_tied_tensors_stay_tied_under_random_masks(blocks: Blocks) -> None:
    versions = []
    for value in (0, 1, 3):
        one = np.full(500, value, np.float32) + np.arange(500, dtype=np.float32) * (value > 0)
        versions.append({"embedding": one, "head": one})
    merged = run(blocks, *versions, choice=Choice("dare-linear"))
    first, second = merged.manifest.entries
    assert first.blocks[0].sha256 == second.blocks[0].sha256


def test_a_model_without_any_change_needs_no_values(blocks: Blocks, tmp_path: Path) -> None:
    one = manifest(blocks, {"w": np.zeros(1000, np.float32)})
    nothing = Blocks(Store(tmp_path / "empty"))
    assert merge(one, one, one, nothing).manifest == one


@pytest.mark.parametrize(
    ("tensors", "name", "kind"),
    [
        ({"bn.running_var": np.ones(4, np.float32)}, "bn.running_var", "batchnorm"),
        ({"bn.num_batches_tracked": np.array(3)}, "bn.num_batches_tracked", "counter"),
        ({"position_ids": np.arange(4)}, "position_ids", "integer"),
        ({"logit_scale": np.array(1.0)}, "logit_scale", "weights"),
        ({"c.weight": np.ones(4), "c.scale": np.ones(1)}, "c.weight", "weights"),
        ({"c.weight": np.ones(4), "c.scale": np.ones(1)}, "c.scale", "weights"),
        ({"progress.step": np.array(4.0)}, "progress.step", "counter"),
    ],
)  # fmt: skip
def test_kinds_of_tensors(blocks: Blocks, tensors: Tensors, name: str, kind: str) -> None:
    entries = {entry.tensor.name: entry for entry in manifest(blocks, tensors).entries}
    assert kind_of(entries[name]) == kind


def test_a_plan_is_printable_data(blocks: Blocks) -> None:
    versions = [
        manifest(blocks, tensors)
        for tensors in (
            {"a": np.zeros(99), "b": np.zeros(99), "ids": np.zeros(99, np.int64)},
            {"a": np.ones(99), "b": np.ones(99), "ids": np.ones(99, np.int64)},
            {"a": np.ones(99) * 2, "b": np.zeros(99), "ids": np.zeros(99, np.int64) + 2},
        )
    ]
    plan = make_plan(*versions, lambda _: Choice("ties"))
    assert list(plan_lines(plan)) == [
        "a    ours changed  theirs changed  entry by entry; where both changed: ties",
        "b    ours changed  theirs kept     ours",
        "ids  ours changed  theirs changed  entry by entry; where both changed: open",
        "as they were on both sides: 0 tensors",
    ]


def test_a_strategy_over_several_blocks_is_that_of_the_whole_tensor(blocks: Blocks) -> None:
    random = np.random.default_rng(3)
    base = random.normal(size=(9000, 1000)).astype(np.float32)
    ours, theirs = base + np.float32(0.5), base - random.random(base.shape).astype(np.float32)
    choice = Choice("ties", (("density", 0.3),))
    merged = run(blocks, {"w": base}, {"w": ours}, {"w": theirs}, choice=choice)
    assert not merged.open
    assert len(merged.manifest.entries[0].blocks) == 2
    expected = merge_arrays(choice, base, [ours, theirs])
    assert content(blocks, merged) == file_of({"w": expected})


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_side_for_a_quantised_group_is_that_side_throughout(blocks: Blocks, side: str) -> None:
    codes, scales = np.zeros(400, np.int32), np.ones(400, np.float16)
    base = {"q.qweight": codes, "q.scales": scales}
    versions = {
        "ours": {**base, "q.qweight": codes + 1},
        "theirs": {**base, "q.scales": scales * 2},
    }
    merged = run(blocks, base, versions["ours"], versions["theirs"], choice=Choice(side))
    assert not merged.open
    assert content(blocks, merged) == file_of(versions[side])


@pytest.mark.parametrize("side", ["ours", "theirs", "base"])
def test_a_side_settles_what_cannot_be_compared(blocks: Blocks, side: str) -> None:
    kept = np.zeros(50, np.float32)
    versions = {
        "base": {"a": kept, "b": np.zeros((4, 30), np.float32)},
        "ours": {"a": kept, "b": np.ones((4, 31), np.float32)},
        "theirs": {"a": kept, "b": np.ones((5, 32), np.float32)},
    }
    everything = [versions[name] for name in ("base", "ours", "theirs")]
    merged = run(blocks, *everything)
    assert merged.open == {"b": "ours is F32 [4, 31], theirs is F32 [5, 32]"}
    assert content(blocks, merged) == file_of(versions["ours"])
    merged = run(blocks, *everything, choice=Choice(side))
    assert not merged.open
    assert content(blocks, merged) == file_of(versions[side])


@pytest.mark.parametrize(("side", "there"), [("ours", False), ("theirs", True)])
def test_removed_here_and_changed_there_is_settled_by_a_side(
    blocks: Blocks, side: str, there: bool
) -> None:
    base = {"a": np.zeros(50, np.float32), "b": np.zeros(50, np.float32)}
    theirs = {**base, "b": np.ones(50, np.float32)}
    merged = run(blocks, base, {"a": base["a"]}, theirs, choice=Choice(side))
    assert not merged.open
    assert content(blocks, merged) == file_of(theirs if there else {"a": base["a"]})


@pytest.mark.parametrize("kind", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("grown", [(2, 3), (2, 2), (4, 1)])
@pytest.mark.parametrize("width", [None, 3])
def test_rows_that_both_added_are_stacked(
    blocks: Blocks, kind: type, grown: tuple[int, int], width: int | None
) -> None:
    random = np.random.default_rng(0)
    tail = () if width is None else (width,)
    old = random.normal(size=(5, *tail)).astype(kind)
    ours, theirs = old.copy(), old.copy()
    ours[0], theirs[1] = 7, 8  # rows that one side changed
    ours[2], theirs[2] = 1, 3  # one that both did
    mine, yours = (random.normal(size=(count, *tail)).astype(kind) for count in grown)
    versions = [
        {"e": old}, {"e": np.concatenate([ours, mine])}, {"e": np.concatenate([theirs, yours])}
    ]  # fmt: skip
    left = run(blocks, *versions)
    assert "stack keeps both" in left.open["e"]
    merged = run(blocks, *versions, choice=Choice("stack"))
    assert not merged.open
    common = old.copy()
    common[0], common[1], common[2] = 7, 8, 2
    assert content(blocks, merged) == file_of({"e": np.concatenate([common, mine, yours])})
    kept = run(blocks, *versions, choice=Choice("stack", (("weights", (1.0, 0.0)),)))
    common[2] = 1
    assert content(blocks, kept) == file_of({"e": np.concatenate([common, mine, yours])})


def test_stacked_rows_cross_the_edges_of_blocks(blocks: Blocks) -> None:
    rows = np.arange(10_500 * 1000, dtype=np.float32).reshape(-1, 1000)
    old, mine, yours = rows[:4000], rows[4000:7500], rows[7500:]
    sides = [{"e": np.concatenate([old, added])} for added in (mine, yours)]
    merged = run(blocks, {"e": old}, *sides, choice=Choice("stack"))
    assert not merged.open
    assert len(merged.manifest.entries[0].blocks) == 2
    assert content(blocks, merged) == file_of({"e": rows})
