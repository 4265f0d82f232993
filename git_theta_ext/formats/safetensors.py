"""safetensors: eight bytes of length, a JSON header, then the tensors' bytes.

Source: https://github.com/huggingface/safetensors, "Format", and its reader's `validate`. Accepted
as the reader of version 0.8 does: any order of the header's keys, unaligned tensors, leading white
space, duplicate keys (the last wins). Holes, overlaps and trailing bytes are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Literal, Source, Span

NAME = "safetensors"
METADATA = "__metadata__"
"""The key of the header that is no tensor's name."""
_SPECIFIED = {
    "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0",
    "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64",
    "I64", "U64",
}  # fmt: skip
"""The element types of version 0.8, which is what may be written."""
_CODES = {"QI8": "I8", "QU8": "U8", "QI32": "I32", "QU4X2": "U8", "QU2X4": "U8"}
"""Codes without their scales are plain integers."""


def sniff(head: bytes, source: Source) -> bool:
    """Whether the file begins with a plausible length and a JSON object."""
    length = int.from_bytes(head[:8], "little")
    return (
        len(head) > 9 and 2 <= length <= source.size - 8 and head[8:].lstrip(b" \t\r\n")[:1] == b"{"
    )


def layout(source: Source) -> Layout:
    """The header as a literal, then every tensor in the order in which it lies in the file."""
    length = int.from_bytes(source.read(0, 8), "little")
    if length > source.size - 8:
        raise FormatError(f"offset 0: a header of {length} bytes in a file of {source.size}")
    if length > limits.JSON_HEADER_BYTES:
        raise BoundError(f"safetensors: a header of more than {limits.JSON_HEADER_BYTES} bytes")
    header = source.read(0, 8 + length)
    return Layout(NAME, (Literal(header), *map(Span, tensors(header, source.size))))


def tensors(header: bytes, size: int) -> list[TensorInfo]:
    """The tensors in the order in which they lie in a file of `size` bytes with this header.

    Raises:
        FormatError: they do not fill it, or the header is damaged.
    """
    spans = sorted(
        (_span(name, entry) for name, entry in _header(header[8:]).items() if name != METADATA),
        key=lambda item: (item[0], item[1]),
    )
    position, end = 0, size - len(header)
    found: list[TensorInfo] = []
    for start, stop, tensor in spans:
        if start != position or stop > end:
            raise FormatError(
                f"tensor {tensor.name!r}: bytes {start} to {stop} of {end}; expected a start at "
                f"{position}"
            )
        found.append(tensor)
        position = stop
    if position != end:
        raise FormatError(
            f"offset {len(header) + position}: {end - position} bytes follow the tensors"
        )
    return found


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"offset 8: the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise FormatError("offset 8: the header is not a JSON object")
    return header


def _span(name: str, entry: object) -> tuple[int, int, TensorInfo]:
    """Start, stop and description of a tensor; its shape must account for its bytes."""
    if not isinstance(entry, dict):
        raise FormatError(f"tensor {name!r}: its entry is not a JSON object")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FormatError(f"tensor {name!r}: unknown dtype {str(dtype)[:20]!r}")
    if not _naturals(shape) or not _naturals(offsets):
        raise FormatError(f"tensor {name!r}: shape or offsets are not lists of natural numbers")
    if len(shape) > limits.AXES or len(offsets) != 2:
        raise FormatError(f"tensor {name!r}: {len(shape)} axes and {len(offsets)} offsets")
    tensor = TensorInfo(name, DTYPES[dtype], tuple(shape))
    start, stop = offsets
    if tensor.count * tensor.dtype.bits != 8 * (stop - start):
        raise FormatError(
            f"tensor {name!r}: {dtype} {shape} takes {tensor.nbytes} bytes, not {start} to {stop}"
        )
    return start, stop, tensor


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 2**63 for item in value
    )


def metadata(layout: Layout) -> dict[str, str]:
    """The `__metadata__` of a file, given its layout; empty if it has none."""
    found = _header(_literal(layout)[8:]).get(METADATA, {})
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _literal(layout: Layout) -> bytes:
    first = layout.segments[0] if layout.segments else None
    if not isinstance(first, Literal) or len(first.data) < 8:
        raise FormatError("not the layout of a safetensors file")
    return first.data


def build(
    tensors: Mapping[str, TensorInfo],
    model: Layout | None = None,
    new_metadata: Mapping[str, str] | None = None,
) -> Layout:
    """A layout for these tensors, in this order, with the metadata given or the model's.

    The header is padded with spaces to a multiple of eight bytes, as the library does.

    Raises:
        FormatError: the specification has no such element type, or packed elements do not fill
            their last byte.
    """
    header: dict[str, Any] = {}
    if new_metadata is None and model is not None:
        new_metadata = metadata(model)
    if new_metadata:
        header[METADATA] = dict(new_metadata)
    position = 0
    for name, tensor in tensors.items():
        stop = position + tensor.nbytes
        dtype = _CODES.get(tensor.dtype.name, tensor.dtype.name)
        if dtype not in _SPECIFIED:
            raise FormatError(f"tensor {name!r}: safetensors has no element type {dtype}")
        if tensor.count * tensor.dtype.bits % 8:
            raise FormatError(f"tensor {name!r}: {tensor.count} elements of {dtype} end in a byte")
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, stop],
        }
        position = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    spans = (Span(tensor) for tensor in tensors.values())
    return Layout(NAME, (Literal(len(text).to_bytes(8, "little") + text), *spans))
