"""`dense`: predicts nothing; the values themselves, compressed without loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values, raw_bytes, values_dtype
from git_theta_ext.updates import coders
from git_theta_ext.updates.arithmetic import apart, smaller_apart, together
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import SLICE

_RAW_BYTES = 4096
"""Blocks up to this size are stored as they are: 384 floats would save a tenth and take 43 µs."""
_ROTATED = frozenset({"F32", "BF16", "C64"})
"""Floats with 8 bits of exponent: with the sign moved out of the way, it fills a byte."""
_HALVES = "planes-halves"
"""As `planes`, of complex elements: all real parts first, then all imaginary ones."""
_BYTES_LEVEL = 3
_DENSER_LEVEL = 9
_DENSER_BYTES = 2 << 20
_COMPRESSIBLE = 0.7
"""Short bytes that level 3 shrinks below this are worth level 9: the nodes of scikit-learn's trees
then take 712 kB, not 780, and XGBoost's 161 kB, not 168, at 50 MB a second."""
_SAMPLE_BYTES = 64 << 10
_CLEARLY = 0.95
"""Share of the planes' bytes that a sample must take less than, for all to be tried as bytes."""
_GLIMPSES, _RUN = 4, 256
_MANY_SLICES = 12
"""Slices from which on it pays to decode a few of them first."""


class Dense:
    """The update that any block can be stored as."""

    kind: ClassVar[str] = "dense"
    needs_base: ClassVar[bool] = False

    def __init__(self, *, compress: bool = True) -> None:
        """`compress` is whether what is stored is to be as small as it can be, or quick to read."""
        self._compress = compress

    def encode(self, spec: BlockSpec, new: Values, base: Values | None = None) -> Encoded:
        """Store `new`: raw if it is small, else as bytes or byte planes, as suits the dtype."""
        if new.nbytes <= _RAW_BYTES or not self._compress:
            return _raw(raw_bytes(new))
        if new.itemsize == 1 and spec.dtype.kind != "float":
            return encode_dense_bytes(raw_bytes(new), _BYTES_LEVEL)
        settings, parts = coders.encode_planes(
            new, spec.dtype.name in _ROTATED, spec.dtype.kind in ("int", "uint")
        )
        if spec.dtype.kind == "complex":
            other, parted = coders.encode_planes(apart(new), spec.dtype.name in _ROTATED, False)
            if smaller_apart(parts, parted):
                settings, parts = {**other, "coder": _HALVES}, parted
        settings["word"] = new.itemsize
        planes = Encoded(self.kind, build(self.kind, settings, parts))
        return _as_repeated(raw_bytes(new), planes) or planes

    def decode(
        self,
        spec: BlockSpec,
        parameters: Parameters,
        base: Values | None = None,
        room: Values | None = None,
    ) -> Values:
        """The values.

        Args:
            spec: what they are.
            parameters: how they are stored.
            base: not looked at.
            room: where they go if it is of their type and number; else into a fresh array.
        """
        dtype = values_dtype(spec.dtype)
        settings, parts = parameters.settings, parameters.parts
        coder = settings["coder"]
        size = settings.get("size", spec.nbytes)
        if not isinstance(size, int) or not 0 <= size <= max(spec.nbytes, limits.STRUCTURE_BYTES):
            raise CorruptObjectError(f"a dense block of {size!r} bytes")
        if coder == "raw":
            data: bytes | memoryview = parts["data"]
        elif coder == "zstd":
            data = coders.decompress(parts["data"], size)
        elif coder in _planes_of(spec) and settings["word"] == dtype.itemsize:
            out = _room(room, spec.nbytes // dtype.itemsize, dtype)
            coders.decode_planes(settings, parts, out)
            return together(out) if coder == _HALVES else out
        else:
            raise CorruptObjectError(f"coder {coder!r} does not fit a block of {spec.dtype.name}")
        if len(data) != size:
            raise CorruptObjectError(f"{len(data)} bytes stored, expected {size}")
        found = np.frombuffer(data, dtype)
        out = _room(room, len(found), dtype)
        out[:] = found
        return out


def is_raw(settings: Mapping[str, Any]) -> bool:
    """Whether settings are those of a block whose one part is its bytes, as they are."""
    return dict(settings) == {"coder": "raw", "kind": Dense.kind, "v": 1}


def _room(room: Values | None, count: int, dtype: np.dtype[Any]) -> Values:
    """The room that there is, where it fits, else new room."""
    if room is not None and room.dtype == dtype and len(room) == count:
        return room
    return np.empty(count, dtype)


def _planes_of(spec: BlockSpec) -> tuple[str, ...]:
    return ("planes", _HALVES) if spec.dtype.kind == "complex" else ("planes",)


def _as_repeated(data: memoryview, planes: Encoded) -> Encoded | None:
    """The values as bytes where whole numbers recur, as in a tree's leaves: smaller than planes."""
    sample = data[:_SAMPLE_BYTES]
    if coders.packed_size(sample) * len(data) >= _CLEARLY * planes.nbytes * len(sample):
        return None
    found = encode_dense_bytes(data, _BYTES_LEVEL)
    return found if found.nbytes < planes.nbytes else None


def glimpse(spec: BlockSpec, parameters: Parameters) -> tuple[NDArray[np.intp], Values] | None:
    """A thousand values of a dense block and their places, without decoding the rest of it.

    None where that is no cheaper than all of it. Nothing has been verified: good for a guess only.
    """
    dtype = values_dtype(spec.dtype)
    count = spec.nbytes // dtype.itemsize
    number = -(-count // SLICE)
    settings = parameters.settings
    if parameters.kind != Dense.kind or settings["coder"] != "planes" or number < _MANY_SLICES:
        return None
    if settings["word"] != dtype.itemsize:
        return None
    chosen = [number * part // _GLIMPSES for part in range(_GLIMPSES)]
    found = coders.decode_some_planes(settings, parameters.parts, dtype, count, chosen)
    places = np.concatenate([np.arange(_RUN) + at * SLICE for at in chosen])
    return places, np.concatenate([values[:_RUN] for values in found])


def _raw(data: memoryview, sized: bool = False) -> Encoded:
    settings: dict[str, Any] = {"coder": "raw"}
    if sized:
        settings["size"] = len(data)
    return Encoded("dense", build("dense", settings, {"data": data}))


def encode_dense_bytes(data: memoryview, level: int, sized: bool = False) -> Encoded:
    """Bytes of no numeric meaning, compressed at a zstd level if that helps.

    `sized` states the length: a patch may follow, and then the manifest gives only the last one.
    """
    packed = coders.compress(data, level)
    short = level < _DENSER_LEVEL and len(data) <= _DENSER_BYTES
    if short and len(packed) < _COMPRESSIBLE * len(data):
        packed = coders.compress(data, _DENSER_LEVEL)
    if len(packed) > 0.98 * len(data):
        return _raw(data, sized)
    settings: dict[str, Any] = {"coder": "zstd"}
    if sized:
        settings["size"] = len(data)
    return Encoded("dense", build("dense", settings, {"data": packed}))
