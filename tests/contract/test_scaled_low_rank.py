"""The law of `scaled-low-rank`, which is supplied and never found: it comes back, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import DTYPES, BlockSpec, DType
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.updates.arithmetic import narrow, widen
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.low_rank.factors import DTYPES as KNOWN
from git_theta_ext.updates.low_rank.factors import Factors
from git_theta_ext.updates.low_rank.prediction import SlowProduct
from git_theta_ext.updates.low_rank.scaled import Multipliers, ScaledLowRank, predict
from git_theta_ext.updates.parameter_file import build, parse

ROWS, COLUMNS, RANK = 40, 24, 3
LEFT = np.random.default_rng(1).integers(-900, 900, (ROWS, RANK)).astype(float)
RIGHT = np.random.default_rng(2).integers(-900, 900, (RANK, COLUMNS)).astype(float)


def factors(**settings: Any) -> Factors:
    return Factors(**{"left": LEFT, "right": RIGHT, "exponent": -24, "order": "sum", "scaling": 1.7,
                      **settings})  # fmt: skip


def numbers(axis: int) -> Multipliers:
    random = np.random.default_rng(3)
    return Multipliers(random.normal(1, 0.2, (ROWS, COLUMNS)[axis]).astype(np.float32), axis)


def bits(dtype: DType, seed: int) -> Values:
    """Ordinary weights."""
    floats = np.random.default_rng(seed).normal(0, 0.3, ROWS * COLUMNS).astype(np.float32)
    return narrow(dtype, floats, np.zeros(len(floats), values_dtype(dtype)))


def by_hand(dtype: DType, old: Values, axis: int) -> Values:
    """As docs/parameter-files.md says it."""
    step = (LEFT @ RIGHT * 2.0**-24).astype(np.float32) * np.float32(1.7)
    wide: NDArray[Any] = widen(dtype, old).reshape(ROWS, COLUMNS) + step
    values = numbers(axis).values
    return narrow(dtype, (wide * (values[:, None] if axis == 0 else values)).ravel(), old)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", sorted(KNOWN - {"F64"}))
def test_what_is_decoded_is_what_was_encoded(name: str, axis: int) -> None:
    dtype = DTYPES[name]
    spec, old = BlockSpec(dtype, (ROWS, COLUMNS)), bits(dtype, 4)
    predicted = by_hand(dtype, old, axis)
    for slow in (None, SlowProduct):
        found = predict(dtype, old.copy(), factors(), numbers(axis), slow)
        np.testing.assert_array_equal(found, predicted)
    missed = predicted.copy()
    missed[::7] += 1
    for new in (predicted, missed, bits(dtype, 5)):
        encoded = ScaledLowRank().encode_factors(spec, new, old, factors(), numbers(axis))
        assert encoded is not None
        chain = [parse(b"".join(one.pieces)) for one in (Dense().encode(spec, old), encoded)]
        assert decode_chain(spec, chain).tobytes() == new.tobytes()
    wide = BlockSpec(DTYPES["F64"], (ROWS, COLUMNS))
    assert ScaledLowRank().encode_factors(wide, new, old, factors(), numbers(axis)) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("axis", 2), ("axis", True), ("axis", None), ("order", "rounded"), ("shape", [24, 40]),
     ("shape", [48, 20]), ("rank", 300)],
)  # fmt: skip
def test_damaged_settings_are_refused(key: str, value: Any) -> None:
    dtype = DTYPES["BF16"]
    spec, old = BlockSpec(dtype, (ROWS, COLUMNS)), bits(dtype, 4)
    encoded = ScaledLowRank().encode_factors(spec, bits(dtype, 5), old, factors(), numbers(0))
    assert encoded is not None
    file = parse(b"".join(encoded.pieces))
    settings = {**file.settings, key: value}
    forged = parse(b"".join(build("scaled-low-rank", settings, dict(file.parts))))
    with pytest.raises((CorruptObjectError, ValueError, TypeError)):
        decode_chain(spec, [parse(b"".join(Dense().encode(spec, old).pieces)), forged])
