"""BOFT (Liu and others, "Orthogonal Finetuning via Butterfly Factorization", 2024).

PEFT, `tuners/boft/layer.py`: `M · Wᵀ`, transposed, and each output times its own number. M is a
product of factors; each has orthogonal blocks on its diagonal (Cayley transforms), between two
permutations. With one factor, all that PEFT makes without its CUDA extension, nothing is permuted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from git_theta_ext.checkpoints.adapters.base import Change
from git_theta_ext.checkpoints.adapters.types.change import Place
from git_theta_ext.checkpoints.adapters.types.turned import finite, turned
from git_theta_ext.updates.structured.orthogonal import Blocks
from git_theta_ext.updates.structured.rotation import above_of

PARTS = (frozenset({"boft_R", "boft_s"}),)
OPTIONS = {
    "boft_block_size", "boft_block_num", "boft_n_butterfly_factor", "boft_dropout",
    "fan_in_fan_out", "bias", "init_weights", "layers_to_transform", "layers_pattern",
}  # fmt: skip


def change(place: Place, parts: Mapping[str, str]) -> Change:
    """The update of one module.

    Raises:
        UsageError: its parts do not fit together, or the tensor.
    """
    trained = place.file.floats(parts["boft_R"])
    scales = place.file.floats(parts["boft_s"]).ravel()
    if trained.ndim != 4 or trained.shape[2] != trained.shape[3] or not trained.size:
        raise place.refuse(f"boft_R has shape {list(trained.shape)}")
    factors, count, size, _ = trained.shape
    outputs = place.tensor.shape[0] if place.tensor.shape else 0
    if len(scales) != outputs:
        raise place.refuse(f"boft_s has {len(scales)} numbers for {outputs} outputs")
    if factors > 1 and (size % 2 or count % (1 << (factors - 1))):
        raise place.refuse(f"{count} blocks of {size} make no {factors} butterfly factors")
    with np.errstate(over="ignore", invalid="ignore"):
        half = np.float32(0.5) * (trained - trained.swapaxes(2, 3))
    rotation = finite(place, Blocks(above_of(half), size, count * size))
    return turned(place, "boft", rotation, scales)
