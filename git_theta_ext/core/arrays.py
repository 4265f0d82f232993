"""Blocks' bytes as arrays: the NumPy dtype, the shape and the memory order of a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DType, TensorInfo

_PLAIN = {
    "BOOL": "?", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "I8": "i1", "I16": "<i2",
    "I32": "<i4", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
    "C128": "<c16", "QI8": "i1", "QU8": "u1", "QI32": "<i4",
}  # fmt: skip
EXTENDED = {
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
"""Types that `ml_dtypes` adds to NumPy."""
_ALIGNED = 64
"""What XLA and Eigen (JAX, TensorFlow) want of an array, else they copy it."""


def numpy_dtype(dtype: DType) -> np.dtype[Any] | None:
    """The NumPy dtype of an element type; None where an element is not a whole number of bytes."""
    if dtype.name in _PLAIN:
        return np.dtype(_PLAIN[dtype.name])
    import ml_dtypes

    found = getattr(ml_dtypes, EXTENDED.get(dtype.name, ""), None)
    return None if found is None else np.dtype(found)


def dtype_of(array: NDArray[Any]) -> str:
    """The name of an array's element type.

    Raises:
        UsageError: no checkpoint has such elements.
    """
    wanted = array.dtype.newbyteorder("=")
    for name in (*_PLAIN, *EXTENDED):
        found = np.dtype(_PLAIN[name]) if name in _PLAIN else _extended(name)
        if found is not None and found == wanted:
            return name
    raise UsageError(f"an array of dtype {array.dtype} cannot be stored as a tensor")


def _extended(name: str) -> np.dtype[Any] | None:
    import ml_dtypes

    found = getattr(ml_dtypes, EXTENDED[name], None)
    return None if found is None else np.dtype(found)


def room_for(nbytes: int) -> NDArray[np.uint8]:
    """New memory that begins where frameworks take it over as it is: at a multiple of 64 bytes."""
    wider = np.empty(nbytes + _ALIGNED, np.uint8)
    skip = -int(wider.__array_interface__["data"][0]) % _ALIGNED
    return wider[skip : skip + nbytes]


def as_array(info: TensorInfo, data: NDArray[np.uint8]) -> NDArray[Any]:
    """The tensor that raw bytes are, not copied.

    Args:
        info: what the tensor is.
        data: its bytes as they lie in the file.

    Returns:
        An array of the tensor's shape; of elements that are packed several to a byte, the bytes.
    """
    dtype = numpy_dtype(info.dtype)
    if dtype is None:
        return data
    flat = data.view(dtype)
    if info.order is None:
        return flat.reshape(info.shape)
    return flat.reshape(info.memory_shape).transpose(np.argsort(info.order))
