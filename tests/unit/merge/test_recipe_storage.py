"""What a recipe gives when it is read is what the merge computed, whatever the strategy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.core import tensors
from git_theta_ext.core.tensors import DTYPES, TensorInfo, cut
from git_theta_ext.manifest.model import Entry, Recipe
from git_theta_ext.merge.combine.merger import merge_tensor
from git_theta_ext.merge.combine.tensor import Versions
from git_theta_ext.merge.decide.decisions import Decision
from git_theta_ext.merge.strategies.policy import parse_choice
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.storing import Chosen, Storing

INFO = TensorInfo("w", DTYPES["F32"], (300, 1000))
RANDOM = np.random.default_rng(8)
BASE = RANDOM.normal(0, 0.02, INFO.shape).astype(np.float32)
CHOICES = [
    "average", "average,weights=0.7:0.2:0.1", "reapply,lambda=0.5", "task-arithmetic,lambda=0.4",
    "ties,density=0.3", "breadcrumbs", "dare-linear,density=0.4", "dare-ties", "ours", "theirs",
    "conflict",
]  # fmt: skip


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensor has three blocks, and each more values than are drawn for at once."""
    monkeypatch.setattr(tensors, "BLOCK_VALUES", 1 << 17)


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    """An empty store."""
    return Blocks(Store(tmp_path))


def entry(blocks: Blocks, values: np.ndarray, before: Entry | None = None) -> Entry:
    """A version of the tensor."""
    found, start = [], 0
    flat = values.ravel().view(np.uint32)
    for number, spec in enumerate(cut(INFO)):
        predecessor = None if before is None else before.blocks[number]
        piece = flat[start : start + spec.count]
        found.append(blocks.write(spec, piece, predecessor=predecessor))
        start += spec.count
    return Entry(INFO, tuple(found))


def tuned(seed: int) -> np.ndarray:
    """Most entries move a little; some to nothing, and some to what is no number."""
    random = np.random.default_rng(seed)
    values = BASE + (random.random(BASE.shape) < 0.8) * random.normal(0, 2e-4, BASE.shape)
    return values.astype(np.float32)


def by(choice: str) -> Decision:
    """The tensor, to be merged by a strategy."""
    return Decision("w", "float", "changed", "changed", "merge", INFO, parse_choice(choice, ""))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("count", [2, 3])
def test_what_is_read_is_what_was_computed(blocks: Blocks, choice: str, count: int) -> None:
    if "weights" in choice and count == 2:
        choice = "average,weights=0.7:0.3"
    base = entry(blocks, BASE)
    sides = [entry(blocks, tuned(seed), base) for seed in range(count)]
    decision = by(choice)
    found = {}
    for storage in ("values", "recipe"):
        blocks.chosen = Chosen(lambda merges=storage: Storing(merges))
        before = set(blocks.store.oids())
        versions = Versions(INFO, base, sides, blocks)
        done = merge_tensor(decision, versions, several=count > 2)
        found[storage] = Entry(INFO, done.blocks)
        if storage == "recipe":
            assert set(blocks.store.oids()) == before
            assert all(isinstance(block.chain[0], Recipe) for block in done.blocks)
    for (spec, one), other in zip(found["values"].parts(), found["recipe"].blocks, strict=True):
        assert one.sha256 == other.sha256
        assert np.array_equal(blocks.read(spec, one), blocks.read(spec, other))


def test_what_a_recipe_misses_is_a_residual(blocks: Blocks) -> None:
    base, ours, theirs = BASE.copy(), tuned(1), tuned(2)
    ours[3, 5:9], theirs[3, 5:9] = np.nan, 1.0
    versions = Versions(
        INFO,
        old := entry(blocks, base),
        [entry(blocks, one, old) for one in (ours, theirs)],
        blocks,
    )
    decision = Decision(
        "w", "float", "changed", "changed", "merge", INFO, parse_choice("average", "")
    )
    done = merge_tensor(decision, versions)
    assert done.reason
    assert [[link.kind for link in block.chain] for block in done.blocks][1:] == [["merge"]] * 2
    for spec, block in Entry(INFO, done.blocks).parts():
        blocks.read(spec, block)


def test_versions_that_are_merges_are_no_parents(blocks: Blocks) -> None:
    base = entry(blocks, BASE)
    sides = [entry(blocks, tuned(seed), base) for seed in (1, 2)]
    decision = Decision(
        "w", "float", "changed", "changed", "merge", INFO, parse_choice("average", "")
    )
    once = Entry(INFO, merge_tensor(decision, Versions(INFO, base, sides, blocks)).blocks)
    twice = merge_tensor(decision, Versions(INFO, base, [once, sides[1]], blocks))
    for spec, block in Entry(INFO, twice.blocks).parts():
        assert all(not isinstance(link, Recipe) for link in block.chain[1:])
        assert block.chain[-1].kind != "merge"
        blocks.read(spec, block)


def test_rows_that_both_sides_added_are_stored_as_values(blocks: Blocks) -> None:
    """The base has fewer values than the sides, so it is no parent of theirs."""
    fewer = TensorInfo("w", INFO.dtype, (290, 1000))
    start, found = 0, []
    flat = BASE[:290].ravel().view(np.uint32)
    for spec in cut(fewer):
        found.append(blocks.write(spec, flat[start : start + spec.count]))
        start += spec.count
    sides = [entry(blocks, tuned(seed)) for seed in (1, 2)]
    versions = Versions(INFO, Entry(fewer, tuple(found)), sides, blocks)
    done = merge_tensor(by("average"), versions)
    for spec, block in Entry(INFO, done.blocks).parts():
        assert not isinstance(block.chain[0], Recipe)
        blocks.read(spec, block)
