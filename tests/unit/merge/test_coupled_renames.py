"""Coupled tensors that hold the structure, under names that a side changed; copies of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from git_theta_ext.manifest.model import Manifest
from git_theta_ext.merge.combine import skeleton
from git_theta_ext.merge.combine.apply import Merged, merge
from git_theta_ext.merge.combine.several import merge_several
from git_theta_ext.merge.decide.plan import make_plan
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.objects.blocks import Blocks
from tests.scenarios.checkpoints import Tensors
from tests.scenarios.checkpoints import safetensors as file_of
from tests.scenarios.coupled_layouts import Types, version
from tests.scenarios.merged import content, manifest

BASE: Tensors = {
    "l.weight": np.ones((16, 16), ml_dtypes.float8_e4m3fn),
    "n.weight": np.ones(64, np.float32),
}
CODES = {**BASE, "l.weight": BASE["l.weight"] * 2}
PLAIN = {**BASE, "n.weight": BASE["n.weight"] * 2}


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: value for name, value in tensors.items()}


def merged_of(blocks: Blocks, base: Tensors, sides: Sequence[Tensors], strategy: str) -> Merged:
    versions = [manifest(blocks, one) for one in sides]
    old = manifest(blocks, base)
    if len(versions) == 2:
        return merge(old, *versions, blocks, lambda _: Choice(strategy))
    return merge_several(old, versions, blocks, lambda _: Choice(strategy))


@pytest.mark.parametrize("strategy", ["conflict", "ours", "theirs", "base", "average"])
@pytest.mark.parametrize(("count", "place"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_codes_that_one_side_renamed_and_another_trained_fit_their_structure(
    blocks: Blocks, strategy: str, count: int, place: int
) -> None:
    sides = [CODES, PLAIN][: count - 1]
    sides.insert(place, under("module.", BASE))
    found = merged_of(blocks, BASE, sides, strategy)
    # It can be written, and every tensor has its new name.
    assert set(found.manifest.by_name()) == set(under("module.", BASE))
    data = content(blocks, found)
    if strategy in ("ours", "theirs", "base"):
        assert not found.open
        trained = {**BASE, "n.weight": PLAIN["n.weight"]} if count == 3 else BASE
        wanted = [file_of(under("module.", {**trained, "l.weight": one["l.weight"]}))
                  for one in (BASE, CODES)]  # fmt: skip
        assert data in wanted
    else:
        assert list(found.open) == ["module.l.weight"]
        assert "side" in found.open["module.l.weight"]


@pytest.mark.parametrize("strategy", ["conflict", "ours", "theirs", "base"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_pickle_with_old_names_never_holds_tensors_with_new_ones(
    blocks: Blocks, strategy: str, place: int
) -> None:
    types: Types = {"l.weight": ("QI8", (16, 16)), "n.weight": ("F32", (8, 8))}
    new = {f"module.{name}": kind for name, kind in types.items()}
    sides: list[Manifest] = [version(types, {"l.weight": 1}, "torch-zip", 1)]
    sides.insert(place, _with_contents_of(version(types, {}), version(new, {}, "torch-zip", 2)))
    plan = make_plan(
        version(types, {}, "torch-zip"), *sides, lambda _: Choice(strategy)
    )  # fmt: skip
    holder = skeleton.settle(plan, blocks)
    assert set(holder.tensors) == set(new)
    assert holder.side == ("ours", "theirs")[place]
    # Ours stands for an open group; else the reason says that the side that was taken cannot.
    taken = "ours" if strategy == "conflict" else strategy
    assert bool(holder.reason) == (taken != holder.side)


def _with_contents_of(old: Manifest, now: Manifest) -> Manifest:
    """A version under new names with the old tensors' contents, in the same order."""
    pairs = zip(old.entries, now.entries, strict=True)
    return replace(now, entries=tuple(replace(new, blocks=before.blocks) for before, new in pairs))


EMBED = np.arange(1024, dtype=np.float32).reshape(32, 32)
OLD: Tensors = {"embed": EMBED, "o": np.zeros(8, np.float32)}
COPY = {**OLD, "head": EMBED}
TRAINED = {**OLD, "embed": EMBED + 1}
OTHER = {**OLD, "o": np.ones(8, np.float32)}


@pytest.mark.parametrize("sides", [(COPY, TRAINED, OTHER), (OTHER, COPY, TRAINED)])
def test_a_copy_follows_what_another_of_several_trained(
    blocks: Blocks, sides: Sequence[Tensors]
) -> None:
    found = merged_of(blocks, OLD, sides, "theirs")
    assert not found.open
    wanted = {"embed": EMBED + 1, "o": OTHER["o"], "head": EMBED + 1}
    entries = found.manifest.by_name()
    expected = manifest(blocks, wanted).by_name()
    assert {name: entry.blocks[0].sha256 for name, entry in entries.items()} == {
        name: entry.blocks[0].sha256 for name, entry in expected.items()
    }
    left = merged_of(blocks, OLD, sides, "average")
    assert list(left.open) == ["head"]
