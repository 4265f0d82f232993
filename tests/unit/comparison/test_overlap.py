"""Tensors that were resized, retyped or reshaped, against NumPy on the whole arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import ml_dtypes
import numpy as np
import pytest

from git_theta_ext.checkpoints.versions import Position
from git_theta_ext.comparison import overlap
from git_theta_ext.comparison.measure import Measure
from git_theta_ext.comparison.overlap import Pair, measure_pairs
from git_theta_ext.core import tensors
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.manifest.model import Block, Entry, Manifest

NAMES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "complex64": "C64",
    "int64": "I64", "float8_e4m3fn": "F8_E4M3",
}  # fmt: skip
LIMIT = 200
"""Bytes of a block in these tests, so that small tensors have many."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "BLOCK_BYTES", LIMIT)
    monkeypatch.setattr(overlap, "_PIECE", 13)


class MemorySide:
    """A side of a single tensor in memory."""

    def __init__(self, array: np.ndarray, order: tuple[int, ...] | None = None) -> None:
        lying = array if order is None else array.transpose(order)
        self._data = np.ascontiguousarray(lying).tobytes()
        tensor = TensorInfo("w", DTYPES[NAMES[array.dtype.name]], array.shape, order)
        self._places: list[tuple[int, int]] = []
        start = 0
        for spec in cut(tensor):
            self._places.append((start, start + spec.nbytes))
            start += spec.nbytes
        blocks = [
            Block(b - a, hashlib.sha256(self._data[a:b]).hexdigest()) for a, b in self._places
        ]
        self.entry = Entry(tensor, tuple(blocks))
        self.manifest = Manifest("safetensors", Block(0, "0" * 64), (self.entry,))

    def read(self, spec: BlockSpec, position: Position, block: Block) -> Values:
        first, stop = self._places[position[1]]
        return np.frombuffer(self._data[first:stop], values_dtype(spec.dtype))

    def structure(self) -> bytes:
        return b""

    def prepare(self, blocks: Iterable[Block]) -> None: ...

    def store_of(self, position: Position) -> None: ...

    def close(self) -> None: ...


def measured(
    old: np.ndarray | None, new: np.ndarray, order: tuple[int, ...] | None = None
) -> Measure | None:
    side = MemorySide(new, order)
    if old is None:
        (found,) = measure_pairs([Pair(None, side, None, side.entry)])
        return found
    before = MemorySide(old, order)
    (found,) = measure_pairs([Pair(before, side, before.entry, side.entry)])
    return found


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.1, 1, shape).astype(np.float32)


def check(found: Measure | None, old: np.ndarray, new: np.ndarray) -> None:
    """That a measure is that of two arrays of one shape."""
    assert found is not None
    a, b = old.astype(np.float64).ravel(), new.astype(np.float64).ravel()
    assert found.old.count == found.new.count == len(a)
    assert found.relative == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), abs=1e-12)
    assert found.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert found.old.mean == pytest.approx(a.mean())
    assert found.new.std == pytest.approx(b.std())
    assert found.largest == pytest.approx(np.abs(b - a).max())


SHAPES = [
    ((40, 7), (43, 7)), ((43, 7), (40, 7)), ((9, 31), (9, 40)), ((9, 40), (9, 31)),
    ((5, 6, 7), (5, 9, 7)), ((5, 9, 7), (5, 6, 7)), ((3, 4, 5), (3, 4, 600)),
    ((3, 4, 600), (3, 4, 5)), ((100,), (700,)), ((0, 5), (30, 5)), ((4, 300), (4, 301)),
]  # fmt: skip


