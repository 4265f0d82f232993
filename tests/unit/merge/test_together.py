"""Versions read together and merged blocks stored quickly: the same as one by one, and in full."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.manifest.model import Block
from git_theta_ext.merge.combine.encoding import encode_merged
from git_theta_ext.objects.blocks import Blocks, Shared

COUNT = 70_000
SPEC = BlockSpec(DTYPES["F32"], (COUNT,))


def moved(values: np.ndarray, seed: int, share: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    step = 1e-4 * random.standard_normal(COUNT, np.float32)
    floats = values.view(np.float32) + np.where(random.random(COUNT) < share, step, 0)
    return floats.astype(np.float32).view(np.uint32)


@pytest.fixture
def base() -> np.ndarray:
    found = np.random.default_rng(0).standard_normal(COUNT, np.float32) * np.float32(0.02)
    return found.view(np.uint32)


def family(
    blocks: Blocks, base: np.ndarray, *shares: float
) -> tuple[list[np.ndarray], list[Block]]:
    first = blocks.write(SPEC, base)
    values = [base, *(moved(base, seed, share) for seed, share in enumerate(shares, 1))]
    return values, [first, *(blocks.write(SPEC, one, predecessor=first) for one in values[1:])]


@pytest.mark.parametrize("shares", [(1.0, 1.0), (1.0, 0.001), (0.001, 0.001)])
def test_versions_are_what_they_are_one_by_one(
    blocks: Blocks, base: np.ndarray, shares: tuple[float, ...]
) -> None:
    expected, stored = family(blocks, base, *shares)
    values, shared = blocks.read_together([(SPEC, one) for one in stored])
    assert all(np.array_equal(*pair) for pair in zip(values, expected, strict=True))
    assert shared is not None
    assert (shared.spec, shared.chain) == (SPEC, stored[0].chain)
    assert np.array_equal(shared.values, base)


def test_versions_that_share_nothing_are_read_one_by_one(blocks: Blocks, base: np.ndarray) -> None:
    stored = [blocks.write(SPEC, base), blocks.write(SPEC, moved(base, 1))]
    values, shared = blocks.read_together([(SPEC, one) for one in stored])
    assert shared is None
    assert np.array_equal(values[0], base)


@pytest.mark.parametrize("shares", [(1.0, 1.0), (0.001, 0.001)])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_damaged_object_is_found_wherever_it_stands(
    blocks: Blocks, base: np.ndarray, shares: tuple[float, ...], which: int
) -> None:
    _, stored = family(blocks, base, *shares)
    path = blocks.store.path(stored[which].chain[-1].oid)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(damaged)
    with pytest.raises(CorruptObjectError):
        blocks.read_together([(SPEC, one) for one in stored])


def test_a_merge_of_small_distances_is_one(blocks: Blocks, base: np.ndarray) -> None:
    values, stored = family(blocks, base, 1.0, 1.0)
    sides = [one.view(np.float32) for one in values[1:]]
    merged = ((sides[0] + sides[1]) / 2).view(np.uint32)
    encoded = encode_merged(merged, Shared(SPEC, stored[0].chain, base), stored[1:])
    assert encoded is not None
    assert encoded.kind == "delta"
    found = blocks.append(SPEC, blocks.write(SPEC, merged).sha256, stored[0].chain, encoded)
    assert np.array_equal(blocks.read(SPEC, found), merged)


def test_a_merge_far_from_the_base_is_dense(blocks: Blocks, base: np.ndarray) -> None:
    _, stored = family(blocks, base, 1.0, 1.0)
    far = np.random.default_rng(9).standard_normal(COUNT, np.float32).view(np.uint32)
    encoded = encode_merged(far, Shared(SPEC, stored[0].chain, base), stored[1:])
    assert encoded is not None
    assert encoded.kind == "dense"


def test_other_updates_are_searched_in_full(blocks: Blocks, base: np.ndarray) -> None:
    values, stored = family(blocks, base, 0.001, 1.0)
    assert encode_merged(values[1], Shared(SPEC, stored[0].chain, base), stored[1:]) is None
