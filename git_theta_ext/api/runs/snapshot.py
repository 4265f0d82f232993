"""What is to be saved, copied into this machine's memory, so that the training can go on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from git_theta_ext.core.pytorch import is_torch, to_host


class Snapshots:
    """Makes copies of a training's state, each into the memory of the one before.

    So there is never more than one copy, and one that was made must be done with before the next.
    """

    def __init__(self) -> None:
        """Nothing is held yet."""
        self._buffers: dict[str, Any] = {}
        self._used: set[str] = set()
        self._seen: dict[Any, Any] = {}

    def take(self, value: Any) -> Any:
        """A copy of anything that is built of dicts, lists, tuples, tensors, arrays and values.

        Tensors that are the same stay the same: tied weights are copied once. Other objects are
        copied as `copy.deepcopy` does.

        Raises:
            UsageError: a tensor is not whole in this process.
        """
        self._used, self._seen = set(), {}
        found = self._copied("", value)
        for name in set(self._buffers) - self._used:
            del self._buffers[name]
        self._seen = {}
        return found

    def clear(self) -> None:
        """Let go of the memory."""
        self._buffers.clear()

    def _copied(self, name: str, value: Any) -> Any:
        if is_torch(value):
            return self._once(name, value, _identity(value))
        if isinstance(value, np.ndarray):
            return self._once(name, value, id(value))
        if isinstance(value, Mapping):
            # As it is where it is a dict, for the sake of OrderedDict and its like.
            found = {
                one: self._copied(f"{name}.{one}" if name else str(one), each)
                for one, each in value.items()
            }
            return found if type(value) is dict else _like(value, found)
        if type(value) in (list, tuple):
            return type(value)(self._copied(f"{name}.{at}", one) for at, one in enumerate(value))
        return value if isinstance(value, _CONSTANT) else copy.deepcopy(value)

    def _once(self, name: str, value: Any, identity: Any) -> Any:
        """The copy of a tensor or array, made once; into the one of this name where it fits."""
        if identity in self._seen:
            return self._seen[identity]
        buffer = self._buffers.get(name)
        if is_torch(value):
            made = to_host(name, value, buffer if is_torch(buffer) else None)
        elif (
            isinstance(buffer, np.ndarray)
            and (buffer.dtype, buffer.shape, buffer.strides)
            == (value.dtype, value.shape, value.strides)
            and not value.dtype.hasobject
        ):
            np.copyto(buffer, value)
            made = buffer
        else:
            made = copy.deepcopy(value) if value.dtype.hasobject else value.copy(order="K")
        self._buffers[name] = made
        self._used.add(name)
        self._seen[identity] = made
        return made


_CONSTANT = (int, float, complex, str, bytes, bool, type(None))


def _identity(tensor: Any) -> Any:
    """What two tensors that are one have in common."""
    if not hasattr(tensor, "data_ptr") or not hasattr(tensor, "stride"):
        return id(tensor)
    try:
        where = (str(tensor.device), tensor.data_ptr())
        how = (str(tensor.dtype), tuple(tensor.shape), tensor.stride())
    except (RuntimeError, NotImplementedError):
        return id(tensor)
    return (*where, *how) if where[1] else id(tensor)


def _like(value: Mapping[Any, Any], found: dict[Any, Any]) -> Any:
    """A mapping of the class of another one, if that takes what a dict takes."""
    try:
        made = copy.copy(value)
        made.update(found)  # type: ignore[attr-defined]
    except Exception:
        return found
    return made
