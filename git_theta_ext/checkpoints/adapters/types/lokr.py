"""LoKr (Yeh and others, "LyCORIS", 2024): the Kronecker product of two matrices, scaled.

PEFT, `tuners/lokr/layer.py`: `kron(w1, w2) * scale`, where each is whole (`lokr_w1`), or a product
(`lokr_w1_a @ lokr_w1_b`), or of a convolution with `use_effective_conv2d` a product with a core
(`lokr_t2`). Of whole matrices every bit is PEFT's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from git_theta_ext.checkpoints.adapters.base import Change
from git_theta_ext.checkpoints.adapters.peft_config import Scaling
from git_theta_ext.checkpoints.adapters.types.change import Place, matrix
from git_theta_ext.updates.structured.kronecker import KroneckerLaw
from git_theta_ext.updates.structured.sides import Side

_FIRST = (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"}))
_SECOND = (
    frozenset({"lokr_w2"}),
    frozenset({"lokr_w2_a", "lokr_w2_b"}),
    frozenset({"lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
)
PARTS = tuple(one | other for one in _FIRST for other in _SECOND)
OPTIONS = {
    "r", "alpha", "rank_pattern", "alpha_pattern", "init_weights", "rank_dropout",
    "rank_dropout_scale", "module_dropout", "use_effective_conv2d", "decompose_both",
    "decompose_factor", "layers_to_transform", "layers_pattern",
}  # fmt: skip


def change(place: Place, parts: Mapping[str, str]) -> Change:
    """The update of one module.

    Raises:
        UsageError: its parts do not fit together, or the tensor.
    """
    first, second = _side(place, parts, "1"), _side(place, parts, "2")
    settings = {**place.config, "lora_alpha": place.config.get("alpha")}
    scaling = Scaling(place.file.path, settings)
    rank = scaling.rank(place.module)
    if type(rank) is not int or rank < 1:
        raise place.refuse(f"r is {rank!r}, which is no rank")
    scale = np.float32(scaling.of(place.module, rank))
    (rows, columns), (height, width) = first.shape, second.shape
    if place.flipped(rows * height, columns * width):
        first, second = first.transposed(), second.transposed()
    count = first.shape[0] * second.shape[0]
    return place.law("lokr", KroneckerLaw(first, second, float(scale), 0, count))


def _side(place: Place, parts: Mapping[str, str], number: str) -> Side:
    """One of the two matrices; the kernel of a convolution stands in its columns."""
    whole = parts.get(f"lokr_w{number}")
    if whole is not None:
        found = place.file.floats(whole)
        if found.ndim < 2:
            raise place.refuse(f"lokr_w{number} is no matrix")
        return Side(matrix(found))
    left, right = (place.file.floats(parts[f"lokr_w{number}_{side}"]) for side in "ab")
    core = parts.get(f"lokr_t{number}")
    if core is None:
        left, right = matrix(left), matrix(right)
        if left.shape[1] != len(right):
            raise place.refuse(f"lokr_w{number}_a and lokr_w{number}_b are of different ranks")
        return Side(left, right)
    middle = place.file.floats(core)
    if middle.ndim < 3 or middle.shape[:2] != (len(left), len(right)):
        raise place.refuse(f"lokr_t{number} does not fit its factors")
    core_matrix = middle.reshape(*middle.shape[:2], -1)
    return Side(np.ascontiguousarray(matrix(left).T), matrix(right), core_matrix)
