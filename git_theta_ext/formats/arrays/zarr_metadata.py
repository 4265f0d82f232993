"""What `.zarray` (Zarr 2) and `zarr.json` (Zarr 3) say of an array.

Sources: the Zarr specifications, v2 and v3 core, with the codecs `bytes`, `transpose`, `crc32c` and
`sharding_indexed`; TensorStore's and ml_dtypes' names of element types.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, DType
from git_theta_ext.formats.arrays.grid import Array, is_shape
from git_theta_ext.formats.npy import tensor_of

_DTYPES = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8",
    "uint16": "U16", "uint32": "U32", "uint64": "U64", "float16": "F16", "float32": "F32",
    "float64": "F64", "complex64": "C64", "complex128": "C128", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0", "int4": "I8", "uint4": "U8",
    "int2": "I8",
}  # fmt: skip
"""Element types by their names in Zarr 3; numbers below eight bits take a byte each."""
_NUMBER = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Keys:
    """How chunks are called within the folder of their array: `0.0`, `0/0`, `c/0/0`."""

    prefix: str
    separator: str

    def place(self, key: str, axes: int) -> tuple[int, ...] | None:
        """The place in the grid of a chunk of this name; None for other names.

        Args:
            key: the path from the array's folder.
            axes: of the array; the chunk of one without axes is `0`, or the mere prefix.
        """
        words = key.split(self.separator)
        if self.prefix and words.pop(0) != self.prefix:
            return None
        if not self.prefix and not axes:
            return () if words == ["0"] else None
        if len(words) != axes or not all(map(_NUMBER.fullmatch, words)):
            return None
        return tuple(map(int, words))


def parse(data: bytes) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        FormatError: it is none, or too long.
    """
    if len(data) > limits.ARRAY_JSON_BYTES:
        raise BoundError(f"zarr: {len(data)} bytes of JSON; {limits.ARRAY_JSON_BYTES} are read")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError("zarr: no JSON") from error
    if not isinstance(found, dict):
        raise FormatError("zarr: no object of JSON")
    return found


def version_2(document: dict[str, Any]) -> tuple[Array, Keys]:
    """The array that a `.zarray` is of.

    Raises:
        FormatError: it says nothing that can be read.
    """
    shape, chunks = _shape(document.get("shape")), _shape(document.get("chunks"))
    if document.get("zarr_format") != 2 or document.get("filters"):
        raise FormatError("zarr: another version, or filters")
    separator = document.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise FormatError("zarr: a separator that is not known")
    order = _reversed(len(shape)) if document.get("order") == "F" else None
    compressed = document.get("compressor") is not None
    array = Array(shape, chunks, _numpy(document.get("dtype")), order, compressed=compressed)
    return array, Keys("", separator)


def version_3(document: dict[str, Any]) -> tuple[Array, Keys]:
    """The array that a `zarr.json` is of.

    Raises:
        FormatError: it is of a group, or says nothing that can be read.
    """
    if document.get("zarr_format") != 3 or document.get("node_type") != "array":
        raise FormatError("zarr: no array")
    grid, options = _named(document.get("chunk_grid"))
    if grid != "regular" or document.get("storage_transformers"):
        raise FormatError("zarr: chunks that are not regular")
    array = _array(
        _shape(document.get("shape")),
        _shape(options.get("chunk_shape")),
        document.get("data_type"),
        document.get("codecs"),
    )
    kind, options = _named(document.get("chunk_key_encoding"))
    separator = options.get("separator", "/" if kind == "default" else ".")
    if kind not in ("default", "v2") or separator not in (".", "/"):
        raise FormatError("zarr: names of chunks that are not known")
    return array, Keys("c" if kind == "default" else "", separator)


def is_group(document: dict[str, Any]) -> bool:
    """Whether a `zarr.json` or a `.zgroup` is of a group."""
    version = document.get("zarr_format")
    return version == 2 or (version == 3 and document.get("node_type") == "group")


