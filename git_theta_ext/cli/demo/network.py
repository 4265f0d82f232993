"""A small network that reads drawn digits: data made in code, training in NumPy, in seconds.

A shared encoder of two layers and three heads: which digit it is, whether it is odd, and whether it
is five or more. Small enough to train while one waits, and of the shape of what people fine-tune.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[np.float32]]

HEADS = {"digit": 10, "odd": 2, "large": 2}
"""Head -> number of classes."""

_SIDE = 10
_WIDTH = 384
_NOISE = 0.3
_GLYPHS = """
.###. ..#.. .###. ####. ...#. ##### ..##. ##### .###. .###.
#...# .##.. #...# ....# ..##. #.... .#... ....# #...# #...#
#..## ..#.. ....# ....# .#.#. ####. #.... ...#. #...# #...#
#.#.# ..#.. ...#. .###. #..#. ....# ####. ..#.. .###. .####
##..# ..#.. ..#.. ....# ##### ....# #...# .#... #...# ....#
#...# ..#.. .#... ....# ...#. #...# #...# .#... #...# ...#.
.###. .###. ##### ####. ...#. .###. .###. .#... .###. .##..
"""


@dataclass(frozen=True, slots=True)
class Images:
    """Drawn digits: `pixels` is float32 [count, 100]; `labels` maps each head to its classes."""

    pixels: NDArray[np.float32]
    labels: dict[str, NDArray[np.int64]]


def draw(count: int, seed: int) -> Images:
    """`count` digits at random places in a square of 10 by 10 pixels, under much noise."""
    random = np.random.default_rng(seed)
    rows = [line.split() for line in _GLYPHS.split("\n") if line]
    glyphs = np.array(
        [[[char == "#" for char in row[digit]] for row in rows] for digit in range(10)], np.float32
    )
    digits = random.integers(0, 10, count)
    images = random.normal(0, _NOISE, (count, _SIDE, _SIDE)).astype(np.float32)
    height, width = glyphs.shape[1:]
    downs = random.integers(0, _SIDE - height + 1, count)
    rights = random.integers(0, _SIDE - width + 1, count)
    for image, digit, down, right in zip(images, digits, downs, rights, strict=True):
        image[down : down + height, right : right + width] += glyphs[digit]
    labels = {"digit": digits, "odd": digits % 2, "large": (digits >= 5).astype(np.int64)}
    return Images(images.reshape(count, -1), labels)


def new(seed: int = 0) -> Tensors:
    """An untrained network: float32 weights [out, in] and biases [out], by usual names."""
    random = np.random.default_rng(seed)
    layers = {"encoder.0": (_WIDTH, _SIDE * _SIDE), "encoder.1": (_WIDTH, _WIDTH)}
    layers |= {f"head.{name}": (classes, _WIDTH) for name, classes in HEADS.items()}
    tensors: Tensors = {}
    for name, (rows, columns) in layers.items():
        scale = np.sqrt(2 / columns)
        tensors[f"{name}.weight"] = random.normal(0, scale, (rows, columns)).astype(np.float32)
        tensors[f"{name}.bias"] = np.zeros(rows, np.float32)
    return tensors


def accuracy(tensors: Tensors, images: Images) -> dict[str, float]:
    """The share of images that each head gets right."""
    hidden = _encode(tensors, images.pixels)[-1]
    return {
        head: float(np.mean(np.argmax(_scores(tensors, head, hidden), axis=1) == labels))
        for head, labels in images.labels.items()
    }


def train(
    tensors: Tensors,
    images: Images,
    *,
    head: str,
    only: Collection[str] | None = None,
    epochs: int,
    rate: float,
    seed: int,
) -> Tensors:
    """A network after training for one head with Adam (Kingma and Ba, 2015) on cross-entropy.

    Tensors that are not trained come back with the bits that they had.

    Args:
        tensors: float32, by name; they are not changed.
        images: what is learned from.
        head: the name of the head, which says what is to be told apart.
        only: names of the tensors to train; None: the encoder and this head.
        epochs: how often each image is seen.
        rate: Adam's step size.
        seed: of the order in which images are seen.
    """
    trained = {name: value.copy() for name, value in tensors.items()}
    optimiser = _Adam(rate)
    for pixels, labels in _batches(images, head, epochs, seed):
        gradients = _gradients(trained, head, pixels, labels)
        moving = gradients if only is None else {name: gradients[name] for name in only}
        optimiser.step(trained, moving)
    return trained


def _batches(
    images: Images, head: str, epochs: int, seed: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    random = np.random.default_rng(seed)
    count = len(images.pixels)
    for _ in range(epochs):
        for chosen in np.array_split(random.permutation(count), max(1, count // 128)):
            yield images.pixels[chosen], images.labels[head][chosen]


def _encode(tensors: Tensors, pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The input and the activations of both layers of the encoder."""
    activations = [pixels]
    for layer in ("encoder.0", "encoder.1"):
        before = activations[-1] @ tensors[f"{layer}.weight"].T + tensors[f"{layer}.bias"]
        activations.append(np.maximum(before, 0))
    return activations


def _scores(tensors: Tensors, head: str, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    return hidden @ tensors[f"head.{head}.weight"].T + tensors[f"head.{head}.bias"]


def _gradients(
    tensors: Tensors, head: str, pixels: NDArray[np.float32], labels: NDArray[np.int64]
) -> Tensors:
    """The gradients of the mean cross-entropy, for the encoder and this head only."""
    activations = _encode(tensors, pixels)
    scores = _scores(tensors, head, activations[-1])
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(labels)), labels] -= 1
    back = shares / np.float32(len(labels))
    gradients: Tensors = {}
    for layer, inputs in zip(
        (f"head.{head}", "encoder.1", "encoder.0"), activations[::-1], strict=True
    ):
        gradients[f"{layer}.weight"] = back.T @ inputs
        gradients[f"{layer}.bias"] = back.sum(axis=0)
        back = (back @ tensors[f"{layer}.weight"]) * (inputs > 0)
    return gradients


class _Adam:
    """The optimiser, with the paper's constants."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._first: Tensors = {}
        self._second: Tensors = {}
        self._steps = 0

    def step(self, tensors: Tensors, gradients: Tensors) -> None:
        self._steps += 1
        bias = np.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps)
        rate = np.float32(self._rate * bias)
        for name, gradient in gradients.items():
            first = self._first.setdefault(name, np.zeros_like(gradient))
            second = self._second.setdefault(name, np.zeros_like(gradient))
            first += np.float32(0.1) * (gradient - first)
            second += np.float32(0.001) * (gradient * gradient - second)
            tensors[name] -= rate * first / (np.sqrt(second) + np.float32(1e-8))
