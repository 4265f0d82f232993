"""Tensors for PyTorch, and from it; torch is imported only when one of these is called."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import advice
from git_theta_ext.core.arrays import EXTENDED, numpy_dtype
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, TensorInfo

Array = NDArray[Any]
_NAMES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "F16": "float16",
    "F32": "float32", "F64": "float64", "C64": "complex64", "C128": "complex128", **EXTENDED,
}  # fmt: skip
"""What torch calls an element type."""
_STORED = {f"torch.{name}": stored for stored, name in _NAMES.items()}


def _torch() -> Any:
    try:
        import torch  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UsageError("torch is not installed", hint=advice.install_other("torch")) from error
    return torch


def to_torch(info: TensorInfo, array: Array) -> Any:
    """A torch tensor that shares the array's memory where torch can.

    Raises:
        UsageError: torch is not installed, or has no such dtype.
    """
    torch = _torch()
    if any(stride < 0 for stride in array.strides) or not array.flags.writeable:
        array = array.copy()
    name = EXTENDED.get(info.dtype.name)
    if name is None:
        return torch.from_numpy(array)
    dtype = getattr(torch, name, None)
    if dtype is None:
        raise UsageError(f"this torch has no dtype {name} (tensor {info.name!r})")
    return torch.from_numpy(array.view(np.int16 if array.itemsize == 2 else np.uint8)).view(dtype)


# -- from torch ------------------------------------------------------------------------------------


def is_torch(value: Any) -> bool:
    """Whether this is a torch tensor, of any class; nothing is imported to find out."""
    return any(
        one.__name__ == "Tensor" and one.__module__.partition(".")[0] == "torch"
        for one in type(value).__mro__
    )


def unusual(tensor: Any) -> str | None:
    """What a torch tensor is besides its values, where it is more than they; None for plain ones.

    Such tensors hold their values in parts (scales, indices, shards), or hold none.
    """
    if is_sharded(tensor):
        return "a DTensor, of which every process holds a part"
    layout = str(getattr(tensor, "layout", "torch.strided"))
    if layout != "torch.strided":
        return f"of layout {layout}, which is not dense"
    if getattr(tensor, "is_nested", False):
        return "a nested tensor"
    if getattr(tensor, "is_quantized", False):
        return f"quantised ({tensor.dtype}), with a scale that is no tensor"
    if hasattr(tensor, "__tensor_flatten__"):
        return f"of class {type(tensor).__name__}, which is made of several tensors"
    if type(tensor).__name__ in ("UninitializedParameter", "UninitializedBuffer"):
        return "not initialised yet (a lazy module)"
    if type(tensor).__name__ == "FakeTensor":
        return "a FakeTensor, without values"
    return None


def from_torch(name: str, tensor: Any) -> Array:
    """The values of a torch tensor, as they are: views, gradients and devices do not matter.

    Raises:
        UsageError: it is no plain tensor, has no values, or is of a dtype that no file holds.
    """
    what = unusual(tensor)
    if what is None and tensor.is_meta:
        what = "on the meta device, without values"
    if what is not None:
        raise UsageError(
            f"tensor {name!r} is {what}; it cannot be committed",
            hint="give plain tensors: full_tensor() of a DTensor, to_dense() of a sparse one, "
            "dequantize() of a quantised one",
        )
    stored = _STORED.get(str(tensor.dtype))
    dtype = None if stored is None else numpy_dtype(DTYPES[stored])
    if stored is None or dtype is None:
        raise UsageError(f"tensor {name!r} is of dtype {tensor.dtype}, which cannot be stored")
    plain = tensor.detach().resolve_conj().resolve_neg().cpu()
    if stored not in EXTENDED:
        return np.asarray(plain.numpy())
    torch = _torch()
    bits = plain.contiguous().view(torch.int16 if dtype.itemsize == 2 else torch.uint8)
    return np.asarray(bits.numpy()).view(dtype)


def to_host(name: str, tensor: Any, buffer: Any) -> Any:
    """A copy of a torch tensor in this machine's memory, as `torch.save` would keep it.

    Args:
        name: to say where it stands.
        tensor: on any device; gradients are left out.
        buffer: an earlier copy that may be written over, or None. It is used where it fits: memory
            that was used before is written to several times faster than new memory.

    Raises:
        UsageError: every process holds a part of it.
    """
    if is_sharded(tensor):
        raise UsageError(
            f"tensor {name!r} is {unusual(tensor)}; it is not whole here",
            hint="gather it first: full_tensor(), or get_model_state_dict of torch.distributed "
            "with StateDictOptions(full_state_dict=True, cpu_offload=True)",
        )
    found = tensor.detach()
    if unusual(tensor) is not None or found.is_meta or found.is_conj() or found.is_neg():
        return found.clone().cpu()
    alike = buffer is not None and (
        (buffer.dtype, buffer.shape, buffer.stride()) == (found.dtype, found.shape, found.stride())
    )
    if not alike:
        buffer = _torch().empty_like(found, device="cpu")
    buffer.copy_(found)
    return buffer


def write_saved(value: Any, file: Any) -> None:
    """Write what `torch.save` writes of a value into an open file.

    Raises:
        UsageError: torch is not installed.
    """
    _torch().save(value, file)


# -- into modules ----------------------------------------------------------------------------------


def is_sharded(tensor: Any) -> bool:
    """Whether this is a DTensor, as FSDP2 and tensor parallelism make of parameters."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


def fits_dtype(info: TensorInfo, target: Any) -> bool:
    """Whether a stored tensor's values may be copied into a torch tensor without losing sense.

    Floats go into floats of any width, as when loading with torch; other kinds never narrow.
    """
    torch = _torch()
    name = _NAMES.get(info.dtype.name)
    source = None if name is None else getattr(torch, name, None)
    if source is None or numpy_dtype(info.dtype) is None:
        return False
    if source == target.dtype or (source.is_floating_point and target.dtype.is_floating_point):
        return True
    if source.is_floating_point or target.dtype.is_floating_point:
        return False
    return bool(torch.promote_types(source, target.dtype) == target.dtype)


def copy_into(target: Any, value: Any) -> None:
    """Copy values into a tensor of a module; of a DTensor, its part of them."""
    torch = _torch()
    with torch.no_grad():
        if is_sharded(target):
            from torch.distributed.tensor import (  # type: ignore[import-not-found, unused-ignore]
                distribute_tensor,
            )

            mesh = target.device_mesh
            whole = value.to(device=mesh.device_type, dtype=target.dtype)
            part = distribute_tensor(whole, mesh, target.placements, src_data_rank=None)
            target.detach().copy_(part)
        else:
            target.data.copy_(value)


def materialised(target: Any, value: Any) -> Any:
    """A tensor with values in place of one on the meta device: of its dtype, on the CPU."""
    torch = _torch()
    made = value.to(dtype=target.dtype, copy=True)
    if not isinstance(target, torch.nn.Parameter):
        return made
    return torch.nn.Parameter(made, requires_grad=target.requires_grad)
