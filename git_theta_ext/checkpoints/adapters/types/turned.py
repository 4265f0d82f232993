"""A change that makes new rows of a weight from its old ones: orthogonal factors on its inputs.

PEFT multiplies the weight by a matrix in float32, and rounds to the weights' dtype. Here the
factors of that matrix are applied one after the other, in float64, and the result is rounded to
float32 and then to the dtype. In exact arithmetic it is the same; PEFT's last bits depend on its
BLAS.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import memory_matrix, refuse
from git_theta_ext.checkpoints.adapters.peft_config import MERGE
from git_theta_ext.checkpoints.adapters.types.change import LawChange, Place
from git_theta_ext.updates.structured.orthogonal import Blocks, OrthogonalLaw, Reflections


def turned(
    place: Place,
    kind: str,
    rotation: Blocks | Reflections,
    factors: NDArray[np.float32] | None = None,
) -> LawChange:
    """The change of a weight of outputs × inputs; of a convolution its kernel is in the inputs.

    Args:
        place: the weight.
        kind: of the adapter.
        rotation: of the inputs.
        factors: a number for each output.

    Raises:
        UsageError: it has another number of inputs, or lies in memory in another order, or is
            float64, which PEFT rounds to float32.
    """
    tensor = place.tensor
    rows, columns, other = memory_matrix(tensor)
    inputs = rotation.columns
    if not tensor.shape or other or columns != inputs or not columns * rows:
        raise place.refuse(
            f"a rotation of {inputs} inputs does not fit tensor {tensor.name!r} of shape "
            f"{list(tensor.shape)}"
        )
    if tensor.dtype.name == "F64":
        raise refuse(place.file.path, f"tensor {tensor.name!r} is float64; PEFT rounds it", MERGE)
    return place.law(kind, OrthogonalLaw(rotation, factors))


def finite(place: Place, rotation: Blocks) -> Blocks:
    """A rotation whose blocks have no number that is infinite or NaN.

    Raises:
        UsageError: there is one.
    """
    if not all(np.isfinite(blocks).all() for blocks, _ in rotation.made):
        raise place.refuse("its blocks are not finite")
    return rotation
