"""Values as bit patterns, the awkward ones among them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from git_theta_ext.core.tensors import DTYPES
from git_theta_ext.core.values import Values, values_dtype


def patterns(draw: st.DrawFn, name: str, count: int) -> Values:
    """Awkward bit patterns: both ends, both zeros, infinities, NaNs, subnormals, and any other."""
    dtype = values_dtype(DTYPES[name])
    bits = 8 * dtype.itemsize
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    values: Values = random.integers(0, 256, count * dtype.itemsize, np.uint8).view(dtype)
    ends = [0, 1, 1 << (bits - 1), (1 << (bits - 1)) + 1, (1 << bits) - 1, (1 << (bits - 1)) - 1]
    ends += [0x7F << (bits - 8), 0xFF << (bits - 8), 0x7C << (bits - 8), 0x3C << (bits - 8)]
    awkward = np.array(ends, dtype)
    if draw(st.booleans()):
        places = random.random(count) < draw(st.sampled_from([0.01, 0.5, 1.0]))
        values[places] = random.choice(awkward, int(places.sum()))
    return values
