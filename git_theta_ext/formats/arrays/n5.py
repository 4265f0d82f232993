"""Blocks of N5, given the `attributes.json` in the folder above.

A block has a header that says how large it is; the element type and the compression stand in the
attributes. The numbers are big-endian, for which there is no element type here: they are U8, with
one more axis. N5 names the fastest axis first, so the axes are those of the attributes, reversed.
Source: saalfeldlab/n5, README, "File-system specification".
"""

from __future__ import annotations

import math
import posixpath
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DTYPES
from git_theta_ext.formats.arrays import grid, zarr
from git_theta_ext.formats.arrays.grid import Array
from git_theta_ext.formats.base import Layout, Literal, Source, Span
from git_theta_ext.formats.neighbours import is_n5_number

NAME = "n5"
FILE = "attributes.json"
_SIZES = {
    "uint8": 1, "int8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "int16": 2, "int32": 4,
    "int64": 8, "float32": 4, "float64": 8,
}  # fmt: skip
_BYTES = {"uint8": "U8", "int8": "I8"}


def layout_within(source: Source, path: str, opened: zarr.Open) -> Layout | None:
    """The layout of a block by the attributes of its array; None where there are none.

    Args:
        source: the block.
        path: where it lies, with slashes.
        opened: gives the file at a path, None if there is none.

    Raises:
        FormatError: the attributes or the header are damaged, or of another block.
    """
    for folder in zarr.folders(path):
        found = opened(posixpath.join(folder, FILE))
        document = zarr.document(found) if found is not None else {}
        if "dimensions" not in document:
            continue
        shape, chunk = document["dimensions"], document.get("blockSize", [])
        if not (grid.is_shape(shape) and grid.is_shape(chunk)):
            raise FormatError("n5: no dimensions")
        words = posixpath.relpath(path, folder or ".").split("/")
        if len(words) != len(shape) or not all(map(is_n5_number, words)):
            continue
        _check_raw(document)
        kind = document.get("dataType")
        dtype = DTYPES[_BYTES[kind]] if isinstance(kind, str) and kind in _BYTES else None
        array = Array(tuple(shape[::-1]), tuple(chunk[::-1]), dtype)
        at = tuple(int(word) for word in reversed(words))
        if not array.has(at):
            raise FormatError(f"n5: {path!r} lies outside its array")
        return _layout(source, _name(folder, opened), array, at, kind)
    return None


def _check_raw(document: dict[str, Any]) -> None:
    """Refuse compressed blocks."""
    compression = document.get("compression")
    if not isinstance(compression, dict) or compression.get("type") != "raw":
        raise FormatError("n5: compressed")


def _layout(source: Source, name: str, array: Array, at: tuple[int, ...], kind: Any) -> Layout:
    """The header of a block as a literal, then its values; FormatError where they do not fit."""
    size = _SIZES.get(kind) if isinstance(kind, str) else None
    axes = len(array.shape)
    start = 4 + 4 * axes
    if size is None or source.size < start:
        raise FormatError("n5: an element type that is not known, or no header")
    head = source.read(0, start)
    if head[:2] != b"\0\0" or int.from_bytes(head[2:4], "big") != axes:
        raise FormatError("n5: a header of another kind")
    sizes = [int.from_bytes(head[place : place + 4], "big") for place in range(4, start, 4)]
    kept, length = tuple(reversed(sizes)), source.size - start
    called, there = grid.extent(name, array, at)
    if math.prod(kept) * size != length or kept not in (array.chunk, there):
        raise FormatError(f"n5: a block of {kept} at {at} of an array of {array.shape}")
    if kept == array.chunk:
        tensors = list(grid.tensors(name, array, at, length))
    else:
        tensors = list(grid.tensors(called, Array(kept, kept, array.dtype), (0,) * axes, length))
    return Layout(NAME, (Literal(head), *(Span(info) for _, info in tensors)))


def _name(folder: str, opened: zarr.Open) -> str:
    """The array's path from the outermost folder whose attributes say that it is N5's."""
    parts = folder.split("/") if folder else ["array"]
    for start in range(max(0, len(parts) - limits.AXES), len(parts)):
        found = opened(posixpath.join("/".join(parts[:start]), FILE))
        if found is not None and "n5" in zarr.document(found):
            return "/".join(parts[start:])
    return parts[-1]
