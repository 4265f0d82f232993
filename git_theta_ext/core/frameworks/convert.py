"""Tensors for the frameworks that `safetensors.safe_open` knows; each imported when asked for.

Arrays are those of who asks alone, and a framework may keep them: torch, TensorFlow and, on a CPU,
JAX take over their memory; MLX copies.

What a framework would narrow (JAX and MLX make float32 of float64) is refused, never rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import advice
from git_theta_ext.core.arrays import EXTENDED
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.pytorch import to_torch
from git_theta_ext.core.tensors import TensorInfo

Array = NDArray[Any]
Convert = Callable[[TensorInfo, Array], Any]
Framework = Literal[
    "np", "numpy", "pt", "torch", "pytorch", "tf", "tensorflow", "jax", "flax", "mlx"
]  # fmt: skip
NAMES = {
    "np": "numpy", "numpy": "numpy", "pt": "torch", "torch": "torch", "pytorch": "torch",
    "tf": "tensorflow", "tensorflow": "tensorflow", "jax": "jax", "flax": "jax", "mlx": "mlx",
}  # fmt: skip
"""Each name of a framework, as safetensors takes it, and the package."""


def converter(framework: str, device: Any) -> Convert:
    """What makes a framework's tensors of arrays.

    Args:
        framework: one of `NAMES`.
        device: where torch tensors are put; of others only `cpu` is known.

    Raises:
        UsageError: the framework is unknown or not installed, or has no such device.
    """
    package = NAMES.get(framework)
    if package is None:
        raise UsageError(f"unknown framework {framework!r}; known: {', '.join(NAMES)}")
    if package == "torch":
        return _torch(device)
    if str(device) != "cpu":
        title = "NumPy" if package == "numpy" else package
        raise UsageError(f"{title} has no device {device!r}")
    makers = {"numpy": _numpy, "tensorflow": _tensorflow, "jax": _jax, "mlx": _mlx}
    try:
        return makers[package]()
    except ImportError as error:
        raise UsageError(
            f"{package} is not installed", hint=advice.install_other(package)
        ) from error


def _numpy() -> Convert:
    return lambda info, array: array


def _torch(device: Any) -> Convert:
    def convert(info: TensorInfo, array: Array) -> Any:
        found = to_torch(info, array)
        return found if device == "cpu" else found.to(device)

    return convert


def _tensorflow() -> Convert:
    """Tensors in the arrays' memory where DLPack can, else copies."""
    import tensorflow  # type: ignore[import-not-found, import-untyped, unused-ignore]

    def shared(array: Array) -> Any:
        """A tensor in the array's memory: the bits by DLPack, then what they are."""
        bits = array
        if array.dtype.name in EXTENDED.values():  # DLPack of NumPy does not know these
            bits = array.view(f"u{array.itemsize}")
        found = tensorflow.experimental.dlpack.from_dlpack(bits.__dlpack__())
        return found if bits is array else tensorflow.bitcast(found, array.dtype.name)

    def convert(info: TensorInfo, array: Array) -> Any:
        found = None
        if array.ndim and array.flags.c_contiguous and array.flags.writeable:
            with suppress(Exception):  # its errors are of many classes; the plain way is below
                found = shared(array)
        if found is None:
            found = _made(info, "TensorFlow", lambda: tensorflow.convert_to_tensor(array))
        return _checked(info, array, found, np.dtype(found.dtype.as_numpy_dtype).name)

    return convert


def _jax() -> Convert:
    import jax  # type: ignore[import-not-found, unused-ignore]

    def make(array: Array) -> Any:
        try:  # in the array's memory, where that is aligned and no accelerator is there
            return jax.device_put(array, may_alias=True)
        except TypeError:  # an older JAX
            return jax.device_put(array)

    def convert(info: TensorInfo, array: Array) -> Any:
        found = _made(info, "JAX", lambda: make(array))
        return _checked(info, array, found, np.dtype(found.dtype).name)

    return convert


def _mlx() -> Convert:
    import mlx.core  # type: ignore[import-not-found, unused-ignore]

    def convert(info: TensorInfo, array: Array) -> Any:
        if array.dtype.name == "bfloat16":
            bits = mlx.core.array(np.ascontiguousarray(array).view(np.uint16))
            return bits.view(mlx.core.bfloat16)
        found = _made(info, "MLX", lambda: mlx.core.array(array))
        return _checked(info, array, found, str(found.dtype).rpartition(".")[2].rstrip("_"))

    return convert


def _made(info: TensorInfo, framework: str, make: Callable[[], Any]) -> Any:
    """What a framework makes of an array, or an error that says that it has no such type."""
    try:
        return make()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{framework} can make no tensor of {info.dtype.name} (tensor {info.name!r}): {error}",
            hint="read it as NumPy, framework='np'",
        ) from error


def _checked(info: TensorInfo, array: Array, found: Any, dtype: str) -> Any:
    if dtype == array.dtype.name:
        return found
    raise UsageError(
        f"tensor {info.name!r} is {info.dtype.name}; this framework would make {dtype} of it",
        hint="read it as NumPy, framework='np'; JAX keeps 64 bits with jax_enable_x64",
    )
