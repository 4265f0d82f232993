"""Updates of git-theta 0.2: msgpack of Zarr 2 arrays, and what they do to the values before.

Sources: git_theta 0.2.0 (params.py, updates/*.py), the specifications of msgpack and of Zarr 2.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import FormatError
from git_theta_ext.migration.others import blosc

Array = NDArray[Any]


def unpacked(data: bytes, most: int) -> dict[str, Array]:
    """The arrays of an update by name.

    Args:
        data: msgpack of maps of Zarr's keys to their bytes.
        most: how many bytes an array may have.

    Raises:
        FormatError: it is damaged, or larger.
    """
    found, end = _msgpack(data, 0, 0)
    if end != len(data) or not isinstance(found, dict):
        raise FormatError("an update of git-theta 0.2 is damaged")
    return {name: _zarr(parts, most) for name, parts in found.items()}


def _msgpack(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Maps of strings, and bytes: all that such a file has."""
    if at >= len(data) or depth > 4:
        raise FormatError("an update of git-theta 0.2 is damaged")
    tag = data[at]
    at += 1
    if tag in (0xDE, 0xDF) or 0x80 <= tag <= 0x8F:
        count, at = (tag & 15, at) if tag <= 0x8F else _length(data, at, 2 if tag == 0xDE else 4)
        made: dict[Any, Any] = {}
        for _ in range(count):
            key, at = _msgpack(data, at, depth + 1)
            if not isinstance(key, str):
                raise FormatError("an update of git-theta 0.2 is damaged")
            made[key], at = _msgpack(data, at, depth + 1)
        return made, at
    widths = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
    if tag in widths:
        count, at = _length(data, at, widths[tag])
    elif 0xA0 <= tag <= 0xBF:
        count = tag & 31
    else:
        raise FormatError("an update of git-theta 0.2 is damaged")
    part = data[at : at + count]
    if len(part) != count:
        raise FormatError("an update of git-theta 0.2 is cut short")
    is_text = tag not in (0xC4, 0xC5, 0xC6)
    return part.decode("utf-8", "replace") if is_text else part, at + count


def _length(data: bytes, at: int, width: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + width], "big"), at + width


def _zarr(parts: Any, most: int) -> Array:
    """An array of Zarr 2 from its keys: `.zarray`, and chunks by their places."""
    try:
        meta: Any = json.loads(parts[".zarray"])
        shape, chunks = tuple(map(int, meta["shape"])), tuple(map(int, meta["chunks"]))
        text, order = str(meta["dtype"]), meta["order"]
        dtype = np.dtype(ml_dtypes.bfloat16) if text == "bfloat16" else np.dtype(text)
        between = meta.get("dimension_separator", ".")
        compressor, filters, fill = meta["compressor"], meta["filters"], meta["fill_value"]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError("an array of git-theta 0.2 is damaged") from error
    if dtype.hasobject or filters or order not in ("C", "F") or len(shape) != len(chunks):
        raise FormatError("an array of git-theta 0.2 is of a kind that is not read")
    held = math.prod(chunks) * dtype.itemsize
    if min((*shape, *(one - 1 for one in chunks)), default=0) < 0 or held > most * 2 + (64 << 20):
        raise FormatError("an array of git-theta 0.2 has a shape that cannot be")
    if math.prod(shape) * dtype.itemsize > most:
        raise FormatError("an array of git-theta 0.2 is larger than the tensor that it makes")
    made = np.full(shape, 0 if fill is None else fill, dtype)
    counts = [-(-one // chunk) for one, chunk in zip(shape, chunks, strict=True)]
    for place in itertools.product(*map(range, counts)):
        key = between.join(map(str, place)) if place else "0"
        if key not in parts:
            continue  # it holds the fill value
        raw = _chunk(parts[key], compressor, held)
        chunk = np.frombuffer(raw, dtype).reshape(chunks, order=order)
        inside = tuple(
            slice(at * step, min((at + 1) * step, length))
            for at, step, length in zip(place, chunks, shape, strict=True)
        )
        made[inside] = chunk[tuple(slice(0, one.stop - one.start) for one in inside)]
    return made


def _chunk(data: Any, compressor: Any, size: int) -> bytes:
    if not isinstance(data, bytes):
        raise FormatError("a chunk of git-theta 0.2 is damaged")
    if compressor is None:
        raw = data
    elif isinstance(compressor, dict) and compressor.get("id") == "blosc":
        raw = blosc.unpacked(data, size)
    else:
        raise FormatError("a chunk of git-theta 0.2 is packed in a way that is not read")
    if len(raw) != size:
        raise FormatError("a chunk of git-theta 0.2 does not hold what it should")
    return raw


def applied(kind: str, update: Mapping[str, Array], before: Array | None) -> Array:
    """The values that an update gives, in the arithmetic of git-theta 0.2 (NumPy's).

    Args:
        kind: `dense`, `sparse`, `low-rank` or `ia3`.
        update: its arrays.
        before: the values that it changes; None for a dense one.

    Raises:
        FormatError: arrays are missing, do not fit, or the kind is a plug-in's.
    """
    try:
        if kind == "dense":
            return update["parameter"]
        if before is None:
            raise FormatError(f"an update of kind {kind!r} stands at the beginning")
        if kind == "low-rank":
            if "parameter" in update:
                return _added(update["parameter"], before)
            return _added(update["R"] @ update["C"], before)
        if kind == "ia3":
            return np.asarray(before * update["ia3"])
        if kind == "sparse":
            shape = tuple(int(one) for one in update["shape"])
            flat = np.zeros(math.prod(shape), update["data"].dtype)
            count = int(update["indptr"][-1])
            np.add.at(flat, update["indices"][:count], update["data"][:count])
            return _added(flat.reshape(shape), before)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise FormatError(f"an update of kind {kind!r} does not fit: {error}") from error
    raise FormatError(f"updates of kind {kind!r} are a plug-in's, which is not read")


def _added(change: Array, before: Array) -> Array:
    return np.asarray(change + before)
