"""LoHa (Hyeon-Woo and others, "FedPara", 2022): the Hadamard product of two products, scaled.

PEFT, `tuners/loha/layer.py`: `((w1_a @ w1_b) * (w2_a @ w2_b)) * scale`; of convolutions with
`use_effective_conv2d` each product has a core, `hada_t1` and `hada_t2` (rank × rank × kernel).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from git_theta_ext.checkpoints.adapters.base import Change
from git_theta_ext.checkpoints.adapters.peft_config import Scaling
from git_theta_ext.checkpoints.adapters.types.change import Place
from git_theta_ext.updates.structured.hadamard import HadamardLaw
from git_theta_ext.updates.structured.sides import Side

_PLAIN = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})
PARTS = (_PLAIN, _PLAIN | {"hada_t1", "hada_t2"})
OPTIONS = {
    "r", "alpha", "rank_pattern", "alpha_pattern", "init_weights", "rank_dropout",
    "module_dropout", "use_effective_conv2d", "layers_to_transform", "layers_pattern",
}  # fmt: skip


def change(place: Place, parts: Mapping[str, str]) -> Change:
    """The update of one module.

    Raises:
        UsageError: its parts do not fit together, or the tensor.
    """
    first, second = (_side(place, parts, number) for number in "12")
    if first.shape != second.shape:
        raise place.refuse("its two products are of different shapes")
    rank = place.file.info(parts["hada_w1_b"]).shape[0]
    settings = {**place.config, "lora_alpha": place.config.get("alpha")}
    scale = np.float32(Scaling(place.file.path, settings).of(place.module, rank))
    if place.flipped(*first.shape):
        first, second = first.transposed(), second.transposed()
    return place.law("loha", HadamardLaw(first, second, float(scale)))


def _side(place: Place, parts: Mapping[str, str], number: str) -> Side:
    """One of the products: outputs × rank, rank × inputs (× kernel)."""
    left, right = (place.file.floats(parts[f"hada_w{number}_{side}"]) for side in "ab")
    if left.ndim != 2 or right.ndim != 2:
        raise place.refuse(f"hada_w{number}_a and hada_w{number}_b are no matrices")
    core = parts.get(f"hada_t{number}")
    if core is None:
        if left.shape[1] != len(right):
            raise place.refuse(f"hada_w{number}_a and hada_w{number}_b are of different ranks")
        return Side(left, right)
    middle = place.file.floats(core)
    if middle.ndim < 3 or middle.shape[:2] != (len(left), len(right)):
        raise place.refuse(f"hada_t{number} does not fit its factors")
    return Side(np.ascontiguousarray(left.T), right, middle.reshape(*middle.shape[:2], -1))
