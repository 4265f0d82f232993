"""Parameter files: what the store holds. Each is a valid safetensors file with one metadata key.

The metadata key `theta` holds canonical JSON: `kind`, `v` (1) and whatever the kind needs to decode
its parts, which are the file's tensors. Neither the name nor the shape of the tensor stands in it,
so that equal values are one object wherever they appear.

Source of the container: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from git_theta_ext.core import limits
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.values import raw_bytes
from git_theta_ext.updates.base import Parameters, Part

_VERSION = 1
_METADATA = "__metadata__"
_KEY = "theta"
_NAMES = {"u1": "U8", "i1": "I8", "u2": "U16", "u4": "U32", "u8": "U64", "i2": "I16", "i4": "I32",
          "i8": "I64", "f4": "F32", "f8": "F64"}  # fmt: skip
_SIZES = {"U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8,
          "F64": 8}  # fmt: skip


def build(
    kind: str, settings: Mapping[str, Any], parts: Mapping[str, Part]
) -> list[bytes | memoryview]:
    """The pieces of a parameter file, in order; large parts are not copied.

    Args:
        kind: the update's kind.
        settings: what decoding needs; must be plain JSON values.
        parts: bytes, or C-contiguous arrays of a fixed-width number type.
    """
    metadata = json.dumps({**settings, "kind": kind, "v": _VERSION}, **_CANONICAL)
    header: dict[str, Any] = {_METADATA: {_KEY: metadata}}
    pieces: list[bytes | memoryview] = []
    offset = 0
    for name in sorted(parts):
        part = parts[name]
        if isinstance(part, np.ndarray):
            dtype, shape = _NAMES[part.dtype.newbyteorder("<").str[1:]], list(part.shape)
            part = part.astype(part.dtype.newbyteorder("<"), copy=False)
        else:
            dtype, shape = "U8", [len(part)]
        view = raw_bytes(part) if isinstance(part, np.ndarray) else memoryview(part)
        header[name] = {
            "data_offsets": [offset, offset + view.nbytes], "dtype": dtype, "shape": shape,
        }  # fmt: skip
        offset += view.nbytes
        pieces.append(view)
    text = json.dumps(header, **_CANONICAL).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *pieces]


_CANONICAL: dict[str, Any] = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": True}


def parse(buffer: bytes | memoryview) -> Parameters:
    """The kind, settings and parts of a parameter file; parts are views into `buffer`.

    Raises:
        CorruptObjectError: it is not a whole parameter file of a version known here.
    """
    view = memoryview(buffer).cast("B")
    if len(view) < 8:
        raise CorruptObjectError(f"a parameter file has at least 8 bytes; this one has {len(view)}")
    length = int.from_bytes(view[:8], "little")
    if length > min(limits.PARAMETER_HEADER_BYTES, len(view) - 8):
        raise CorruptObjectError(f"the header claims {length} bytes of {len(view)}")
    try:
        header = json.loads(str(view[8 : 8 + length], "utf-8"))
        settings = json.loads(header.pop(_METADATA)[_KEY])
        kind, version = settings["kind"], settings["v"]
        parts = _parts(header, view[8 + length :])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptObjectError(f"the header is damaged: {error!r}") from error
    if version != _VERSION or not isinstance(kind, str):
        raise CorruptObjectError(f"kind {kind!r}, version {version!r}: expected version {_VERSION}")
    if kind == "pack":
        raise CorruptObjectError("a pack of parameter files, where one of them is expected")
    return Parameters(kind, settings, parts)


def head_settings(head: bytes) -> Mapping[str, Any]:
    """What the beginning of a parameter file says; nothing where that is damaged or cut short."""
    try:
        length = int.from_bytes(head[:8], "little")
        settings = json.loads(json.loads(head[8 : 8 + length])[_METADATA][_KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def only_part(head: bytes, nbytes: int) -> tuple[Mapping[str, Any], int] | None:
    """The settings of a file of one part called `data`, and where in the file that begins.

    None where the beginning does not say so beyond doubt: `parse` then finds out what it is.

    Args:
        head: how the file begins.
        nbytes: its length.
    """
    start = 8 + int.from_bytes(head[:8], "little")
    try:
        header = json.loads(head[8:start]) if start <= len(head) else {}
        settings = json.loads(header.pop(_METADATA)[_KEY])
        whole = {"data_offsets": [0, nbytes - start], "dtype": "U8", "shape": [nbytes - start]}
        if header == {"data": whole} and settings["v"] == _VERSION:
            return settings, start
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return None


def _parts(header: Mapping[str, Any], data: memoryview) -> dict[str, memoryview]:
    """The named parts, which must tile the data in the order of their names."""
    parts = {}
    position = 0
    for name in sorted(header):
        start, stop = header[name]["data_offsets"]
        size = _SIZES[header[name]["dtype"]]
        for extent in header[name]["shape"]:
            if type(extent) is not int:  # a text times a number is a longer text
                raise CorruptObjectError(f"part {name!r} has an extent that is no integer")
            size *= extent
        if start != position or not start <= stop <= len(data) or stop - start != size:
            raise CorruptObjectError(
                f"part {name!r} lies at {start}:{stop}, expected {position}:{position + size} "
                f"of {len(data)} bytes"
            )
        parts[name] = data[start:stop]
        position = stop
    if position != len(data):
        raise CorruptObjectError(f"{len(data) - position} bytes follow the last part")
    return parts
