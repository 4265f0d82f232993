"""An optimizer's file, or a model's: its tensors by name, and its pickle as inert records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.arrays import as_array
from git_theta_ext.core.errors import BoundError, FormatError, UsageError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.core.text import printable, size
from git_theta_ext.formats import read_layout
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.layout.places import placed
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.formats.pickles.machine import Call, Dict
from git_theta_ext.formats.torch import zipped
from git_theta_ext.formats.torch.names import find_views

Shape = tuple[int, ...]
Tree = Any
"""A value of the pickle machine: plain, a list, a tuple, or a record of `pickles.machine`."""


class TensorsFile:
    """The tensors of a checkpoint of any container, read one by one; a context manager."""

    def __init__(self, path: Path) -> None:
        """Find the tensors; none is read, nothing is executed.

        Raises:
            UsageError: the file cannot be read.
        """
        self.path = path
        try:
            self._source = FileSource(path)
        except OSError as error:
            raise self.refused(f"cannot be read: {error.strerror or error}") from error
        try:
            layout = read_layout(self._source)
        except BaseException:
            self._source.close()
            raise
        self.format = layout.format
        self.aliases = dict(layout.aliases)
        self._places = {
            one.tensor.name: (offset, one.tensor)
            for offset, one in placed(layout)
            if isinstance(one, Span) and not one.opaque
        }

    def __enter__(self) -> TensorsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._source.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def refused(self, why: str, hint: str | None = None) -> UsageError:
        """The error that this file cannot be used."""
        return UsageError(f"{printable(str(self.path))} {why}", hint=hint)

    def info(self, name: str) -> TensorInfo | None:
        """What a tensor is, in its own bytes; None if there is none of that name."""
        found = self._places.get(self.aliases.get(name, name))
        return found[1] if found else None

    def read(self, name: str) -> NDArray[Any]:
        """A tensor as an array of its own dtype.

        Raises:
            UsageError: there is none, it is too large, or its elements are packed.
        """
        place = self._places.get(self.aliases.get(name, name))
        if place is None:
            raise self.refused(f"has no tensor {printable(name)!r} that can be read")
        offset, info = place
        if info.nbytes > limits.ADAPTER_TENSOR_BYTES:
            raise self.refused(f"has {size(info.nbytes)} in tensor {printable(name)!r}")
        array = as_array(info, np.frombuffer(self._source.read(offset, info.nbytes), np.uint8))
        if array.shape != info.shape:
            raise self.refused(f"has packed elements in tensor {printable(name)!r}")
        return array

    def text(self) -> str | None:
        """The file as text, where it is a short one."""
        if self._source.size > limits.STRUCTURE_BYTES:
            return None
        try:
            return self._source.read(0, self._source.size).decode("utf-8")
        except UnicodeDecodeError:
            return None

    def pickle(self) -> Tree | None:
        """What `torch.save` wrote, as inert records; None of a file of another kind.

        Raises:
            UsageError: it is past the limits of what is read, or damaged.
        """
        if self.format != zipped.NAME:
            return None
        try:
            return zipped.pickle(self._source)
        except (BoundError, FormatError) as error:
            raise self.refused(f"cannot be read: {error.message}") from error

    def floats(self) -> list[tuple[str, Shape]]:
        """Names and shapes of all tensors of floats, in the order of their bytes."""
        return [
            (name, info.shape)
            for name, (_, info) in self._places.items()
            if info.dtype.kind == "float"
        ]

    def in_order(self) -> list[tuple[str, Shape]]:
        """Tensors of floats in the order in which the file's writer listed them, each once.

        Of a PyTorch file that is the order of its dictionary; of any other, of its bytes.
        """
        top = self.pickle()
        if top is None:
            return self.floats()
        seen: set[tuple[str, int, Shape | None]] = set()
        found = []
        for view in find_views(top):
            place = (view.key, view.offset, view.size)
            if place in seen:
                continue  # a tied tensor: the module's parameters name it once
            seen.add(place)
            info = self.info(view.name)
            shape = view.size if view.size is not None else info.shape if info else None
            kind = view.dtype or (info.dtype if info else None)
            if shape is not None and (kind is None or kind.kind == "float"):
                found.append((view.name, shape))
        return found


def pairs_of(tree: Tree) -> list[tuple[Any, Tree]]:
    """The items of a dictionary, or of an OrderedDict; none of anything else."""
    return tree.pairs if isinstance(tree, Dict | Call) else []


def get(tree: Tree, key: str) -> Tree | None:
    """The value of a key in a dictionary; the last, as Python has it."""
    found = None
    for name, value in pairs_of(tree):
        if isinstance(name, str) and name == key:
            found = value
    return found


def number(value: Tree) -> float | None:
    """A finite number of a pickle, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None
