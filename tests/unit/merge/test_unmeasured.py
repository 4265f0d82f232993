"""Tensors that no side measured, among others that all did: they are averaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from git_theta_ext.merge.strategies.arrays import Arrays
from git_theta_ext.merge.strategies.table import get


class Unmeasured(Arrays):
    """Sides of a matrix, such as an embedding, of which there are no statistics."""

    def statistic(self, kind: str) -> tuple[NDArray[Any], ...]:
        return ()


@pytest.mark.parametrize("name", ["regmean", "fisher"])
def test_a_matrix_without_statistics_is_averaged(name: str) -> None:
    random = np.random.default_rng(0)
    base, *matrices = (random.normal(size=(6, 5)) for _ in range(4))
    sides = Unmeasured(base, matrices, "embed.weight")
    combine = get(name).prepare(sides)
    merged = np.concatenate([combine(piece) for piece in sides])
    assert merged == pytest.approx(np.mean(matrices, axis=0).ravel())
