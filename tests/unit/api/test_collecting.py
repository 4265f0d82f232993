"""Statistics that are collected while a model is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import git_theta_ext as theta
from git_theta_ext.core.errors import UsageError
from tests.scenarios.training import Adam, Model

INPUTS = np.array([[1, 2], [3, 4], [0, 1]], np.float32)
GRADIENT = np.array([[1, -2], [3, 0], [0, 5]], np.float32)


def place(folder: Path) -> Path:
    save_file({"layer.weight": np.zeros((3, 2), np.float32)}, folder / "m.safetensors")
    return folder / "m.safetensors"


def test_gradients_are_squared_and_inputs_multiplied(tmp_path: Path) -> None:
    model = Model("module._orig_mod.layer", np.zeros((3, 2)))
    with theta.collect(model, every=2) as found:
        for _ in range(3):
            model.step(INPUTS, GRADIENT)
            model.step(100 * INPUTS, 100 * GRADIENT)  # every second one is not looked at
        model.training = False
        model.step(100 * INPUTS, 100 * GRADIENT)
    model.training = True
    model.step(100 * INPUTS, 100 * GRADIENT)
    assert not model.outer
    assert not model.inner
    written = found.write(place(tmp_path))
    assert [one.name for one in written] == ["m.fisher.safetensors", "m.gram.safetensors"]
    fisher, gram = (load_file(one)["layer.weight"] for one in written)
    np.testing.assert_allclose(fisher, GRADIENT**2, rtol=1e-6)
    np.testing.assert_allclose(gram, INPUTS.T @ INPUTS / 3, rtol=1e-6)


def test_what_came_long_ago_counts_for_little() -> None:
    model = Model("layer", np.zeros((3, 2)))
    found = theta.collect(model, ("fisher",), every=1)
    model.step(INPUTS, 10 * GRADIENT)
    for _ in range(100):
        model.step(INPUTS, GRADIENT)
    value = found.statistics()["fisher"]["layer.weight"].get()
    np.testing.assert_allclose(value, GRADIENT**2, rtol=0.05)
    assert not np.allclose(value, GRADIENT**2, rtol=0.01)


def test_adam_has_it_already() -> None:
    model = Model("layer", np.zeros((3, 2)))
    adam = Adam(model)
    found = theta.collect(model, ("fisher",), optimizer=adam, every=1)
    model.step(INPUTS, GRADIENT)
    assert found.statistics() == {"fisher": {}}
    adam.step(GRADIENT**2, 1)
    model.step(INPUTS, GRADIENT)
    assert not model.weight.hooks
    adam.step(GRADIENT**2, 3)
    value = found.statistics()["fisher"]["layer.weight"].get()
    np.testing.assert_allclose(value, GRADIENT**2 / (1 - 0.99**3), rtol=1e-6)


def test_memory_is_bounded() -> None:
    model = Model("layer", np.zeros((3, 2)))
    with pytest.warns(UserWarning, match="1 layer without Gram matrices"):
        found = theta.collect(model, memory=15)
    with pytest.warns(UserWarning, match="no Fisher statistics: they would take 24"):
        model.step(INPUTS, GRADIENT)
    assert found.statistics() == {"gram": {}}
    assert not model.weight.hooks


def test_mistakes(tmp_path: Path) -> None:
    model = Model("layer", np.zeros((3, 2)))
    for wrong in (("hessian",), (), "gram"):
        with pytest.raises(UsageError, match="statistics are some of"):
            theta.collect(model, wrong)
    with pytest.raises(UsageError, match="every takes a number"):
        theta.collect(model, every=0)
    with theta.collect(model) as found, pytest.raises(UsageError, match="no fisher statistics"):
        found.write(place(tmp_path))
