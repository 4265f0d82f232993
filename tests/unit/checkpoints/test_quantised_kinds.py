"""Quantised weights are named for what they are, never guessed, and mean what libraries say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from git_theta_ext.checkpoints.coupled.find import weights
from git_theta_ext.checkpoints.coupled.read import NotDecodedError, numbers, quantised
from git_theta_ext.checkpoints.coupled.schemes import Table, Weight
from git_theta_ext.checkpoints.versions import Side, open_side
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from tests.scenarios.checkpoints import safetensors

GOLDEN = Path(__file__).parents[2] / "golden" / "quantised"
ROUNDED = {"int8.weight", "torchao.fp8.weight", "torchao.int4.weight", "torchao.int8.weight",
           "compressed.nvfp4.weight"}  # fmt: skip
"""What their libraries dequantise to bfloat16, or multiply in another order."""

WRITTEN = {
    "codes.gguf": ("gguf", "", {"Q4_0, 4-bit, blocks of 32", "Q8_0, 8-bit, blocks of 32",
                                "Q5_1, 5-bit, blocks of 32"}),
    "others.gguf": ("gguf", "", {"Q4_K, 4-bit, blocks of 256", "IQ4_XS, 4-bit, blocks of 256",
                                 "TQ1_0, 1.58-bit, blocks of 256"}),
    "mlx.safetensors": ("mlx", "", {"MLX, 4-bit, groups of 64", "MLX, 3-bit, groups of 64",
                                    "MXFP4, 4-bit, groups of 32", "NVFP4, 4-bit, groups of 16"}),
    "bitsandbytes.safetensors": ("torch", "", {"bitsandbytes NF4, 4-bit, groups of 64",
                                               "bitsandbytes, 8-bit, a scale for each row"}),
    "torchao.safetensors": ("torch", "torchao.", {"torchao, 4-bit, groups of 32",
                                                  "torchao, 8-bit, a scale for each row"}),
    "quanto.safetensors": ("torch", "quanto.", {"quanto, 4-bit, groups of 128",
                                                "quanto, 8-bit, a scale for each row"}),
    "hqq.pt": ("torch", "hqq.", {"HQQ, 4-bit, groups of 64", "HQQ, 3-bit, groups of 32"}),
    "compressed.safetensors": ("torch", "compressed.", {"compressed-tensors, 4-bit, groups of 32",
                                                        "NVFP4, 4-bit, groups of 16"}),
    "gptq.safetensors": ("torch", "gptq.", {"GPTQ, 4-bit, groups of 32",
                                            "AWQ, 4-bit, groups of 32"}),
}  # fmt: skip
"""Files that libraries wrote: whose expectations, what their names begin with, and some schemes."""


def opened(path: Path) -> Side:
    side = open_side(path, None)
    assert side is not None
    return side


def decoded(side: Side, weight: Weight) -> NDArray[np.float32]:
    return np.concatenate(list(numbers(side, weight)))


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_what_libraries_wrote(name: str) -> None:
    whose, prefix, schemes = WRITTEN[name]
    config = json.loads((GOLDEN / "mlx.json").read_text()) if whose == "mlx" else {}
    side, expected = opened(GOLDEN / name), np.load(GOLDEN / f"expected-{whose}.npz")
    found = quantised(side, lambda: config)
    assert schemes <= {weight.scheme.words for weight in found.values()}
    known = {"_weight_qdata", "W_q", "qweight", "weight_packed", "_data", "weight"}
    codes = {one.tensor.name for one in side.manifest.entries} - {p for w in found.values()
                                                                 for p in w.parts}  # fmt: skip
    assert not {one for one in codes if one.rpartition(".")[2] in known}
    for weight in found.values():
        wanted = expected[f"{prefix}{weight.name}"]
        assert weight.shape in (None, wanted.shape)
        close = 4e-3 if f"{prefix}{weight.name}" in ROUNDED else 0
        np.testing.assert_allclose(decoded(side, weight), wanted.ravel(), rtol=close)
    side.close()


def table(tensors: Mapping[str, tuple[str, tuple[int, ...]]], config: Any = None) -> Table:
    infos = {name: TensorInfo(name, DTYPES[kind], shape) for name, (kind, shape) in tensors.items()}
    return Table(infos, lambda: config or {}, {}, {}, lambda name: None)


def words(tensors: Mapping[str, tuple[str, tuple[int, ...]]], config: Any = None) -> dict[str, str]:
    return {name: one.scheme.words for name, one in weights(table(tensors, config)).items()}


MLX = {"l.weight": ("U32", (8, 32)), "l.scales": ("F16", (8, 4)), "l.biases": ("F16", (8, 4))}
GPTQ = {"l.qweight": ("I32", (8, 32)), "l.qzeros": ("I32", (2, 4)), "l.scales": ("F16", (2, 32))}


def test_what_is_uncertain_has_no_name() -> None:
    """4 bits in groups of 64 look as 8 bits in groups of 32 do, and 2 in groups of 128."""
    four = {"bits": 4, "group_size": 64}
    eight = {"bits": 8, "group_size": 32}
    assert words(MLX) == {}
    assert words(MLX, {"quantization": four}) == {"l.weight": "MLX, 4-bit, groups of 64"}
    assert words(MLX, {"quantization": {**four, "l": eight}}) == {
        "l.weight": "MLX, 8-bit, groups of 32"
    }
    assert words(MLX, {"quantization": {"bits": 3, "group_size": 64}}) == {}
    assert words({**MLX, "l.weight": ("U32", (8, 12))}) == {"l.weight": "MLX, 3-bit, groups of 32"}
    assert words(GPTQ) == {"l.weight": "GPTQ, 4-bit, groups of 32"}
    assert words({**GPTQ, "l.g_idx": ("I32", (63,))}) == {}
    for name in GPTQ:
        assert words({key: value for key, value in GPTQ.items() if key != name}) == {}
        wrong = {**GPTQ, name: (GPTQ[name][0], (3, 7))}
        assert words(wrong) == {}
    # Codes with a scale of which nothing says how they are packed, and ordinary tensors.
    assert words({"l.weight": ("U8", (8, 32)), "l.weight_scale": ("F16", (8, 4))}) == {}
    assert words({"l._weight_qdata": ("I8", (8, 32)), "l._weight_scale": ("F16", (8, 1))}) == {}
    saved = {"l.weight.qdata": ("F8_E4M3", (8, 32)), "l.weight.scale": ("F32", (8, 1))}
    assert words(saved) == {"l.weight": "torchao FP8 (E4M3), 8-bit, a scale for each row"}
    assert words({**saved, "l.weight.qdata": ("I8", (8, 32))}) == {}
    assert words({"l.weight": ("F16", (8, 32)), "l.scales": ("F16", (8, 4))}) == {}
    assert words({"l.weight": ("I8", (8, 32)), "ids": ("I64", (8, 4))}) == {}


def test_kinds_that_are_only_named() -> None:
    exl2 = {"l.q_weight": ("I32", (17, 64)), "l.q_invperm": ("I16", (128,)),
            "l.q_scale": ("I32", (4, 8)), "l.q_scale_max": ("F16", (4,)),
            "l.q_groups": ("I16", (8,))}  # fmt: skip
    exl3 = {"l.trellis": ("I16", (8, 4, 48)), "l.suh": ("F16", (128,)), "l.svh": ("F16", (64,))}
    assert words(exl2) == {"l.weight": "EXL2, 4.25-bit"}
    assert words(exl3) == {"l.weight": "EXL3, 3-bit"}
    found = weights(table(exl3))["l.weight"]
    assert found.shape == (64, 128)
    assert found.decode is None


def test_by_hand(tmp_path: Path) -> None:
    """Kinds of which no library writes a file here, from their specifications."""
    random = np.random.default_rng(1)
    codes = random.integers(0, 256, (2, 3, 4, 16), dtype=np.uint8)
    exponents = random.integers(120, 130, (2, 3, 4), dtype=np.uint8)
    eight = random.normal(0, 1, (6, 260)).astype(ml_dtypes.float8_e4m3fn)
    blocks = random.random((3, 2)).astype(np.float32)
    four, small = codes[0, :, :, :].reshape(3, 64), random.random((3, 8))
    scales = small.astype(ml_dtypes.float8_e4m3fn)
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors({
        "e.gate_up_proj_blocks": codes, "e.gate_up_proj_scales": exponents,
        "d.weight": eight, "d.weight_scale_inv": blocks,
        "m.weight": four, "m.weight_scale": scales, "m.weight_scale_2": np.float32([0.25]),
    }))  # fmt: skip
    side = opened(path)
    config = {"quantization_config": {"weight_block_size": [2, 256]}}
    found = quantised(side, lambda: config)
    assert {name: one.scheme.words for name, one in found.items()} == {
        "e.gate_up_proj": "MXFP4, 4-bit, groups of 32",
        "d.weight": "FP8 (E4M3), 8-bit, blocks of 2 × 256",
        "m.weight": "NVFP4, 4-bit, groups of 16",
    }
    levels = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]

    def fours(data: NDArray[np.uint8]) -> list[float]:
        return [levels[half] for byte in data.ravel().tolist() for half in (byte & 15, byte >> 4)]

    by_exponents = np.repeat(2.0 ** (exponents.ravel().astype(float) - 127), 32)
    np.testing.assert_array_equal(
        decoded(side, found["e.gate_up_proj"]), (fours(codes) * by_exponents).astype(np.float32)
    )
    by_scales = np.repeat(scales.astype(np.float32).ravel() * np.float32(0.25), 16)
    np.testing.assert_array_equal(
        decoded(side, found["m.weight"]), np.array(fours(four), np.float32) * by_scales
    )
    tiled = np.repeat(np.repeat(blocks, 2, axis=0), 256, axis=1)[:, :260]
    wanted = (eight.astype(np.float32) * tiled).ravel()
    np.testing.assert_array_equal(decoded(side, found["d.weight"]), wanted)
    side.close()


def test_zero_points_of_gptq_version_2_are_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors({
        "l.qweight": np.zeros((1, 8), np.int32), "l.qzeros": np.full((1, 1), 0x33333333, np.int32),
        "l.scales": np.ones((1, 8), np.float16),
    }))  # fmt: skip
    for stated, wanted in (({}, -4), ({"checkpoint_format": "gptq_v2"}, -3)):
        side = opened(path)
        config = {"quantization_config": stated}
        weight = quantised(side, lambda config=config: config)["l.weight"]  # type: ignore[misc]
        assert set(decoded(side, weight)) == {wanted}
        side.close()


def test_tensors_that_do_not_fit_each_other(tmp_path: Path) -> None:
    """Places beyond the groups, and settings that are no JSON, a list, or huge."""
    path = tmp_path / "model.safetensors"
    arrays: dict[str, NDArray[Any]] = {
        "l.qweight": np.zeros((1, 8), np.int32), "l.qzeros": np.zeros((1, 1), np.int32),
        "l.scales": np.ones((1, 8), np.float16), "l.g_idx": np.full(8, 9, np.int32),
    }  # fmt: skip
    path.write_bytes(safetensors(arrays))
    side = opened(path)
    weight = quantised(side, dict)["l.weight"]
    with pytest.raises(NotDecodedError):
        decoded(side, weight)
    side.close()
    state = "n.weight.quant_state.bitsandbytes__nf4"
    shared = {"n.weight": np.zeros((32, 1), np.uint8), "n.weight.absmax": np.ones(1, np.float32),
              "n.weight.quant_map": np.zeros(16, np.float32)}  # fmt: skip
    right = {"quant_type": "nf4", "blocksize": 64, "shape": [8, 8]}
    for wrong in (b"{", b"[]", b"[" * 9999, *(
        json.dumps({**right, **one}).encode() for one in (
            {"blocksize": 0}, {"blocksize": "64"}, {"blocksize": 1 << 80}, {"shape": [-8, -8]},
            {"shape": [1 << 60, 1 << 60]}, {"shape": 64}, {"shape": []}, {"quant_type": "fp4"},
        )
    )):  # fmt: skip
        path.write_bytes(safetensors({**shared, state: np.frombuffer(wrong, np.uint8)}))
        side = opened(path)
        assert quantised(side, dict) == {}
        side.close()


def test_forged_shapes_raise_nothing() -> None:
    """Whatever the shapes and types, a weight is named, or it is not."""
    random = np.random.default_rng(3)
    names = sorted({
        *GPTQ, *MLX, "l.g_idx", "l.weight_packed", "l.weight_scale", "l.weight_shape", "l.W_q",
        "l.scale", "l.zero", "l.nbits", "l.axis", "l.group_size", "l.shape", "l.trellis", "l.suh",
        "l.svh", "l.q_weight", "l.q_invperm", "l.x_blocks", "l.x_scales", "l.weight_scale_inv",
        "l.weight._data", "l.weight._scale", "l._weight_qdata",
    })  # fmt: skip
    kinds = ("I32", "U32", "U8", "I8", "F16", "F8_E4M3", "I64")
    config = {"quantization": {"bits": [], "group_size": None, "mode": 3, "l": 7},
              "quantization_config": {"group_size": 0, "weight_block_size": [0, "a"]}}  # fmt: skip
    for _ in range(400):
        tensors = {
            str(name): (
                str(random.choice(kinds)),
                tuple(
                    int(n) for n in random.choice([0, 1, 2, 4, 8, 32, 64], random.integers(0, 4))
                ),
            )
            for name in random.choice(names, 9, replace=False)
        }
        weights(table(tensors, config))
