"""A low-rank update gives a trainer's float32 factors back, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.updates.low_rank.factors import Trained, read_factors, read_trained
from git_theta_ext.updates.low_rank.update import LowRank
from git_theta_ext.updates.parameter_file import parse

SPEC = BlockSpec(DTYPES["F32"], (40, 50))


def drawn() -> tuple[np.ndarray, Trained]:
    """Old values, and factors with every awkward number that is finite."""
    random = np.random.default_rng(4)
    left, right = (random.normal(0, 0.1, shape).astype(np.float32) for shape in ((40, 3), (3, 50)))
    left[0] = (0.0, -0.0, 1e-45)
    left[1] = (3e38, -1e-38, 1e-7)
    return random.normal(0, 1, 2000).astype(np.float32).view(np.uint32), Trained(left, right, 2.5)


def test_the_factors_come_back_and_so_does_the_block() -> None:
    old, trained = drawn()
    new = old[::-1].copy()
    encoded = LowRank().encode_trained(SPEC, new, old, trained, "sum")
    assert encoded is not None
    file = parse(b"".join(bytes(memoryview(piece)) for piece in encoded.pieces))
    factors = read_factors(file.settings, file.parts, 2000)
    found = read_trained(file.settings, file.parts, factors)
    assert found is not None
    assert found.left.tobytes() == trained.left.tobytes()
    assert found.right.tobytes() == trained.right.tobytes()
    assert found.scaling == 2.5
    assert np.array_equal(LowRank().decode(SPEC, file, old.copy()), new)
    for exponent in (None, 1 << 40, "1"):
        with pytest.raises((CorruptObjectError, TypeError)):
            read_trained({**file.settings, "left_exponent": exponent}, file.parts, factors)


def test_what_is_no_number_or_zero_is_not_kept() -> None:
    old, trained = drawn()
    for bad in (np.nan, np.inf):
        left = trained.left.copy()
        left[3, 1] = bad
        damaged = Trained(left, trained.right, 1.0)
        assert LowRank().encode_trained(SPEC, old, old, damaged, "sum") is None
    zero = Trained(np.zeros_like(trained.left), trained.right, 1.0)
    assert LowRank().encode_trained(SPEC, old, old, zero, "sum") is None
