"""Rows in another order: what is recognised, what is not, and what a damaged order does."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.find import smallest_update
from git_theta_ext.updates.parameter_file import build, parse
from git_theta_ext.updates.permute import Permute, unit_of

GATES = BlockSpec(DTYPES["F32"], (1, 512, 64))


def normal(spec: BlockSpec, seed: int = 0) -> Values:
    values = np.random.default_rng(seed).normal(0, 0.1, spec.count).astype(np.float32)
    return values.view(np.uint32)


def decoded(spec: BlockSpec, update: Encoded, base: Values) -> Values:
    return Permute().decode(spec, parse(b"".join(update.pieces)), base.copy())


def test_gates_in_another_order_cost_nothing() -> None:
    base = normal(GATES)
    gates = base.reshape(4, -1)[[0, 3, 1, 2]].ravel()
    update = smallest_update(GATES, gates, base)
    assert update is not None
    assert (update.kind, update.info) == ("permute", (("moved", "512"),))
    assert update.nbytes < 300
    assert np.array_equal(decoded(GATES, update, base), gates)


@pytest.mark.parametrize(
    "shape", [(300, 40), (6, 50, 48), (64, 8, 3, 3), (2000, 32), (9, 10, 2, 40)]
)
def test_any_order_of_rows(shape: tuple[int, ...]) -> None:
    spec = BlockSpec(DTYPES["F32"], shape)
    base = normal(spec)
    unit = unit_of(spec, spec.count)
    order = np.random.default_rng(1).permutation(spec.count // unit)
    new = base.reshape(-1, unit)[order].ravel()
    update = Permute().encode(spec, new, base)
    assert update is not None
    assert update.nbytes < 4 * len(order) + 400
    assert np.array_equal(decoded(spec, update, base), new)


def test_rows_that_also_changed_are_exact() -> None:
    base = normal(GATES)
    new = base.reshape(4, -1)[[2, 0, 3, 1]].ravel()
    new[::977] ^= np.uint32(5)
    new[100 * 64 : 110 * 64] = normal(GATES, 1)[: 10 * 64]
    update = smallest_update(GATES, new, base)
    assert update is not None
    assert update.kind == "permute"
    assert update.nbytes < 0.05 * new.nbytes
    assert np.array_equal(decoded(GATES, update, base), new)


def test_repeated_rows_come_from_some_row_alike() -> None:
    base = normal(GATES)
    base.reshape(-1, 64)[10:20] = base.reshape(-1, 64)[10]
    new = base.reshape(-1, 64)[::-1].ravel()
    update = Permute().encode(GATES, new, base)
    assert update is not None
    assert np.array_equal(decoded(GATES, update, base), new)


@pytest.mark.parametrize("new", [normal(GATES), normal(GATES, 1), np.zeros(GATES.count, np.uint32)])
def test_what_has_not_moved_is_no_permutation(new: Values) -> None:
    assert Permute().encode(GATES, new, normal(GATES)) is None


@pytest.mark.parametrize("shape", [(4096,), (2048, 2), (1, 4096), (0, 64), ()])
def test_blocks_without_rows_are_none(shape: tuple[int, ...]) -> None:
    spec = BlockSpec(DTYPES["F32"], shape)
    values = normal(spec)
    assert Permute().encode(spec, values[::-1].copy(), values) is None


@pytest.mark.parametrize("row", [0, -1, 7, "64", True, 1 << 40, None])
def test_rows_of_an_impossible_length(row: object) -> None:
    base = normal(GATES)
    file = parse(b"".join(build("permute", {"coder": "exact", "row": row}, {"order": b""})))
    if row == 7 and len(base) % 7 == 0:
        pytest.fail("choose a length that does not divide the block")
    with pytest.raises(CorruptObjectError):
        Permute().decode(GATES, file, base)


def test_an_order_that_leaves_the_block() -> None:
    base = normal(GATES)
    update = Permute().encode(GATES, base.reshape(4, -1)[::-1].ravel(), base)
    assert update is not None
    file = parse(b"".join(update.pieces))
    small = BlockSpec(DTYPES["F32"], (1, 128, 64))
    with pytest.raises(CorruptObjectError):
        Permute().decode(small, file, base[: small.count].copy())


def test_a_dense_copy_is_never_smaller() -> None:
    base = normal(GATES)
    new = np.random.default_rng(2).permutation(base.reshape(-1, 64)).ravel()
    update = smallest_update(GATES, new, base)
    assert update is not None
    assert update.nbytes < 0.02 * Dense().encode(GATES, new).nbytes
