"""Cut storages into tensors: dense views become spans, what lies between them too."""

from __future__ import annotations

import math
from dataclasses import dataclass

from git_theta_ext.core.tensors import DTYPES, DType, TensorInfo
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.layout.views import View, free_name

OPAQUE_BYTES = 1 << 16
"""Byte strings of unknown meaning from this length on are chunked rather than kept as structure."""

_BYTE = DTYPES["U8"]


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage: what it is called where no tensor names it, and where its bytes lie."""

    label: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A span and its place in the file, in bytes."""

    offset: int
    length: int
    span: Span


@dataclass(frozen=True, slots=True)
class _Dense:
    """A dense view: `start` and `stop` in bytes of the storage."""

    start: int
    stop: int
    info: TensorInfo


@dataclass(frozen=True, slots=True)
class Tiled:
    """Spans that cover every storage; `aliases` and `ties` are those of `base.Layout`."""

    pieces: list[Piece]
    aliases: dict[str, str]
    ties: dict[str, TensorInfo | None]


def tile(storages: list[Storage], views: list[list[View]]) -> Tiled:
    """Spans that cover every storage, and the further names of tensors that share bytes.

    Where views overlap, the first in the storage wins; of those that begin together the longest;
    of those with the same bytes the first in the pickle. A view inside a span is an alias.
    """
    taken = {view.name for group in views for view in group}
    pieces: list[Piece] = []
    aliases: dict[str, str] = {}
    ties: dict[str, TensorInfo | None] = {}
    for storage, group in zip(storages, views, strict=True):
        dense = [found for view in group if (found := _dense(view, storage.size)) is not None]
        ties |= dict.fromkeys(view.name for view in group)
        dense.sort(key=lambda item: (item.start, -item.stop))
        dtype = next((view.dtype for view in group if view.dtype is not None), None)
        position = 0
        previous: _Dense | None = None
        for item in dense:
            if item.start == item.stop:
                del ties[item.info.name]
                pieces.append(Piece(storage.offset, 0, Span(item.info)))
            elif item.start >= position:
                del ties[item.info.name]
                pieces += _gap(storage, position, item.start, dtype, taken)
                offset = storage.offset + item.start
                pieces.append(Piece(offset, item.stop - item.start, Span(item.info)))
                previous, position = item, item.stop
            elif previous is not None and item.stop <= previous.stop:
                aliases[item.info.name] = previous.info.name
                if (item.start, item.stop) == (previous.start, previous.stop):
                    ties[item.info.name] = item.info
        pieces += _gap(storage, position, storage.size, dtype, taken)
    return Tiled(pieces, aliases, ties)


def _gap(
    storage: Storage, start: int, stop: int, dtype: DType | None, taken: set[str]
) -> list[Piece]:
    """A span for bytes of a storage that no tensor covers."""
    if start == stop:
        return []
    whole = start == 0 and stop == storage.size
    name = free_name(storage.label if whole else f"{storage.label}[{start}:{stop}]", taken)
    taken.add(name)
    known = dtype is not None and start % dtype.itemsize == stop % dtype.itemsize == 0
    kind = dtype if dtype is not None and known else _BYTE
    info = TensorInfo(name, kind, ((stop - start) // kind.itemsize,))
    return [Piece(storage.offset + start, stop - start, Span(info, opaque=not known))]


def _dense(view: View, storage_size: int) -> _Dense | None:
    """The bytes of a view that has all of its elements side by side; None for others."""
    dtype = view.dtype or _BYTE
    size = (storage_size // dtype.itemsize,) if view.size is None else view.size
    order = None if view.size is None else memory_order(size, view.stride)
    if view.size is not None and order is None:
        return None
    start = view.offset * dtype.itemsize
    stop = start + math.prod(size) * dtype.itemsize
    if start == stop:
        start = stop = 0  # an empty tensor may point anywhere
    if stop > storage_size:
        return None
    row_major = order is None or order == tuple(range(len(size)))
    return _Dense(start, stop, TensorInfo(view.name, dtype, size, None if row_major else order))


def memory_order(size: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...] | None:
    """Axes from the slowest to the fastest if the strides leave no gap; None if they do.

    Axes of length one may have any stride and stay as far in front as row-major order has them.
    """
    axes = range(len(size))
    if 0 in size:
        return tuple(axes)
    expected = 1
    row_major = True
    for axis in reversed(axes):
        if size[axis] != 1:
            row_major = row_major and stride[axis] == expected
            expected *= size[axis]
    if row_major:
        return tuple(axes)
    order = sorted(axes, key=lambda axis: (size[axis] != 1, -stride[axis] * (size[axis] != 1)))
    expected = 1
    for axis in reversed(order):
        if size[axis] != 1:
            if stride[axis] != expected:
                return None
            expected *= size[axis]
    return tuple(order)
