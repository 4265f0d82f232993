"""OFT (Qiu and others, "Controlling Text-to-Image Diffusion by Orthogonal Finetuning", 2023).

PEFT, `tuners/oft/layer.py`: `R · Wᵀ`, transposed, where R has orthogonal blocks on its diagonal.
Each is the Cayley transform of a skew-symmetric matrix, of which the upper triangle is trained:
exact, or by some terms of Neumann's series (`use_cayley_neumann`). Of an embedding it is `W · R`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import Change
from git_theta_ext.checkpoints.adapters.types.change import Place
from git_theta_ext.checkpoints.adapters.types.turned import (
    Wide,
    by_blocks,
    cayley,
    product,
    require_finite,
    turned,
)

PARTS = (frozenset({"oft_R"}), frozenset({"oft_embedding_R"}))
OPTIONS = {
    "r", "oft_block_size", "module_dropout", "fan_in_fan_out", "bias", "init_weights",
    "layers_to_transform", "layers_pattern", "coft", "eps", "block_share", "use_cayley_neumann",
    "num_cayley_neumann_terms",
}  # fmt: skip


def change(place: Place, parts: Mapping[str, str]) -> Change:
    """The update of one module.

    Raises:
        UsageError: its blocks do not fit the tensor or each other, or were made by a release of
            PEFT whose series was another one.
    """
    embedding = "oft_embedding_R" in parts
    trained = place.file.floats(next(iter(parts.values())))
    inputs = place.tensor.count // max(place.tensor.shape[0] if place.tensor.shape else 1, 1)
    if trained.ndim != 2 or "oft_block_size" not in place.config:
        raise place.refuse(
            "its blocks are those of PEFT before 0.14, which it does not read either"
        )
    size = (1 + math.isqrt(1 + 8 * trained.shape[1])) // 2
    count = inputs // size
    if size * (size - 1) // 2 != trained.shape[1] or count * size != inputs:
        raise place.refuse(f"blocks of {trained.shape[1]} numbers do not fit {inputs} inputs")
    shared = bool(place.config.get("block_share"))
    if len(trained) != (1 if shared else count):
        raise place.refuse(f"{len(trained)} blocks of {size} do not fit {inputs} inputs")
    with np.errstate(over="ignore", invalid="ignore"):
        blocks = _blocks(place, trained, size)
    require_finite(place, blocks)
    if len(blocks) != count:
        blocks = np.broadcast_to(blocks, (count, size, size))
    if embedding:
        blocks = blocks.swapaxes(1, 2)

    def turn(_: slice, rows: Wide) -> Wide:
        return by_blocks(blocks, rows)

    return turned(place, "oft", inputs, turn)


def _blocks(place: Place, trained: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The orthogonal blocks, in PEFT's order of operations."""
    skew = np.zeros((len(trained), size, size), np.float32)
    above = np.triu_indices(size, 1)
    skew[:, above[0], above[1]] = trained
    skew = skew - skew.swapaxes(1, 2)
    if place.config.get("coft"):
        skew = _constrained(skew, above, place)
    if not place.config.get("use_cayley_neumann", True):
        return cayley(skew)
    terms = place.config.get("num_cayley_neumann_terms", 5)
    if type(terms) is not int or terms < 1:
        raise place.refuse(f"num_cayley_neumann_terms is {terms!r}")
    _require_release(place)
    return _series(skew, terms)


def _series(skew: NDArray[np.float32], terms: int) -> NDArray[np.float32]:
    """I + 2Q + 2Q² + … and the last power once."""
    found = np.broadcast_to(np.eye(skew.shape[1], dtype=np.float32), skew.shape)
    if terms > 1:
        found = found + np.float32(2) * skew
    if terms > 2:
        power = product(skew, skew)
        found = found + np.float32(2) * power
        for _ in range(3, terms - 1):
            power = product(power, skew)
            found = found + np.float32(2) * power
        found = found + product(power, skew)
    return found


def _constrained(
    skew: NDArray[np.float32], above: tuple[NDArray[np.intp], ...], place: Place
) -> NDArray[np.float32]:
    """Blocks within `eps` of zero, over the root of their number; larger ones are shortened."""
    eps = place.config.get("eps", 6e-5)
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not math.isfinite(eps):
        raise place.refuse(f"eps is {eps!r}, which is no number")
    most = np.float32(eps) / np.sqrt(np.float32(len(skew)))
    lengths = np.sqrt(np.square(skew.astype(np.float64)).sum(axis=(1, 2), keepdims=True))
    short = lengths.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        cut = np.where(short <= most, skew, most * (skew / short))
    found = np.zeros_like(skew)
    found[:, above[0], above[1]] = cut[:, above[0], above[1]]
    return found - found.swapaxes(1, 2)


def _require_release(place: Place) -> None:
    """The series was changed in PEFT 0.18, which also began to write its version."""
    stated = str(place.config.get("peft_version") or "0").split(".")
    numbers = [int(part) if part.isdigit() else 0 for part in stated[:2]] + [0]
    if numbers[:2] < [0, 18]:
        raise place.refuse(
            "its Cayley-Neumann series is that of PEFT before 0.18, which was another one"
        )
