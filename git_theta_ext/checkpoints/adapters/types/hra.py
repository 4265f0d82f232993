"""HRA (Yuan and others, "Bridging The Gap between Low-rank and Orthogonal Adaptation", 2024).

PEFT, `tuners/hra/layer.py`: `W · (I − 2 u₁u₁ᵀ) · (I − 2 u₂u₂ᵀ) …` of vectors of length 1, which are
made orthogonal first with `apply_GS`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import Change
from git_theta_ext.checkpoints.adapters.types.change import Place
from git_theta_ext.checkpoints.adapters.types.turned import turned
from git_theta_ext.updates.structured.orthogonal import Reflections

PARTS = (frozenset({"hra_u"}),)
OPTIONS = {"r", "apply_GS", "init_weights", "layers_to_transform", "layers_pattern", "bias"}


def change(place: Place, parts: Mapping[str, str]) -> Change:
    """The update of one module.

    Raises:
        UsageError: its vectors do not fit the tensor, or have no direction.
    """
    vectors = place.file.floats(parts["hra_u"])
    if vectors.ndim != 2 or vectors.shape[1] != place.config.get("r"):
        raise place.refuse(
            f"hra_u has shape {list(vectors.shape)}, and r is {place.config.get('r')!r}"
        )
    together = bool(place.config.get("apply_GS"))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        units = _orthogonal(vectors) if together else [_unit(one) for one in vectors.T]
    if not all(np.isfinite(one).all() for one in units):
        raise place.refuse("a vector of hra_u is zero or not finite")
    return turned(place, "hra", Reflections(np.stack(units), together))


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """A vector over its length, which is rounded to float32."""
    length = np.sqrt(np.square(vector.astype(np.float64)).sum()).astype(np.float32)
    found: NDArray[np.float32] = vector / length
    return found


def _orthogonal(vectors: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Gram and Schmidt, in PEFT's order: each difference is rounded to float32."""
    found: list[NDArray[np.float32]] = []
    for vector in vectors.T:
        rest = vector
        for one in found:
            along = np.float32((one.astype(np.float64) * rest).sum())
            rest = rest - along * one
        found.append(_unit(rest))
    return found
