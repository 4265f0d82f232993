"""The `low-rank` update.

The sum of the product with the old values is rounded as the merge itself rounded: the change either
once with the sum (`sum`), or to the weights' dtype before it is added (`rounded`). Factors that a
trainer supplied may have a `scaling`, by which the product is multiplied in float32, as PEFT does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates import correction
from git_theta_ext.updates.arithmetic import component, halves
from git_theta_ext.updates.base import Encoded, Parameters, Part
from git_theta_ext.updates.low_rank.factors import (
    DTYPES,
    Factors,
    Trained,
    is_low_rank,
    nearest_factors,
    pack,
    read_factors,
    rest_parts,
)
from git_theta_ext.updates.low_rank.prediction import predict
from git_theta_ext.updates.parameter_file import build


class LowRank:
    """The update that stores two thin factors."""

    kind: ClassVar[str] = "low-rank"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Fit factors to the change; None where samples show none, or the dtype has no fit."""
        from git_theta_ext.updates.low_rank.fit import find_factors

        if base is None or base.dtype != new.dtype or len(base) != len(new):
            return None
        factors = find_factors(halves(spec), new, base)
        return None if factors is None else self.encode_factors(spec, new, base, factors)

    def encode_factors(
        self,
        spec: BlockSpec,
        new: Values,
        base: Values,
        factors: Factors,
        more: tuple[Mapping[str, Any], Mapping[str, Part]] = ({}, {}),
    ) -> Encoded:
        """The update with given factors, and what they miss.

        Args:
            spec: what the block is, of a dtype in `DTYPES`, or complex: then as `halves` has it.
            new, base: its raw bits and its predecessor's, flat, of one dtype and length.
            factors: of a matrix with as many entries, for which `is_low_rank` holds.
            more: settings and parts that decoding does not look at.
        """
        predicted = predict(component(spec.dtype), base.copy(), factors)
        settings, parts = correction.encode(new, predicted, True)
        rank = factors.left.shape[1]
        settings.update(
            shape=list(factors.shape), rank=rank, exponent=factors.exponent, order=factors.order
        )
        if factors.scaling != 1.0:
            settings["scaling"] = factors.scaling
        for name, factor in (("left", factors.left), ("right", factors.right)):
            parts[name], shift = pack(factor)
            if shift is not None:
                settings[f"{name}_shift"] = shift
        settings.update(more[0])
        parts.update(more[1])
        return Encoded(self.kind, build(self.kind, settings, parts), (("rank", str(rank)),))

    def encode_trained(
        self, spec: BlockSpec, new: Values, base: Values, trained: Trained, order: str
    ) -> Encoded | None:
        """The update with factors that a trainer saved, which can be read back to the bit.

        None where they cannot be stored as a change of such a block.

        Args:
            spec: what the block is, of a dtype in `DTYPES`.
            new, base: its raw bits and its predecessor's, flat, of one dtype and length.
            trained: of a matrix with as many entries.
            order: how the sum is rounded, `sum` or `rounded`.
        """
        found = nearest_factors(trained, order)
        if found is None or not is_low_rank(spec, found[0]):
            return None
        return self.encode_factors(spec, new, base, found[0], rest_parts(*found, trained))

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values; writes into `base`."""
        dtype = component(spec.dtype)
        if base is None or dtype.name not in DTYPES:
            raise CorruptObjectError(f"a low-rank change to a block of {spec.dtype.name}")
        factors = read_factors(parameters.settings, parameters.parts, len(base))
        values = predict(dtype, base, factors)
        correction.apply(parameters.settings, parameters.parts, values, True)
        return values
