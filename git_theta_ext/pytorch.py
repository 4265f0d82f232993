"""Tensors for PyTorch: the only module that imports torch, and only when one of these is called."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.arrays import EXTENDED
from git_theta_ext.errors import UsageError
from git_theta_ext.tensors import TensorInfo

Array = NDArray[Any]


def _torch() -> Any:
    try:
        import torch  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UsageError(
            "torch is not installed", hint="pip install 'git-theta-ext[torch]'"
        ) from error
    return torch


def to_torch(info: TensorInfo, array: Array) -> Any:
    """A torch tensor that shares the array's memory.

    Raises:
        UsageError: torch is not installed, or has no such dtype.
    """
    torch = _torch()
    name = EXTENDED.get(info.dtype.name)
    if name is None:
        return torch.from_numpy(array)
    dtype = getattr(torch, name, None)
    if dtype is None:
        raise UsageError(f"this torch has no dtype {name} (tensor {info.name!r})")
    return torch.from_numpy(array.view(np.int16 if array.itemsize == 2 else np.uint8)).view(dtype)