def _array(shape: tuple[int, ...], chunk: tuple[int, ...], kind: Any, codecs: Any) -> Array:
    """An array whose chunks are written by these codecs of Zarr 3."""
    if not isinstance(codecs, list):
        raise FormatError("zarr: no codecs")
    steps = [_named(codec) for codec in codecs]
    order = None
    if steps and steps[0][0] == "transpose":
        order = _order(steps.pop(0)[1].get("order"), len(shape))
    if not steps:
        raise FormatError("zarr: no codec that makes bytes")
    (name, options), after = steps[0], steps[1:]
    if name == "sharding_indexed":
        if order is not None or after:
            raise FormatError("zarr: shards that are transposed or compressed")
        return _shard(shape, chunk, kind, options)
    if name != "bytes":
        return Array(shape, chunk, None, compressed=True)
    dtype = DTYPES[_DTYPES[kind]] if isinstance(kind, str) and kind in _DTYPES else None
    if options.get("endian") == "big" and dtype is not None and dtype.itemsize > 1:
        dtype = None
    checksum = [step for step, _ in after] == ["crc32c"]
    return Array(shape, chunk, dtype, order, checksum, compressed=bool(after) and not checksum)


def _shard(
    shape: tuple[int, ...], chunk: tuple[int, ...], kind: Any, options: dict[str, Any]
) -> Array:
    """An array of shards; FormatError where they do not consist of whole chunks."""
    inner = _shape(options.get("chunk_shape"))
    if len(inner) != len(chunk) or not all(inner):
        raise FormatError("zarr: a shard whose chunks have other axes")
    if any(size % step for size, step in zip(chunk, inner, strict=True)):
        raise FormatError("zarr: a shard that does not consist of whole chunks")
    index = [_named(codec) for codec in options.get("index_codecs") or ()]
    names = [name for name, _ in index]
    if names not in (["bytes"], ["bytes", "crc32c"]) or index[0][1].get("endian") != "little":
        raise FormatError("zarr: an index of shards that is not known")
    return Array(
        shape,
        chunk,
        None,
        inner=_array(shape, inner, kind, options.get("codecs")),
        index_first=options.get("index_location") == "start",
        index_checksum=len(names) == 2,
    )


def _named(value: Any) -> tuple[str, dict[str, Any]]:
    """Name and configuration of an extension point, which may be the mere name."""
    if isinstance(value, str):
        return value, {}
    name = value.get("name") if isinstance(value, dict) else None
    options = value.get("configuration", {}) if isinstance(value, dict) else None
    if not isinstance(name, str) or not isinstance(options, dict):
        raise FormatError("zarr: an extension without a name")
    return name, options


def _shape(value: Any) -> tuple[int, ...]:
    if not is_shape(value):
        raise FormatError("zarr: no shape")
    return tuple(value)


def _reversed(axes: int) -> tuple[int, ...] | None:
    return tuple(reversed(range(axes))) if axes > 1 else None


def _order(value: Any, axes: int) -> tuple[int, ...] | None:
    """The axes from the slowest to the fastest, of a `transpose`; None for row-major order."""
    if value in ("C", "F"):
        return _reversed(axes) if value == "F" else None
    if not is_shape(value) or sorted(value) != list(range(axes)):
        raise FormatError("zarr: no order of the axes")
    return None if value == list(range(axes)) else tuple(value)


def _numpy(kind: Any) -> DType | None:
    """The element type that Zarr 2 calls `<f4`, or as ml_dtypes does."""
    if isinstance(kind, str) and kind in _DTYPES:
        return DTYPES[_DTYPES[kind]]
    if kind == "|O":
        raise FormatError("zarr: objects")
    try:
        found = tensor_of("", kind, fortran=False, shape=(), start=0)
    except FormatError:
        return None
    return None if found.shape else found.dtype
