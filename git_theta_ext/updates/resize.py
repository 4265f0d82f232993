"""`resize`: predicts that one axis grew or shrank at its end, as a vocabulary does."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.updates import correction
from git_theta_ext.updates.base import Encoded, Parameters, base_spec
from git_theta_ext.updates.coders import compress_numbers, decompress_numbers
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import apply, difference, is_ordered


class Resize:
    """The update from a block of the same dtype that is longer or shorter along one axis."""

    kind: ClassVar[str] = "resize"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Does not apply between blocks of one shape; `encode_from` does."""
        return None

    def encode_from(
        self, spec: BlockSpec, new: Values, old_spec: BlockSpec, base: Values
    ) -> Encoded | None:
        """Store the added slices, and what changed in the others; None if more axes differ.

        Args:
            spec: what the new block is.
            new: its raw bits, flat.
            old_spec: what its predecessor is, of the same dtype and number of axes.
            base: the predecessor's raw bits, flat; not written to.
        """
        now, then = spec.shape, old_spec.shape
        if old_spec.dtype != spec.dtype or len(now) != len(then) or not len(new) or not len(base):
            return None
        differing = [axis for axis in range(len(now)) if now[axis] != then[axis]]
        if len(differing) != 1 or len(new) % spec.count:
            return None
        axis = differing[0]
        outer, extents = prod(now[:axis]), (then[axis], now[axis])
        inner = prod(now[axis + 1 :]) * (len(new) // spec.count)
        floats, kept = is_ordered(spec.dtype), min(extents)
        grid = new.reshape(outer, extents[1], inner)
        before = base.reshape(outer, extents[0], inner)[:, :kept].ravel()
        settings, parts = correction.encode(grid[:, :kept].ravel(), before, floats)
        added = np.ascontiguousarray(grid[:, kept:]).ravel()
        parts["added"] = compress_numbers(difference(added, np.zeros_like(added), floats))
        settings["base"] = {"dtype": spec.dtype.name, "shape": list(then)}
        settings["extents"] = [outer, *extents, inner]
        info = (("axis", str(axis)), ("from", str(then[axis])), ("to", str(now[axis])))
        return Encoded(self.kind, build(self.kind, settings, parts), info)

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values, in a fresh array."""
        settings, parts = parameters.settings, parameters.parts
        outer, old, new, inner = settings["extents"]
        if not all(isinstance(extent, int) and extent > 0 for extent in (outer, old, new, inner)):
            raise CorruptObjectError("the extents of a resized block are no numbers")
        dtype, before = values_dtype(spec.dtype), base_spec(settings)
        if base is None or before is None or base.dtype != dtype or before.dtype != spec.dtype:
            raise CorruptObjectError(f"no predecessor of {spec.dtype.name} to resize")
        if outer * old * inner != len(base) or outer * new * inner * dtype.itemsize != spec.nbytes:
            raise CorruptObjectError(
                f"extents {settings['extents']!r} do not lead from {len(base)} values to a block "
                f"of {spec.nbytes} bytes"
            )
        floats, kept = is_ordered(spec.dtype), min(old, new)
        same = np.ascontiguousarray(base.reshape(outer, old, inner)[:, :kept]).ravel()
        correction.apply(settings, parts, same, floats)
        added: Values = np.empty(outer * (new - kept) * inner, dtype)
        decompress_numbers(parts["added"], added)
        added = apply(added, np.zeros_like(added), floats)
        grid: Values = np.empty((outer, new, inner), dtype)
        grid[:, :kept] = same.reshape(outer, kept, inner)
        grid[:, kept:] = added.reshape(outer, new - kept, inner)
        return grid.ravel()
