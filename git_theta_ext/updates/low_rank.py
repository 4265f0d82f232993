"""`low-rank`: predicts that the product of two thin matrices was added, as merging LoRA does.

Hu and others, "LoRA: Low-Rank Adaptation of Large Language Models", 2021. The factors are stored
as integers over a common power of two. Their products and sums stay below 2^53, so float64
holds them exactly and any BLAS, whatever its order of operations, gives the same bits; factors
too wide for that are split into halves first, and the two exact products added. The sum with
the old values is rounded as the merge itself rounded: the change either once with the sum
(`sum`), or to the weights' dtype before it is added (`rounded`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.errors import CorruptObjectError
from git_theta_ext.tensors import BlockSpec, DType
from git_theta_ext.updates import correction
from git_theta_ext.updates.arithmetic import narrow, pieces, widen
from git_theta_ext.updates.base import Encoded, Parameters, Part, Values
from git_theta_ext.updates.coders import compress_numbers, decompress_numbers
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import apply as move
from git_theta_ext.updates.residual import difference

DTYPES = frozenset({"F32", "BF16", "F16"})
"""Weights that are trained with LoRA; others have no fit."""
MAX_RANK = 256
_HALF = 15
_LIMIT = 1 << 30
"""Factors stay below this."""
_EXACT_BITS = 53
_CHUNK = 1 << 16
"""Elements predicted at once: the float64 product stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Factors:
    """A change `left @ right * 2**exponent`; both factors are integers in float64.

    `left` is rows × rank, `right` rank × columns; `order` is `sum` or `rounded`.
    """

    left: NDArray[np.float64]
    right: NDArray[np.float64]
    exponent: int
    order: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the change."""
        return self.left.shape[0], self.right.shape[1]


class LowRank:
    """The update that stores two thin factors."""

    kind: ClassVar[str] = "low-rank"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Fit factors to the change; None where samples show none, or the dtype has no fit."""
        from git_theta_ext.updates.find_low_rank import find_factors

        if base is None or base.dtype != new.dtype or len(base) != len(new):
            return None
        factors = find_factors(spec, new, base)
        return None if factors is None else self.encode_factors(spec, new, base, factors)

    def encode_factors(
        self, spec: BlockSpec, new: Values, base: Values, factors: Factors
    ) -> Encoded:
        """The update with given factors, and what they miss."""
        predicted = predict(spec.dtype, base.copy(), factors)
        settings, parts = correction.encode(new, predicted, True)
        rank = factors.left.shape[1]
        settings.update(
            shape=list(factors.shape), rank=rank, exponent=factors.exponent, order=factors.order
        )
        parts.update(left=_pack(factors.left), right=_pack(factors.right))
        return Encoded(self.kind, build(self.kind, settings, parts), (("rank", str(rank)),))

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values; writes into `base`."""
        return self._decode(spec, parameters, base, _Product)

    def decode_carefully(
        self, spec: BlockSpec, parameters: Parameters, base: Values | None
    ) -> Values:
        """The values, by element-wise operations alone; for a BLAS that is not exact on integers.

        Some ten times slower.
        """
        return self._decode(spec, parameters, base, _SlowProduct)

    def _decode(
        self,
        spec: BlockSpec,
        parameters: Parameters,
        base: Values | None,
        product: type[_Product],
    ) -> Values:
        if base is None or spec.dtype.name not in DTYPES:
            raise CorruptObjectError(f"a low-rank change to a block of {spec.dtype.name}")
        factors = _read(parameters.settings, parameters.parts, len(base))
        values = predict(spec.dtype, base, factors, product)
        correction.apply(parameters.settings, parameters.parts, values, True)
        return values


def _read(settings: Mapping[str, Any], parts: Mapping[str, memoryview], count: int) -> Factors:
    (rows, columns), rank = settings["shape"], settings["rank"]
    exponent, order = settings["exponent"], settings["order"]
    if not all(isinstance(number, int) for number in (rows, columns, rank, exponent)):
        raise CorruptObjectError("the shape of a low-rank change is damaged")
    if min(rows, columns) < 1 or rows * columns != count or not 1 <= rank <= MAX_RANK:
        raise CorruptObjectError(
            f"a change of rank {rank}, {rows} × {columns}, does not fit a block of {count} values"
        )
    # Without this, a small file could make a large block of one row cost rank times its size.
    if rank > min(rows, columns):
        raise CorruptObjectError(f"rank {rank} of a matrix of {rows} × {columns}")
    if not -1000 <= exponent <= 1000 or order not in ("sum", "rounded"):
        raise CorruptObjectError(f"exponent {exponent} or order {order!r} of a low-rank change")
    left, right = _unpack(parts["left"], rows * rank), _unpack(parts["right"], rank * columns)
    return Factors(left.reshape(rows, rank), right.reshape(rank, columns), exponent, order)


def _pack(factor: NDArray[np.float64]) -> Part:
    signed = factor.astype(np.int32).ravel().view(np.uint32)
    return compress_numbers(difference(signed, np.zeros_like(signed), False))


def _unpack(stream: memoryview, count: int) -> NDArray[np.float64]:
    coded: Values = np.empty(count, np.uint32)
    decompress_numbers(stream, coded)
    whole = move(coded, np.zeros_like(coded), False).view(np.int32).astype(np.float64)
    if count and float(np.abs(whole).max()) >= _LIMIT:
        raise CorruptObjectError("a factor of a low-rank change is out of its range")
    return whole


# -- prediction ------------------------------------------------------------------------------------


def predict(
    dtype: DType, values: Values, factors: Factors, product: type[_Product] | None = None
) -> Values:
    """Add the change to the values, in place, rounded in the order of the factors."""
    columns = factors.shape[1]
    change = (product or _Product)(factors)
    step = max(1, _CHUNK // columns)
    for start in range(0, factors.shape[0], step):
        rows = slice(start, min(start + step, factors.shape[0]))
        added = change.rows(rows).ravel()
        part = values[rows.start * columns : rows.stop * columns]
        for piece in pieces(len(part)):
            part[piece] = add(dtype, part[piece], added[piece], factors.order)
    return values


def add(dtype: DType, old: Values, change: NDArray[np.float64], order: str) -> Values:
    """The old values plus a change, rounded as `order` says; NaNs become the old bits."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        step: NDArray[Any] = change.astype(np.float32)
        if order == "rounded" and dtype.name != "F32":
            step = widen(dtype, narrow(dtype, step, np.zeros_like(old)))
        step += old.view(np.float32) if dtype.name == "F32" else widen(dtype, old)
        return narrow(dtype, step, old)


