"""`delta`: predicts that a value stays what it was; the residual is the distance in ulps."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from git_theta_ext.errors import CorruptObjectError
from git_theta_ext.tensors import BlockSpec
from git_theta_ext.updates import coders
from git_theta_ext.updates.base import Encoded, Parameters, Part, Values
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import SLICE, apply, difference, is_ordered


class Delta:
    """The update that any pair of blocks of one dtype and size can be stored as."""

    kind: ClassVar[str] = "delta"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Store the distance of every value from its predecessor, slice by slice."""
        if base is None or base.dtype != new.dtype or len(base) != len(new):
            return None
        floats = is_ordered(spec.dtype)
        streams = []
        for start in range(0, len(new), SLICE):
            piece = slice(start, start + SLICE)
            streams.append(coders.compress_numbers(difference(new[piece], base[piece], floats)))
        parts: dict[str, Part] = {
            "data": b"".join(streams),
            "lengths": np.array([len(stream) for stream in streams], np.uint32),
        }
        return Encoded(self.kind, build(self.kind, {"coder": "pco"}, parts))

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values; writes into `base`."""
        if base is None or parameters.settings["coder"] != "pco":
            raise CorruptObjectError("a delta needs a predecessor and the coder pco")
        floats = is_ordered(spec.dtype)
        parts = parameters.parts
        streams = coders.slices(parts["data"], parts["lengths"], len(base))
        steps: Values = np.empty(min(SLICE, len(base)), base.dtype)
        for start, stream in zip(range(0, len(base), SLICE), streams, strict=True):
            if len(stream):
                piece = base[start : start + SLICE]
                step = steps[: len(piece)]
                coders.decompress_numbers(stream, step)
                piece[:] = apply(step, piece, floats)
        return base
