"""What became of quantised weights: the words, and where numbers are compared or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.versions import open_side
from git_theta_ext.comparison.quantised import Requantised, requantised
from tests.scenarios.checkpoints import safetensors

Arrays = dict[str, NDArray[Any]]


def gptq(bits: int, inputs: int = 32, scale: float = 0.5) -> Arrays:
    """A weight of ones times the scale: all codes are 1, and zeros are stored as -1."""
    code = sum(1 << at for at in range(0, 32, bits))
    return {
        "l.qweight": np.full((inputs * bits // 32, 32), code, np.uint32).view(np.int32),
        "l.qzeros": np.full((1, bits), 0xFFFFFFFF, np.uint32).view(np.int32),
        "l.scales": np.full((1, 32), scale, np.float16),
    }


def told(folder: Path, old: Arrays, new: Arrays) -> list[Requantised]:
    """What is told of two files."""
    sides = []
    for name, arrays in (("old", old), ("new", new)):
        (folder / name).write_bytes(safetensors(arrays))
        side = open_side(folder / name, None)
        assert side is not None
        sides.append(side)
    found = requantised((sides[0], dict), (sides[1], dict))
    for side in sides:
        side.close()
    return list(found)


def test_every_verb(tmp_path: Path) -> None:
    floats: Arrays = {"l.weight": np.full((32, 32), 0.25, np.float32)}
    other: Arrays = {"x": np.ones(3, np.float32)}
    for old, new, verb, change in (
        (gptq(4), gptq(8, scale=0.75), "re-quantised", 0.5),
        (gptq(4), gptq(4, scale=1.0), "re-quantised", 1.0),
        (floats, gptq(4), "quantised", 1.0),
        (gptq(4), floats, "dequantised", 0.5),
        (other, gptq(4), "added", None),
        (gptq(4), other, "removed", None),
    ):
        (one,) = told(tmp_path, old, new)
        assert (one.name, one.verb, one.unmeasured) == ("l.weight", verb, None)
        assert change == (one.measure.relative if one.measure else None)
        assert {"l.qweight", "l.scales"} <= one.parts
    assert told(tmp_path, gptq(4), {**gptq(4), **other}) == []


def test_why_numbers_are_not_compared(tmp_path: Path) -> None:
    def exl2(value: int) -> Arrays:
        return {"l.q_weight": np.full((4, 32), value, np.int32), "l.q_groups": np.ones(2, np.int32),
                "l.q_invperm": np.arange(32, dtype=np.int32), "l.q_scale": np.ones(4, np.int32),
                "l.q_scale_max": np.ones(1, np.float16)}  # fmt: skip

    def blocks(value: int) -> Arrays:
        return {"l.weight_blocks": np.full((32, 1, 16), value, np.uint8),
                "l.weight_scales": np.full((32, 1), 127, np.uint8)}  # fmt: skip

    wrong = {**gptq(4), "l.g_idx": np.full(32, 7, np.int32)}
    for old, new, why in (
        (exl2(1), exl2(2), "what codes of EXL2 mean is not read"),
        (gptq(4), gptq(4, inputs=64), "other shapes"),
        (gptq(4), blocks(1), "other shapes"),
        (gptq(4), wrong, "its tensors do not fit each other, or are too large"),
    ):
        (one,) = told(tmp_path, old, new)
        assert (one.verb, one.unmeasured, one.measure) == ("re-quantised", why, None)
    (one,) = told(tmp_path, blocks(0x22), blocks(0x44))
    assert one.measure is not None
    assert one.measure.relative == 1.0
