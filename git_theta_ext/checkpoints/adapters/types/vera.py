"""VeRA (Kopiczko and others, 2024): two vectors scale the factors that all modules share.

PEFT, `tuners/vera/layer.py`: `(lambda_b * B) @ (lambda_d * A)`, of as much of A and B as the layer
needs. They are random, and in the file where `save_projection` is set; else only PyTorch's own
random numbers give them, and the adapter is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import Change, refuse
from git_theta_ext.checkpoints.adapters.peft_config import MERGE
from git_theta_ext.checkpoints.adapters.types.change import Place
from git_theta_ext.updates.structured.sides import product

PARTS = (frozenset({"vera_lambda_b", "vera_lambda_d"}),)
SHARED = ("vera_A", "vera_B")
OPTIONS = {
    "r", "projection_prng_key", "save_projection", "vera_dropout", "d_initial", "fan_in_fan_out",
    "bias", "init_weights", "layers_to_transform", "layers_pattern",
}  # fmt: skip


def change(place: Place, parts: Mapping[str, str]) -> Change:
    """The update of one module.

    Raises:
        UsageError: its parts do not fit together, or the tensor; or the factors are not there.
    """
    stored = [f"base_model.{one}" for one in SHARED]
    if not all(name in place.file for name in stored):
        raise refuse(
            place.file.path,
            "cannot be added: its factors vera_A and vera_B are not in the file, and only the "
            "random numbers of PyTorch give them",
            f"save it with save_projection=True, or {MERGE}",
        )
    down, up = (place.file.floats(name) for name in stored)
    of_outputs, of_ranks = (
        place.file.floats(parts[one]).ravel() for one in ("vera_lambda_b", "vera_lambda_d")
    )
    outputs = len(of_outputs)
    inputs = place.tensor.count // max(outputs, 1)
    if down.ndim != 2 or up.ndim != 2 or not len(down) == len(of_ranks) == up.shape[1]:
        raise place.refuse("its vectors do not fit vera_A and vera_B")
    if outputs > len(up) or inputs > down.shape[1]:
        raise place.refuse(f"vera_A and vera_B are too small for {outputs} × {inputs}")
    with np.errstate(over="ignore", invalid="ignore"):
        left = of_outputs[:, None] * up[:outputs]
        right = of_ranks[:, None] * down[:, :inputs]
    if place.flipped(outputs, inputs):
        left, right = right.T, left.T

    def rows(some: slice) -> NDArray[np.float32]:
        return product(left, right, some)

    return place.delta("vera", rows, (left, right, 1.0))
