"""How a dense block is stored: as planes, or as bytes where that is smaller."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.updates import coders
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.parameter_file import parse


def _stored(values: NDArray[np.float64]) -> tuple[str, int]:
    """The coder that was chosen, and the bytes that it takes."""
    spec = BlockSpec(DTYPES["F64"], (len(values),))
    bits = values.view(np.uint64)
    found = Dense().encode(spec, bits)
    file = parse(b"".join(bytes(piece) for piece in found.pieces))
    assert np.array_equal(decode_chain(spec, [file]), bits)
    return str(file.settings["coder"]), found.nbytes


def test_numbers_that_recur_whole_are_stored_as_bytes() -> None:
    random = np.random.default_rng(0)
    shares = random.integers(1, 60, 4000) / random.integers(60, 64, 4000)
    leaves = np.stack([shares, 1 - shares], axis=1).ravel()
    coder, size = _stored(leaves)
    _, parts = coders.encode_planes(leaves.view(np.uint64), False, False)
    assert coder == "zstd"
    assert size < 0.7 * sum(memoryview(part).nbytes for part in parts.values())


def test_numbers_of_their_own_are_stored_as_planes() -> None:
    assert _stored(np.random.default_rng(0).normal(size=4000))[0] == "planes"
