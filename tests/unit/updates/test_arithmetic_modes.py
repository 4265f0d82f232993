"""A processor or a library that computes otherwise is noticed, and never changes a weight."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from git_theta_ext.updates.arithmetic import require_subnormals
from git_theta_ext.updates.low_rank import prediction

SPEC = BlockSpec(DTYPES["F32"], (96, 64))

FLUSHING = {"x86_64": (28, 1 << 15 | 1 << 6), "aarch64": (0, 1 << 24)}
"""Where glibc's fenv_t keeps the bits that flush subnormals: byte and mask, by processor."""


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    return Blocks(Store(tmp_path / "theta"))


@pytest.fixture
def flushing() -> Iterator[None]:
    """This thread flushes subnormals to zero, as after `torch.set_flush_denormal(True)`."""
    byte, mask = FLUSHING[platform.machine()]
    libm = ctypes.CDLL("libm.so.6")
    before = (ctypes.c_uint8 * 64)()
    libm.fegetenv(before)
    after = (ctypes.c_uint8 * 64).from_buffer_copy(before)
    word = ctypes.c_uint32.from_buffer(after, byte)
    word.value |= mask
    libm.fesetenv(after)
    try:
        yield
    finally:
        libm.fesetenv(before)


def lora() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    old = rng.standard_normal((96, 64), np.float32)
    step = rng.standard_normal((96, 4), np.float32) @ rng.standard_normal((4, 64), np.float32)
    return old.ravel().view(np.uint32), (old + 0.01 * step).ravel().view(np.uint32)


def test_nothing_is_stored_or_rebuilt_where_subnormals_are_flushed(
    blocks: Blocks, request: pytest.FixtureRequest
) -> None:
    old, new = lora()
    block = blocks.write(SPEC, old)
    require_subnormals()
    request.getfixturevalue("flushing")
    with pytest.raises(UsageError, match="subnormal"):
        blocks.read(SPEC, block)
    with pytest.raises(UsageError, match="set_flush_denormal"):
        blocks.write(SPEC, new, predecessor=block)


def test_a_linear_algebra_that_is_not_exact_is_done_without(
    blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = lora()
    block = blocks.write(SPEC, new, predecessor=blocks.write(SPEC, old))
    assert block.chain[-1].kind == "low-rank"
    exact = np.matmul

    def inexact(left: np.ndarray, right: np.ndarray, **more: np.ndarray) -> np.ndarray:
        out: np.ndarray = exact(left, right, **more)
        if out.dtype == np.float64:
            out[:] = out.astype(np.float32)
        return out

    monkeypatch.setattr(np, "matmul", inexact)
    prediction.library_is_exact.cache_clear()
    try:
        assert not prediction.library_is_exact()
        assert np.array_equal(blocks.read(SPEC, block), new)
    finally:
        prediction.library_is_exact.cache_clear()
