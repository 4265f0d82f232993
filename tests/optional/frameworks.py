"""Tensors of every element type as those of real frameworks: the same values, in the same memory.

Not part of the default run: `.ci/optional` runs it. A framework that is not installed is left out.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from git_theta_ext.core.arrays import as_array, numpy_dtype, room_for
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.frameworks.convert import converter
from git_theta_ext.core.tensors import DTYPES, TensorInfo

KINDS = (
    "F32", "BF16", "F16", "F64", "I64", "I32", "U16", "U8", "BOOL", "C64", "F8_E4M3", "F8_E5M2",
    "F8_E8M0",
)  # fmt: skip
REFUSED = {
    "torch": set(),
    "jax": {"F64", "I64"},
    "tensorflow": {"F8_E8M0"},
    "mlx": {"F64", "F8_E4M3", "F8_E5M2", "F8_E8M0"},
}
COPIED = {"torch": set(), "jax": set(), "tensorflow": {"F8_E4M3", "F8_E5M2"}, "mlx": {*KINDS}}


def bytes_of(name: str, tensor: Any) -> bytes:
    if name == "torch":
        import torch

        return tensor.contiguous().view(torch.uint8).numpy().tobytes()
    if name == "mlx":
        import mlx.core

        return np.array(tensor.view(mlx.core.uint8)).tobytes()
    return np.asarray(tensor).tobytes()


@pytest.mark.parametrize("name", list(REFUSED))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_is_what_is_stored(name: str, kind: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    info = TensorInfo("w", DTYPES[kind], (64, 32))
    dtype = numpy_dtype(info.dtype)
    assert dtype is not None
    memory = room_for(info.nbytes)
    memory[:] = (np.arange(info.count) % 2).astype(dtype).view(np.uint8)
    convert = converter(name, "cpu")  # type: ignore[arg-type]
    if kind in REFUSED[name]:
        with pytest.raises(UsageError, match=f"'w'.*{kind}|{kind}.*'w'"):
            convert(info, as_array(info, memory))
        return
    found = convert(info, as_array(info, memory))
    assert tuple(found.shape) == (64, 32)
    assert bytes_of(name, found) == memory.tobytes()
    if kind not in COPIED[name]:
        memory[: dtype.itemsize] = memory[dtype.itemsize : 2 * dtype.itemsize]
        assert bytes_of(name, found) == memory.tobytes()
