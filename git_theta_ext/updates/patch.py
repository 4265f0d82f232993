"""`patch`: predicts that bytes recur somewhere in their earlier version, as a pickle's do.

The earlier version is the prefix that zstd may refer back to (what its command line calls
`--patch-from`); inserted bytes do not matter, as they would to a difference by position.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from git_theta_ext.core import limits
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values, raw_bytes
from git_theta_ext.updates import coders
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.parameter_file import build

_CHUNK_LEVEL = 12
"""A chunk of 0.5 MB of text, a thirteenth of it new, takes 7 ms and 17.5 kB, with level 19 245 ms
and 15.9 kB, with level 3 25 ms and 18.6 kB."""


def level_for(size: int) -> int:
    """The zstd level for structure of a size: thorough while that is quick.

    The header of 6,000 tensors, 628 kB, becomes 39 kB in 585 ms with level 19, 47 kB in 117 ms with
    level 16, and 63 kB in 12 ms with level 12 (`benchmarks/growth.py tensors --sizes 6000`).
    """
    if size <= 64 << 10:
        return 19
    if size <= 1 << 20:
        return 16
    return 12 if size <= 16 << 20 else 6


class Patch:
    """The update for plain bytes, such as the skeleton of a checkpoint."""

    kind: ClassVar[str] = "patch"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Compress `new` with `base` as its prefix; None for anything but bytes."""
        return self._encode(new, base, level_for(len(new)), {})

    def encode_chunk(self, new: Values, base: Values) -> Encoded | None:
        """The same for a chunk of a file of no known container, of which there may be thousands.

        It states how long the predecessor is: a dense chunk does not say so itself.
        """
        stated = {"base": {"dtype": "U8", "shape": [len(base)]}}
        return self._encode(new, base, _CHUNK_LEVEL, stated)

    def _encode(
        self, new: Values, base: Values | None, level: int, stated: Mapping[str, Any]
    ) -> Encoded | None:
        if base is None or new.itemsize != 1 or len(new) + len(base) > limits.STRUCTURE_BYTES:
            return None
        data = coders.compress(raw_bytes(new), level, base.tobytes())
        settings = {"coder": "zstd", "size": len(new), **stated}
        return Encoded(self.kind, build(self.kind, settings, {"data": data}))

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The bytes, in a fresh array; `spec` is that of the last version, not of this one."""
        size = parameters.settings["size"]
        if base is None or not isinstance(size, int) or not 0 <= size <= limits.STRUCTURE_BYTES:
            raise CorruptObjectError(f"a patch to {size!r} bytes does not fit its predecessor")
        data = coders.decompress(parameters.parts["data"], size, base.tobytes())
        return np.frombuffer(data, np.uint8).copy()
