"""Tensors as views of storages, as readers of pickles and of msgpack find them, and their names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DType


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as the pickle describes it: a strided view of storage `key`, in elements.

    `size` is None where the view is the whole storage. `dtype` is None where it is not known.
    """

    name: str
    key: str
    dtype: DType | None
    offset: int = 0
    size: tuple[int, ...] | None = None
    stride: tuple[int, ...] = ()


def unique_names(paths: Iterable[tuple[str, ...]]) -> list[str]:
    """One name for each path, all different: joined by dots, escaped where that is ambiguous.

    Where several paths read the same, their keys are told apart by a backslash before each dot
    and backslash inside a key; those that still read the same (an integer and a string as keys)
    are numbered in order.
    """
    paths = list(paths)
    plain = [".".join(path) for path in paths]
    count: dict[str, int] = {}
    for name in plain:
        count[name] = count.get(name, 0) + 1
    taken = {name for name, times in count.items() if times == 1}
    names = []
    for path, name in zip(paths, plain, strict=True):
        if count[name] > 1:
            name = ".".join(key.replace("\\", "\\\\").replace(".", "\\.") for key in path)
            name = free_name(name, taken)
            taken.add(name)
        if len(name) > limits.NAME_CHARS:
            raise FormatError(f"pickle: a tensor's name of {len(name)} characters")
        names.append(name)
    return names


def free_name(name: str, taken: set[str]) -> str:
    """`name`, or `name~2`, `name~3` ... where that is taken."""
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}~{number}"
    return candidate
