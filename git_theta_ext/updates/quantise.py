"""`quantise`: predicts that floats were quantised by one of ggml's simple quantisers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BLOCK_VALUES, BlockSpec, DType
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.updates import correction
from git_theta_ext.updates.arithmetic import pieces, widen
from git_theta_ext.updates.base import Encoded, Parameters, base_spec
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.quantisers import (
    BY_SIZE,
    ELEMENTS,
    FLOATS,
    QUANTISERS,
    Quantiser,
    quantise,
)

_SAMPLE = 64
_LEAST = 0.5
"""Share of the sampled blocks' bytes that must be predicted for it to be this quantiser's work."""


class Quantise:
    """The update from a block of floats to the blocks of a GGUF type that they were quantised to.

    The floats may be more than those that are quantised: `start` says where these begin, for
    tensors of another type are cut at other rows.
    """

    kind: ClassVar[str] = "quantise"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Does not apply between blocks of one dtype; `encode_from` does."""
        return None

    def applies(self, spec: BlockSpec, new: Values, old_spec: BlockSpec, base: Values) -> bool:
        """Whether samples say so; arguments as for `encode_from`.

        Args:
            spec, new, old_spec, base: as there.
        """
        kind = quantiser_of(spec, old_spec)
        return kind is not None and _found(kind, spec, new, old_spec, base) is not None

    def encode_from(
        self, spec: BlockSpec, new: Values, old_spec: BlockSpec, base: Values
    ) -> Encoded | None:
        """Store what a quantiser misses; None where samples say that it was no such quantiser.

        Args:
            spec: what the new block is: U8, rows of blocks of bytes.
            new: its raw bits, flat.
            old_spec: what its predecessor is: floats, rows of 32 for each block.
            base: the predecessor's raw bits, flat; not written to.
        """
        kind = quantiser_of(spec, old_spec)
        if kind is None or not len(new):
            return None
        found = _found(kind, spec, new, old_spec, base)
        if found is None:
            return None
        start, fused = found
        values = base[start : start + len(new) // kind.size * ELEMENTS]
        best: Encoded | None = None
        # A sample seldom tells both arithmetics apart: they differ in one byte of some thousands.
        for way in (fused, not fused) if kind.bits < 8 else (fused,):
            predicted = _predicted(kind, old_spec.dtype, values, way)
            settings, parts = correction.encode(new, predicted, False)
            settings["base"] = {"dtype": old_spec.dtype.name, "shape": [old_spec.count]}
            settings.update(type=kind.name, start=start, fused=way)
            info = (("from", old_spec.dtype.name), ("to", kind.name))
            made = Encoded(self.kind, build(self.kind, settings, parts), info)
            if best is None or made.nbytes < best.nbytes:
                best = made
            if not parts:
                break
        return best

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The bytes, in a fresh array."""
        settings = parameters.settings
        old, kind = base_spec(settings), QUANTISERS.get(settings["type"])
        start, fused = settings["start"], settings["fused"]
        if base is None or old is None or old.dtype.name not in FLOATS or kind is None:
            raise CorruptObjectError(f"{settings['type']!r} does not fit its predecessor")
        if base.dtype != values_dtype(old.dtype) or spec.dtype.name != "U8":
            raise CorruptObjectError(f"{spec.dtype.name} quantised of {old.dtype.name}")
        count = spec.nbytes // kind.size * ELEMENTS
        whole = type(start) is int and start >= 0 and not spec.nbytes % kind.size
        if not whole or type(fused) is not bool or start + count > len(base):
            raise CorruptObjectError(
                f"{spec.nbytes} bytes of {kind.name} from value {start!r} of {len(base)}"
            )
        values = _predicted(kind, old.dtype, base[start : start + count], fused)
        correction.apply(settings, parameters.parts, values, False)
        return values


def quantiser_of(spec: BlockSpec, old: BlockSpec) -> Quantiser | None:
    """The quantiser that may have made a block of bytes of another one of floats, by its form."""
    if spec.dtype.name != "U8" or old.dtype.name not in FLOATS or len(spec.shape) < 2:
        return None
    *rows, blocks, size = spec.shape
    *lead, row = old.shape or (0,)
    kind = BY_SIZE.get(size)
    if kind is None or len(rows) != len(lead) or rows[1:] != lead[1:]:
        return None
    fits = rows[0] <= lead[0] and blocks * ELEMENTS == row if rows else blocks * ELEMENTS <= row
    return kind if fits else None


def _found(
    kind: Quantiser, spec: BlockSpec, new: Values, old_spec: BlockSpec, base: Values
) -> tuple[int, bool] | None:
    """The value with which the quantised ones begin, and the arithmetic, as samples tell them."""
    given = new.reshape(-1, kind.size)
    at = np.unique(np.linspace(0, len(given) - 1, _SAMPLE).astype(np.intp))
    within = at[:, None] * ELEMENTS + np.arange(ELEMENTS)
    best, most = None, _LEAST
    for start in _starts(spec, kind, len(base)):
        numbers = widen(old_spec.dtype, base[start + within].ravel()).reshape(-1, ELEMENTS)
        for fused in (False, True) if kind.bits < 8 else (False,):
            share = float(np.mean(quantise(kind, numbers, fused=fused) == given[at]))
            if share > most:
                best, most = (start, fused), share
    return best


def _starts(spec: BlockSpec, kind: Quantiser, count: int) -> range:
    """Where in its predecessor a block may begin: `core.tensors.cut` cuts at so many rows."""
    step = spec.nbytes // spec.shape[0]
    rows = 1 << max(0, (BLOCK_VALUES // max(1, step)).bit_length() - 1)
    needed = spec.nbytes // kind.size * ELEMENTS
    return range(0, count - needed + 1, rows * step // kind.size * ELEMENTS)


def _predicted(kind: Quantiser, dtype: DType, values: Values, fused: bool) -> Values:
    """What the quantiser makes of raw bits of floats: flat bytes, in a fresh array."""
    out = np.empty(len(values) // ELEMENTS * kind.size, np.uint8)
    rows = out.reshape(-1, kind.size)
    for piece in pieces(len(values), ELEMENTS):
        numbers = widen(dtype, values[piece]).reshape(-1, ELEMENTS)
        some = slice(piece.start // ELEMENTS, piece.stop // ELEMENTS)
        rows[some] = quantise(kind, numbers, fused=fused)
    return out
