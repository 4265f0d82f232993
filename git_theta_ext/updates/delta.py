"""`delta`: predicts that a value stays what it was; the residual is the distance in ulps."""

from __future__ import annotations

from typing import ClassVar

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.correction import apply_distances, encode_distances
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import is_ordered


class Delta:
    """The update that any pair of blocks of one dtype and size can be stored as."""

    kind: ClassVar[str] = "delta"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Store the distance of every value from its predecessor, slice by slice."""
        if base is None or base.dtype != new.dtype or len(base) != len(new):
            return None
        settings, parts = encode_distances(new, base, is_ordered(spec.dtype))
        return Encoded(self.kind, build(self.kind, settings, parts))

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values; writes into `base`."""
        if base is None:
            raise CorruptObjectError("a delta needs a predecessor")
        apply_distances(parameters.settings, parameters.parts, base, is_ordered(spec.dtype))
        return base
