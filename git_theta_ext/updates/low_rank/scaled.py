"""The `scaled-low-rank` update: a low-rank change, and then a number for each row or column.

DoRA (Liu and others, "Weight-Decomposed Low-Rank Adaptation", 2024) does this when it is merged. It
is stored where the factors are supplied, and never sought: values alone do not tell it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values
from git_theta_ext.updates import correction
from git_theta_ext.updates.arithmetic import narrow, widen
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.low_rank.factors import DTYPES, Factors, pack, read_factors
from git_theta_ext.updates.low_rank.prediction import Product, SlowProduct, library_is_exact
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.scale import pack_factors, unpack_factors

_CHUNK = 1 << 15
_KNOWN = DTYPES - {"F64"}
"""PEFT computes in float32."""


@dataclass(frozen=True, slots=True)
class Multipliers:
    """A float32 number for each row (axis 0) or column (axis 1) of a matrix."""

    values: NDArray[Any]
    axis: int


class ScaledLowRank:
    """The update that stores two thin factors and multipliers of rows or columns."""

    kind: ClassVar[str] = "scaled-low-rank"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """None: it is not sought."""
        return None

    def encode_factors(
        self,
        spec: BlockSpec,
        new: Values,
        base: Values,
        factors: Factors,
        multipliers: Multipliers,
    ) -> Encoded | None:
        """The update with given numbers, and what they miss; None for a dtype that has none.

        Args:
            spec: what the block is.
            new, base: its raw bits and its predecessor's, flat, of one dtype and length.
            factors: of a matrix with as many entries, for which `is_low_rank` holds. Their order
                is `sum`.
            multipliers: of the rows or columns of that matrix.
        """
        if spec.dtype.name not in _KNOWN or factors.order != "sum":
            return None
        predicted = predict(spec.dtype, base.copy(), factors, multipliers)
        settings, parts = correction.encode(new, predicted, True)
        rank = factors.left.shape[1]
        settings.update(
            shape=list(factors.shape), rank=rank, exponent=factors.exponent, order=factors.order,
            axis=multipliers.axis,
        )  # fmt: skip
        if factors.scaling != 1.0:
            settings["scaling"] = factors.scaling
        for name, factor in (("left", factors.left), ("right", factors.right)):
            parts[name], shift = pack(factor)
            if shift is not None:
                settings[f"{name}_shift"] = shift
        parts["factors"] = pack_factors(multipliers.values)
        return Encoded(self.kind, build(self.kind, settings, parts), (("rank", str(rank)),))

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values; writes into `base`."""
        if base is None or spec.dtype.name not in _KNOWN:
            raise CorruptObjectError(f"a scaled low-rank change to a block of {spec.dtype.name}")
        factors = read_factors(parameters.settings, parameters.parts, len(base))
        axis = parameters.settings["axis"]
        if factors.order != "sum" or type(axis) is not int or axis not in (0, 1):
            raise CorruptObjectError(f"an axis of {axis!r} of a scaled low-rank change")
        count = factors.shape[axis]
        numbers = unpack_factors(parameters.parts["factors"], count, np.dtype("<f4"))
        values = predict(spec.dtype, base, factors, Multipliers(numbers, axis))
        correction.apply(parameters.settings, parameters.parts, values, True)
        return values


def predict(
    dtype: DType,
    values: Values,
    factors: Factors,
    multipliers: Multipliers,
    product: type[Product] | None = None,
) -> Values:
    """Add the change, rounded to float32, in float32; multiply; round to the dtype. In place.

    Args:
        dtype: a real float dtype of up to 32 bits.
        values: raw bits, flat, row after row of a matrix of the factors' shape.
        factors: the change.
        multipliers: of its rows or columns.
        product: how to multiply; by default the quick way, if that is exact here.

    Returns:
        The same array `values`.
    """
    if product is None:
        product = Product if library_is_exact() else SlowProduct
    rows, columns = factors.shape
    step = max(1, _CHUNK // columns)
    change = product(factors, step)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for first in range(0, rows, step):
            some = slice(first, min(first + step, rows))
            piece = slice(some.start * columns, some.stop * columns)
            wide = change.rows(some).astype(np.float32)
            if factors.scaling != 1.0:
                wide *= np.float32(factors.scaling)
            wide += widen(dtype, values[piece]).reshape(wide.shape)
            numbers = multipliers.values
            wide *= numbers[some, None] if multipliers.axis == 0 else numbers
            values[piece] = narrow(dtype, wide.ravel(), values[piece])
    return values
