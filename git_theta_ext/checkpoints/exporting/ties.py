"""Further names of tensors that a container shares between names: the ties of a `.pt` file.

A manifest has each tensor once. Who writes a file of another container asks here for the names that
would be lost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from git_theta_ext import formats
from git_theta_ext.checkpoints.read import Checkpoint
from git_theta_ext.core.errors import FormatError, UsageError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.formats.base import Layout, Literal
from git_theta_ext.formats.layout.places import segment_length
from git_theta_ext.formats.layout.source import check_range

_LINKING = ("hdf5", "keras")
"""Containers of which a further name is a link, which shows all of a tensor."""
_SHARING = ("torch-zip", "torch-legacy", "pickle", *_LINKING)
"""Containers that give a tensor several names."""


class _Structure:
    """A file of which the bytes that are no tensor's are known; the others read as zeros."""

    def __init__(self, layout: Layout) -> None:
        self._segments = layout.segments
        self._ends = list(accumulate(segment_length(one) for one in layout.segments))

    @property
    def size(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, offset: int, length: int) -> bytes:
        check_range(offset, length, self.size)
        found = bytearray()
        at = bisect_right(self._ends, offset)
        while len(found) < length:
            first = self._ends[at - 1] if at else 0
            start = offset + len(found) - first
            count = min(length - len(found), self._ends[at] - first - start)
            segment = self._segments[at]
            known = segment.data[start : start + count] if isinstance(segment, Literal) else b""
            found += known or bytes(count)
            at += 1
        return bytes(found)


@dataclass(frozen=True, slots=True)
class Ties:
    """Names of tensors that a checkpoint does not list.

    `whole` has those with the bytes of one that it lists: that one's name, and what they are.
    `views` are the others: parts of a tensor, or strided.
    """

    whole: Mapping[str, tuple[str, TensorInfo]]
    views: tuple[str, ...]


def ties_of(checkpoint: Checkpoint) -> Ties:
    """The further names of a checkpoint's tensors.

    Of a model in several files there are none: ties do not reach from file to file.

    Raises:
        UsageError: they cannot be read, though its container may have some.
    """
    if checkpoint.format not in _SHARING:
        return Ties({}, ())
    structure = _Structure(checkpoint.structure())
    try:
        found = formats.get(checkpoint.format).layout(structure)
    except (FormatError, RecursionError, MemoryError) as error:
        raise UsageError(f"{checkpoint.name}: its structure cannot be read: {error}") from error
    ties = dict(found.ties)
    if checkpoint.format in _LINKING:
        ties = {
            name: replace(checkpoint.info(of), name=name)
            for name, of in found.aliases.items()
            if of in checkpoint
        }
    whole: dict[str, tuple[str, TensorInfo]] = {}
    views: list[str] = []
    for name, info in ties.items():
        of = found.aliases.get(name)
        if name in checkpoint:
            continue
        if info is not None and of is not None and of in checkpoint:
            whole[name] = (of, info)
        else:
            views.append(name)
    return Ties(whole, tuple(views))
