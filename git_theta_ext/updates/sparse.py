"""`sparse`: predicts that all but a few entries, or rows, stay what they were.

FISH masks (Sung and others, "Training Neural Networks with Fixed Sparse Masks", 2021), diff
pruning (Guo and others, "Parameter-Efficient Transfer Learning with Diff Pruning", 2021) and
embedding rows that saw a gradient change checkpoints so.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.correction import apply_list, encode_list
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import is_ordered

MOST = 4
"""At most one entry in so many may change; from there on a delta is smaller."""


class Sparse:
    """The update that lists what changed, where the rest kept its bits."""

    kind: ClassVar[str] = "sparse"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """List the changed entries, or the changed rows if most of their entries changed."""
        if base is None or base.dtype != new.dtype or len(base) != len(new):
            return None
        changed = np.flatnonzero(new != base)
        if len(changed) > len(new) // MOST:
            return None
        floats = is_ordered(spec.dtype)
        unit = len(new) // spec.shape[0] if len(spec.shape) > 1 and len(changed) else 1
        rows = np.unique(changed // unit) if unit > 1 else changed
        if unit == 1 or 2 * len(changed) < len(rows) * unit:
            settings, parts = encode_list(changed, new[changed], base[changed], floats)
            return Encoded(self.kind, build(self.kind, settings, parts))
        now, then = (side.reshape(-1, unit)[rows].ravel() for side in (new, base))
        settings, parts = encode_list(rows, now, then, floats, unit)
        return Encoded(self.kind, build(self.kind, settings, parts), (("rows", str(len(rows))),))

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values; writes into `base`."""
        if base is None or parameters.settings["coder"] != "list":
            raise CorruptObjectError("a sparse update needs a predecessor and a list")
        apply_list(parameters.settings, parameters.parts, base, is_ordered(spec.dtype))
        return base
