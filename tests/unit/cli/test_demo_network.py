"""The network of the demonstration really learns, and only what it is told to."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta_ext.cli.demo import network


@pytest.fixture(scope="module")
def trained() -> network.Tensors:
    return network.train(
        network.new(), network.draw(4000, seed=1), head="digit", epochs=6, rate=1e-3, seed=2
    )


def test_drawing_is_deterministic_and_labelled() -> None:
    first, again = network.draw(50, seed=3), network.draw(50, seed=3)
    assert np.array_equal(first.pixels, again.pixels)
    assert first.pixels.shape == (50, 100)
    assert first.pixels.dtype == np.float32
    digits = first.labels["digit"]
    assert np.array_equal(first.labels["odd"], digits % 2)
    assert np.array_equal(first.labels["large"], digits >= 5)


def test_training_learns(trained: network.Tensors) -> None:
    exam = network.draw(1000, seed=9)
    assert network.accuracy(network.new(), exam)["digit"] < 0.3
    assert network.accuracy(trained, exam)["digit"] > 0.75


def test_only_the_named_tensors_move(trained: network.Tensors) -> None:
    only = ("head.odd.weight", "head.odd.bias")
    special = network.train(
        trained, network.draw(500, seed=4), head="odd", only=only, epochs=1, rate=1e-3, seed=5
    )
    for name, value in trained.items():
        same = special[name].tobytes() == value.tobytes()
        assert same is (name not in only), name
    assert all(value.dtype == np.float32 for value in special.values())


def test_gradients_agree_with_finite_differences() -> None:
    images = network.draw(8, seed=6)
    tensors = {name: value.astype(np.float64) for name, value in network.new(7).items()}
    pixels, labels = images.pixels.astype(np.float64), images.labels["digit"]

    def loss() -> float:
        hidden = network._encode(tensors, pixels)[-1]
        scores = network._scores(tensors, "digit", hidden)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return float(-np.log(shares[np.arange(8), labels]).mean())

    gradients = network._gradients(tensors, "digit", pixels, labels)
    for name in ("encoder.0.weight", "encoder.1.bias", "head.digit.weight"):
        value = tensors[name]
        place = np.unravel_index(np.abs(gradients[name]).argmax(), value.shape)
        kept = value[place]
        value[place] = kept + 1e-6
        above = loss()
        value[place] = kept - 1e-6
        below = loss()
        value[place] = kept
        assert (above - below) / 2e-6 == pytest.approx(gradients[name][place], rel=1e-3)
