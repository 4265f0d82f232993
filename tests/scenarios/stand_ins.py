"""Stand-ins for torch and its modules, as far as the Python interface looks at them.

Tests that are always run must not need torch; those of `tests/optional/torch_modules.py` say the
same of the real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import numpy as np


class DType:
    """An element type, called as torch calls it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_floating_point = name.startswith(("float", "bfloat"))

    def __str__(self) -> str:
        return f"torch.{self.name}"


_DTYPES = {name: DType(name) for name in ("float32", "float64", "int64", "int8", "uint8")}


class Tensor:
    """A tensor that wraps an array; without one it is on the meta device."""

    is_nested = is_quantized = False
    requires_grad = True

    def __init__(self, array: Any, meta: bool = False, layout: str = "torch.strided") -> None:
        self.array = np.asarray(array)
        self.is_meta = meta
        self.layout = layout
        self.dtype = _DTYPES[self.array.dtype.name]
        self.device = "meta" if meta else "cpu"
        self.shape = self.array.shape

    @property
    def data(self) -> Tensor:
        return self

    def copy_(self, other: Tensor) -> None:
        self.array[...] = other.array

    def to(self, dtype: DType, copy: bool) -> Tensor:
        assert copy
        return Tensor(self.array.astype(dtype.name))

    def data_ptr(self) -> int:
        return int(self.array.__array_interface__["data"][0])

    def stride(self) -> tuple[int, ...]:
        return self.array.strides

    def numel(self) -> int:
        return self.array.size

    def detach(self) -> Tensor:
        return self

    resolve_conj = resolve_neg = cpu = detach

    def numpy(self) -> Any:
        return self.array


Tensor.__module__ = "torch"


class Module:
    """A module of parameters by name, and further modules."""

    def __init__(self, parameters: dict[str, Tensor], **parts: Module) -> None:
        self._parameters = parameters
        self._buffers: dict[str, Tensor] = {}
        self.parts = parts

    def modules(self) -> Iterator[Module]:
        yield self
        for part in self.parts.values():
            yield from part.modules()

    def parameters(self, recurse: bool) -> Iterator[Tensor]:
        assert not recurse
        yield from self._parameters.values()

    def state_dict(self, keep_vars: bool = False) -> dict[str, Tensor]:
        assert keep_vars
        found = dict(self._parameters)
        for name, part in self.parts.items():
            found |= {f"{name}.{key}": one for key, one in part.state_dict(keep_vars).items()}
        return found

    def named_parameters(self, remove_duplicate: bool) -> Iterator[tuple[str, Tensor]]:
        assert not remove_duplicate
        yield from self.state_dict(keep_vars=True).items()

    def named_buffers(self, remove_duplicate: bool) -> Iterator[tuple[str, Tensor]]:
        assert not remove_duplicate
        yield from ()


class DataParallel(Module):
    """A wrapper that has the module in itself."""

    def __init__(self, module: Module) -> None:
        super().__init__({}, module=module)
        self.module = module


def torch() -> ModuleType:
    """A module to be found as `torch`."""
    made: Any = ModuleType("torch")
    made.from_numpy = Tensor
    made.no_grad = nullcontext
    made.promote_types = lambda one, other: one if one is other else _DTYPES["int64"]
    made.nn = ModuleType("torch.nn")
    made.nn.Parameter = ()  # nothing is an instance of it
    for name, dtype in _DTYPES.items():
        setattr(made, name, dtype)
    return made
