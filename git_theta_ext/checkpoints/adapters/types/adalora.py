"""AdaLoRA (Zhang and others, 2023): B · (A · E), by alpha over the rank that training began with.

PEFT, `tuners/adalora/layer.py`: `B @ (A * E) * scaling / (ranknum + 1e-5)`. Modules that lost ranks
keep the first one as their `ranknum`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import Change
from git_theta_ext.checkpoints.adapters.types.change import Place
from git_theta_ext.updates.structured.sides import product

_PARTS = frozenset({"lora_A", "lora_B", "lora_E"})
PARTS = (_PARTS, _PARTS | {"ranknum"})
OPTIONS = {
    "r", "lora_alpha", "init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2",
    "orth_reg_weight", "total_step", "rank_pattern", "fan_in_fan_out", "bias", "init_lora_weights",
    "lora_dropout", "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size",
    "loftq_config",
}  # fmt: skip


def change(place: Place, parts: Mapping[str, str]) -> Change | None:
    """The update of one module; None of one that has no rank left.

    Raises:
        UsageError: its parts do not fit together, or the tensor.
    """
    down, up, values = (place.file.floats(parts[one]) for one in ("lora_A", "lora_B", "lora_E"))
    if down.ndim != 2 or up.ndim != 2 or values.shape != (len(down), 1):
        raise place.refuse("its parts are of other shapes than those of AdaLoRA")
    if up.shape[1] != len(down):
        raise place.refuse(f"lora_A has rank {len(down)} and lora_B has rank {up.shape[1]}")
    if not len(down):
        return None
    begun = place.config.get("init_r")
    if "ranknum" in parts:
        begun = float(place.file.floats(parts["ranknum"]).ravel()[0])
    alpha = place.config.get("lora_alpha")
    numbers = [one for one in (begun, alpha) if isinstance(one, (int, float))]
    if len(numbers) < 2 or not all(np.isfinite(numbers)):
        raise place.refuse(f"init_r is {begun!r} and lora_alpha {alpha!r}: expected numbers")
    scaling = np.float32(numbers[1] if numbers[1] > 0 else numbers[0])
    divisor = np.float32(numbers[0]) + np.float32(1e-5)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = down * values
    left, right = (up, scaled)
    if place.flipped(len(up), down.shape[1]):
        left, right = scaled.T, up.T

    def rows(some: slice) -> NDArray[np.float32]:
        return product(left, right, some) * scaling / divisor

    return place.delta("adalora", rows, (left, right, float(scaling / divisor)))
