"""`delta`: predicts that a value stays what it was; the residual is the distance in ulps."""

from __future__ import annotations

from typing import ClassVar

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.arithmetic import apart, smaller_apart, together
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.correction import apply_distances, encode_distances
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import is_ordered

_HALVES = "pco-halves"
"""As `pco`, of complex elements: all real parts first, then all imaginary ones."""


class Delta:
    """The update that any pair of blocks of one dtype and size can be stored as."""

    kind: ClassVar[str] = "delta"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Store the distance of every value from its predecessor, slice by slice."""
        if base is None or base.dtype != new.dtype or len(base) != len(new):
            return None
        settings, parts = encode_distances(new, base, is_ordered(spec.dtype))
        if spec.dtype.kind == "complex":
            low, parted = encode_distances(apart(new), apart(base), is_ordered(spec.dtype))
            if smaller_apart(parts, parted):
                settings, parts = {**low, "coder": _HALVES}, parted
        return Encoded(self.kind, build(self.kind, settings, parts))

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values; writes into `base`."""
        if base is None:
            raise CorruptObjectError("a delta needs a predecessor")
        settings = parameters.settings
        if settings["coder"] != _HALVES:
            apply_distances(settings, parameters.parts, base, is_ordered(spec.dtype))
            return base
        if spec.dtype.kind != "complex":
            raise CorruptObjectError(f"coder {_HALVES!r} does not fit a block of {spec.dtype.name}")
        coder = {"coder": "pco-high" if "low" in settings else "pco"}
        values = apart(base)
        apply_distances({**settings, **coder}, parameters.parts, values, is_ordered(spec.dtype))
        return together(values)
