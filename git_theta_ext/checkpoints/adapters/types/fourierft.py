"""FourierFT (Gao and others, 2024): some entries of the update's spectrum are trained.

PEFT, `tuners/fourierft/layer.py`: the real part of the inverse two-dimensional Fourier transform
of the spectrum, times a number. Where its entries are is not in the file: at the first numbers of a
random permutation, which PyTorch draws on the CPU from `random_loc_seed`. Here they are drawn in
the same way, by Fisher and Yates with numbers of the Mersenne Twister (PyTorch, `randperm` in
ATen/native/TensorFactories.cpp). The transform is computed in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import Change, refuse
from git_theta_ext.checkpoints.adapters.peft_config import MERGE
from git_theta_ext.checkpoints.adapters.types.change import Place

PARTS = (frozenset({"fourierft_spectrum"}),)
OPTIONS = {
    "n_frequency", "n_frequency_pattern", "scaling", "random_loc_seed", "fan_in_fan_out", "bias",
    "init_weights", "layers_to_transform", "layers_pattern",
}  # fmt: skip
_MOST = (2**32 - 1) // 20
"""Elements up to which PyTorch draws numbers of 32 bits."""
_FREQUENCIES = 1 << 20
"""Each row takes time and memory for all of them; PEFT's default is 1,000. So many at once."""


def change(place: Place, parts: Mapping[str, str]) -> Change:
    """The update of one module.

    Raises:
        UsageError: its spectrum does not fit the tensor, or its settings are no numbers.
    """
    spectrum = place.file.floats(parts["fourierft_spectrum"])
    seed, scaling = place.config.get("random_loc_seed"), place.config.get("scaling")
    if type(seed) is not int:
        raise place.refuse(f"random_loc_seed is {seed!r}, which is no whole number")
    if isinstance(scaling, bool) or not isinstance(scaling, (int, float)):
        raise place.refuse(f"scaling is {scaling!r}, which is no number")
    outputs, inputs, flipped = _sides(place)
    if spectrum.ndim != 1 or not 0 < len(spectrum) <= outputs * inputs:
        raise place.refuse(f"a spectrum of {list(spectrum.shape)} does not fit its weight")
    if outputs * inputs >= _MOST or len(spectrum) > _FREQUENCIES:
        raise refuse(
            place.file.path,
            f"module {place.module!r}: more than {_FREQUENCIES} frequencies, or {_MOST} weights, "
            "are not known here",
            MERGE,
        )
    places = first_of_permutation(outputs * inputs, len(spectrum), seed)
    ups, rights = places // inputs, places % inputs
    lengths = outputs, inputs
    if flipped:
        ups, rights, lengths = rights, ups, (inputs, outputs)
    wide, scale = spectrum.astype(np.float64), np.float32(scaling)

    def rows(some: slice) -> NDArray[np.float32]:
        step = max(1, _FREQUENCIES // len(wide))
        pieces = [
            slice(first, min(first + step, some.stop))
            for first in range(some.start, some.stop, step)
        ]
        halves = [_half(wide, (ups, rights), lengths, piece) for piece in pieces]
        return np.fft.ifft(np.concatenate(halves), axis=1).real.astype(np.float32) * scale

    return place.delta("fourierft", rows)


def _sides(place: Place) -> tuple[int, int, bool]:
    """Outputs and inputs of the layer, and whether the weight lies as inputs × outputs."""
    shape = place.tensor.shape
    if len(shape) != 2:
        raise place.refuse(f"its weight of shape {list(shape)} is no matrix")
    if place.config.get("fan_in_fan_out"):
        flipped = place.flipped(shape[1], shape[0])
        return shape[1], shape[0], flipped
    return shape[0], shape[1], place.flipped(shape[0], shape[1])


def _half(
    spectrum: NDArray[np.float64],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    lengths: tuple[int, int],
    some: slice,
) -> NDArray[Any]:
    """Some rows of the spectrum, transformed along the columns alone; complex128."""
    ups, rights = places
    count = some.stop - some.start
    numbers = np.arange(some.start, some.stop)
    angles = (numbers[:, None] * ups % lengths[0]) * (2 * math.pi / lengths[0])
    values = spectrum * np.exp(1j * angles) / lengths[0]
    order = np.argsort(rights, kind="stable")
    columns, firsts = np.unique(rights[order], return_index=True)
    found = np.zeros((count, lengths[1]), np.complex128)
    found[:, columns] = np.add.reduceat(values[:, order], firsts, axis=1)
    return found


def first_of_permutation(count: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """The first numbers of `torch.randperm(count)` with a generator of that seed."""
    drawn = np.random.RandomState(seed & 0xFFFFFFFF).randint(0, 1 << 32, wanted, np.uint32)
    moved: dict[int, int] = {}
    found = np.empty(wanted, np.int64)
    for place, number in enumerate(drawn.tolist()):
        other = place + number % (count - place)
        found[place] = moved.get(other, other)
        moved[other] = moved.get(place, place)
    return found
