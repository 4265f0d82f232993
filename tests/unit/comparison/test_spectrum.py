"""Singular values of updates, against NumPy's of the whole difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.checkpoints.versions import StoredSide
from git_theta_ext.comparison import spectrum
from git_theta_ext.comparison.compare import Change, Comparison, compare
from git_theta_ext.comparison.spectrum import with_spectra
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.objects.blocks import Blocks, sha256
from git_theta_ext.objects.store.store import Store
from git_theta_ext.updates.low_rank.factors import Factors
from git_theta_ext.updates.low_rank.update import LowRank

SHAPE = (96, 80)


class History:
    """Versions of one matrix, each stored against the one before it."""

    def __init__(self, root: Path) -> None:
        self.blocks = Blocks(Store(root))
        self.sides: list[StoredSide] = []
        self.arrays: list[np.ndarray] = []

    def add(self, array: np.ndarray) -> str:
        """Store a version; the kind of its update."""
        spec = BlockSpec(DTYPES["F32"], array.shape)
        before = self.sides[-1].manifest.entries[0].blocks[0] if self.sides else None
        block = self.blocks.write(spec, array.ravel().view(np.uint32), predecessor=before)
        self.append(array, block)
        return block.chain[-1].kind

    def append(self, array: np.ndarray, block: Block) -> None:
        """Take up a version that has been stored."""
        entry = Entry(TensorInfo("w", DTYPES["F32"], array.shape), (block,))
        skeleton = Block(1, "0" * 64, (), b"x")
        self.sides.append(StoredSide(Manifest("safetensors", skeleton, (entry,)), self.blocks))
        self.arrays.append(array)

    def spectrum(self, old: int, new: int, *, sketched: bool = False) -> Change:
        a, b = self.sides[old], self.sides[new]
        found: Comparison = with_spectra(compare(a, b), a, b, sketched=sketched)
        (change,) = found.changes
        return change

    def exact(self, old: int, new: int) -> np.ndarray:
        step = self.arrays[new].astype(np.float64) - self.arrays[old]
        return np.linalg.svd(step, compute_uv=False)


def product(random: np.random.Generator, rank: int, size: float = 1e-3) -> np.ndarray:
    left, right = random.normal(0, 1, (SHAPE[0], rank)), random.normal(0, 1, (rank, SHAPE[1]))
    return (left @ right * size).astype(np.float32)


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A first version, two merges of LoRA, and a full fine-tune."""
    random = np.random.default_rng(0)
    found = History(tmp_path)
    first = random.normal(0, 0.02, SHAPE).astype(np.float32)
    found.add(first)
    assert found.add(first + product(random, 4)) == "low-rank"
    assert found.add(found.arrays[-1] + product(random, 2)) == "low-rank"
    tuned = found.arrays[-1] + random.normal(0, 1e-4, SHAPE).astype(np.float32)
    found.add(tuned)
    return found


@pytest.mark.parametrize(("old", "new", "rank"), [(0, 1, 4), (1, 2, 2), (0, 2, 6)])
def test_from_factors(history: History, old: int, new: int, rank: int) -> None:
    found = history.spectrum(old, new).spectrum
    assert found is not None
    assert not found.estimated
    assert len(found.values) == rank
    assert found.values == pytest.approx(history.exact(old, new)[:rank], rel=1e-4)


def test_sketches_only_when_asked(history: History) -> None:
    assert history.spectrum(2, 3).spectrum is None
    found = history.spectrum(2, 3, sketched=True).spectrum
    assert found is not None
    assert found.estimated
    exact = history.exact(2, 3)
    assert found.values[:3] == pytest.approx(exact[:3], rel=0.2)
    assert all(a <= b * 1.0001 for a, b in zip(found.values, exact, strict=False))
    assert found == history.spectrum(2, 3, sketched=True).spectrum


def test_a_low_rank_part_is_called_so(history: History) -> None:
    random = np.random.default_rng(1)
    sides = random.integers(-9, 9, (96, 2)), random.integers(-9, 9, (2, 80))
    factors = Factors(sides[0].astype(np.float64), sides[1].astype(np.float64), -16, "sum")
    noise = random.normal(0, 1e-3, SHAPE)
    new = (history.arrays[0] + sides[0] @ sides[1] * 2.0**-16 + noise).astype(np.float32)
    old = history.arrays[0].ravel().view(np.uint32)
    spec = BlockSpec(DTYPES["F32"], SHAPE)
    made = LowRank().encode_factors(spec, new.ravel().view(np.uint32), old, factors)
    before = history.sides[0].manifest.entries[0].blocks[0]
    chain = (*before.chain, UpdateRef("low-rank", *history.blocks.store.put(made.pieces)))
    history.append(new, Block(new.nbytes, sha256(new.ravel().view(np.uint32)), chain))
    found = history.spectrum(0, 4).spectrum
    assert found is not None
    assert found.partial
    assert len(found.values) == 2
    pure = history.spectrum(0, 1).spectrum
    assert pure is not None
    assert not pure.partial


def test_backwards_there_are_no_factors(history: History) -> None:
    assert history.spectrum(1, 0).spectrum is None
    found = history.spectrum(1, 0, sketched=True).spectrum
    assert found is not None
    assert found.values[:4] == pytest.approx(history.exact(0, 1)[:4], rel=1e-3)


def test_values_that_are_not_finite_have_none(history: History) -> None:
    lost = history.arrays[-1].copy()
    lost[0, 0] = np.nan
    history.add(lost)
    assert history.spectrum(3, 4, sketched=True).spectrum is None


def test_only_some_are_told(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "SHOWN", 0)
    assert history.spectrum(0, 1).spectrum is None
