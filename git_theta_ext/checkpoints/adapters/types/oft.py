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
from git_theta_ext.checkpoints.adapters.types.turned import finite, turned
from git_theta_ext.updates.structured.orthogonal import Blocks
from git_theta_ext.updates.structured.rotation import above_of, skew_of

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
    skew = skew_of(trained, size)
    if place.config.get("coft"):
        skew = _constrained(skew, place)
    rotation = Blocks(above_of(skew)[None], size, inputs, _terms(place), embedding)
    return turned(place, "oft", finite(place, rotation))


def _terms(place: Place) -> int:
    """How many terms of the series make the blocks; 0 for exact ones.

    Raises:
        UsageError: a number of terms that is none, or a release of PEFT with another series.
    """
    if not place.config.get("use_cayley_neumann", True):
        return 0
    terms = place.config.get("num_cayley_neumann_terms", 5)
    if type(terms) is not int or terms < 1:
        raise place.refuse(f"num_cayley_neumann_terms is {terms!r}")
    _require_release(place)
    return terms


def _constrained(skew: NDArray[np.float32], place: Place) -> NDArray[np.float32]:
    """Blocks within `eps` of zero, over the root of their number; larger ones are shortened."""
    eps = place.config.get("eps", 6e-5)
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not math.isfinite(eps):
        raise place.refuse(f"eps is {eps!r}, which is no number")
    most = np.float32(eps) / np.sqrt(np.float32(len(skew)))
    lengths = np.sqrt(np.square(skew.astype(np.float64)).sum(axis=(1, 2), keepdims=True))
    short = lengths.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        cut = np.where(short <= most, skew, most * (skew / short))
    return skew_of(above_of(cut), skew.shape[1])


def _require_release(place: Place) -> None:
    """The series was changed in PEFT 0.18, which also began to write its version."""
    stated = str(place.config.get("peft_version") or "0").split(".")
    numbers = [int(part) if part.isdigit() else 0 for part in stated[:2]] + [0]
    if numbers[:2] < [0, 18]:
        raise place.refuse(
            "its Cayley-Neumann series is that of PEFT before 0.18, which was another one"
        )
