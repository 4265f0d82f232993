"""`cast`: predicts that the values were converted to another float dtype, as an export does."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.updates import correction
from git_theta_ext.updates.arithmetic import first_special, mantissa_bits, narrow, pieces, widen
from git_theta_ext.updates.base import Encoded, Parameters, base_spec
from git_theta_ext.updates.parameter_file import build


class Cast:
    """The update from a block of the same shape and another float dtype."""

    kind: ClassVar[str] = "cast"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Does not apply between blocks of one dtype; `encode_from` does."""
        return None

    def encode_from(
        self, spec: BlockSpec, new: Values, old_spec: BlockSpec, base: Values
    ) -> Encoded | None:
        """Store what conversion misses; None unless both are real floats of one shape.

        Beyond the largest number PyTorch saturates to it in 8 bits and other libraries do not:
        both are tried.

        Args:
            spec: what the new block is.
            new: its raw bits, flat.
            old_spec: what its predecessor is, of the same shape and another dtype.
            base: the predecessor's raw bits, flat, as many as of `new`; not written to.
        """
        if old_spec.shape != spec.shape or old_spec.dtype == spec.dtype:
            return None
        if not _castable(old_spec.dtype) or not _castable(spec.dtype):
            return None
        best: Encoded | None = None
        for saturate in (False, True) if spec.dtype.bits == 8 else (False,):
            predicted = convert(old_spec.dtype, spec.dtype, base, saturate)
            settings, parts = correction.encode(new, predicted, True)
            settings["base"] = {"dtype": old_spec.dtype.name, "shape": [old_spec.count]}
            settings["saturate"] = saturate
            info = (("from", old_spec.dtype.name),)
            found = Encoded(self.kind, build(self.kind, settings, parts), info)
            if best is None or found.nbytes < best.nbytes:
                best = found
        return best

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values, in a fresh array."""
        settings = parameters.settings
        old = base_spec(settings)
        if base is None or old is None or not _castable(old.dtype) or not _castable(spec.dtype):
            raise CorruptObjectError(f"a cast to {spec.dtype.name} does not fit its predecessor")
        if base.dtype != values_dtype(old.dtype) or len(base) != spec.count:
            raise CorruptObjectError(f"a cast of {len(base)} values to a block of {spec.count}")
        values = convert(old.dtype, spec.dtype, base, bool(settings["saturate"]))
        correction.apply(settings, parameters.parts, values, True)
        return values


def _castable(dtype: DType) -> bool:
    return dtype.kind == "float" and mantissa_bits(dtype) is not None


def convert(old: DType, new: DType, values: Values, saturate: bool) -> Values:
    """Round to another dtype; NaNs become the first quiet one with their sign.

    Args:
        old: the real float dtype of `values`.
        new: the real float dtype to round to.
        values: raw bits, flat.
        saturate: whether what lies beyond the largest finite number becomes that number.

    Returns:
        The raw bits of as many numbers of the new dtype, in a fresh array.
    """
    target = values_dtype(new)
    bits, mantissa = target.itemsize * 8, mantissa_bits(new) or 0
    largest = float(widen(new, np.array([first_special(new, bits) - 1], target))[0])
    sign_shift = values.dtype.type(values.itemsize * 8 - 1)
    quiet = first_special(new, bits)
    if quiet < (1 << (bits - 1)) - 1:
        quiet |= 1 << (mantissa - 1)
    out: Values = np.empty(len(values), target)
    for piece in pieces(len(values)):
        part = values[piece]
        sign = (part >> sign_shift).astype(target) << target.type(bits - 1)
        nan = sign | target.type(quiet) if quiet < 1 << (bits - 1) else np.full_like(sign, quiet)
        wide = widen(old, part)
        if saturate:
            wide = np.clip(wide, -largest, largest)
        out[piece] = narrow(new, wide, nan)
    return out