class _Product:
    """Rows of the product of two integer factors, times a power of two, in float64."""

    def __init__(self, factors: Factors) -> None:
        left, right = factors.left, factors.right
        rank = left.shape[1]
        widest = [int(np.abs(side).max(initial=0)).bit_length() for side in (left, right)]
        # Scaling by a power of two is exact, so it is done once, on the thin factor.
        scale = 2.0**factors.exponent
        self._right = right
        self._halves = [left * scale]
        if sum(widest) + rank.bit_length() > _EXACT_BITS:
            # Each half is at most 2^15: sums of up to 2^8 products with 2^30 stay within 2^53.
            high = np.floor(left * 2.0**-_HALF) * 2.0**_HALF
            self._halves = [high * scale, (left - high) * scale]

    def rows(self, rows: slice) -> NDArray[np.float64]:
        """The change to some rows: exact products, then at most one rounded sum of two."""
        product = self._times(self._halves[0][rows])
        if len(self._halves) > 1:
            product += self._times(self._halves[1][rows])
        return product

    def _times(self, left: NDArray[np.float64]) -> NDArray[np.float64]:
        """Some rows of a half, times the right factor; exact in any order of operations."""
        product: NDArray[np.float64] = left @ self._right
        return product


class _SlowProduct(_Product):
    """The same without BLAS."""

    def _times(self, left: NDArray[np.float64]) -> NDArray[np.float64]:
        product = np.zeros((len(left), self._right.shape[1]))
        for column, row in zip(left.T, self._right, strict=True):
            product += column[:, None] * row
        return product