@pytest.mark.parametrize(("then", "now"), SHAPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_resized(then: tuple[int, ...], now: tuple[int, ...], reverse: bool) -> None:
    order = tuple(reversed(range(len(then)))) if reverse else None
    old, new = normal(*then), normal(*now, seed=1)
    common = tuple(slice(0, min(a, b)) for a, b in zip(then, now, strict=True))
    new[common] = old[common] * np.float32(1.01)
    if old[common].size:
        new[tuple(index // 2 for index in old[common].shape)] += 5
    found = measured(old, new, order)
    assert found is not None
    assert found.changed == np.count_nonzero(old[common] != new[common])
    if not old[common].size:
        assert found.relative is None
    else:
        check(found, old[common], new[common])
        at = tuple(index // 2 for index in old[common].shape)
        lying = new if order is None else new.transpose(order)
        place = at if order is None else tuple(at[axis] for axis in order)
        assert found.largest_at == np.ravel_multi_index(place, lying.shape)
    fresh = np.ones(now, bool)
    fresh[common] = False
    assert found.grown.count == np.count_nonzero(fresh)
    if fresh.any():
        assert found.grown.mean == pytest.approx(new[fresh].astype(np.float64).mean())


def test_rows_added_and_others_unchanged() -> None:
    old = normal(60, 9)
    new = np.concatenate([old, normal(3, 9, seed=1)])
    new[61, 2] = np.nan
    found = measured(old, new)
    assert found is not None
    assert (found.changed, found.step, found.relative) == (0, 0.0, 0.0)
    assert (found.not_finite, found.not_finite_at) == (1, 61 * 9 + 2)
    assert found.grown.count == 26


def test_columns_added_with_a_nan() -> None:
    old = normal(6, 50)
    new = np.concatenate([old, normal(6, 2, seed=1)], axis=1)
    new[4, 51] = np.inf
    found = measured(old, new)
    assert found is not None
    assert (found.changed, found.not_finite, found.not_finite_at) == (0, 1, 4 * 52 + 51)


@pytest.mark.parametrize("target", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_a_plain_cast(target: type) -> None:
    old = normal(70, 9)
    new = old.astype(target)
    found = measured(old, new)
    check(found, old, new)
    assert found is not None
    assert found.changed == 0
    if target is np.float64:
        assert found.relative == 0
    new[3, 3] *= 2
    again = measured(old, new)
    assert again is not None
    assert (again.changed, again.largest_at) == (1, 3 * 9 + 3)


def test_a_cast_to_eight_bits() -> None:
    old = normal(70, 9)
    found = measured(old, old.astype(ml_dtypes.float8_e4m3fn))
    assert found is not None
    assert found.changed == 0
    assert found.relative is not None
    assert 0.01 < found.relative < 0.05


def test_a_cast_and_more_rows() -> None:
    old = normal(50, 9)
    new = np.concatenate([old, normal(5, 9, seed=1)]).astype(ml_dtypes.bfloat16)
    found = measured(old, new)
    check(found, old, new[:50])
    assert found is not None
    assert (found.changed, found.grown.count) == (0, 45)


def test_other_shapes() -> None:
    old = normal(12, 30)
    same = measured(old, old.reshape(30, 12))
    assert same is not None
    assert same.changed == 0
    assert measured(old, old.T.copy()) is None
    check(measured(old, (old * 2).reshape(12, 1, 30)), old, old * 2)
    assert measured(old, normal(13, 31)) is None
    assert measured(old, normal(12, 30, 2)) is None


def test_integers_and_floats_are_not_compared() -> None:
    assert measured(normal(5, 5), np.ones((5, 5), np.int64)) is None
    whole = measured(np.arange(100), np.arange(110))
    assert whole is not None
    assert (whole.changed, whole.relative) == (0, None)


def test_places_of_complex_numbers_are_those_of_elements() -> None:
    old = (normal(9, 9) + 1j * normal(9, 9, seed=1)).astype(np.complex64)
    new = old.copy()
    new[7, 3] += 40j
    found = measured(old, new)
    assert found is not None
    assert found.largest_at == 7 * 9 + 3


def test_an_added_tensor_is_described() -> None:
    new = normal(80, 9)
    new[70, 1] = np.nan
    found = measured(None, new)
    assert found is not None
    assert found.grown.mean == pytest.approx(np.nanmean(new.astype(np.float64)))
    assert found.grown.std == pytest.approx(np.nanstd(new.astype(np.float64)))
    assert (found.not_finite, found.not_finite_at, found.relative) == (1, 70 * 9 + 1, None)
    assert measured(None, np.arange(9)) is None
