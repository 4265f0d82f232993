"""The names and files of `git theta export --to gguf-lora`, beside llama.cpp's own `gguf` package.

Not part of the default run: `.ci/optional` runs it.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from git_theta_ext.packages.adapter import gguf_lora
from tests.scenarios.adapters import adapter
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo

ARCHITECTURES = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}


@pytest.mark.parametrize("model", list(gguf_lora._MODELS))
def test_every_name_is_that_of_the_package(model: str) -> None:
    arch = ARCHITECTURES[gguf_lora._MODELS[model]]
    names = gguf.get_tensor_name_map(arch, 4)
    ours = {**gguf_lora._OUTER} | {
        f"model.layers.3.{inner}": f"blk.3.{outer}" for inner, outer in gguf_lora._INNER.items()
    }
    fused = {"self_attn.qkv_proj", "mlp.gate_up_proj"}
    for name, wanted in ours.items():
        found = names.get_name(name)
        inner = name.partition("layers.3.")[2]
        if found is None:
            headless = name == "lm_head" and model in gguf_lora._HEADLESS
            assert headless or inner in fused or (model == "phi3" and inner), name
        else:
            assert found == wanted


def test_the_package_reads_the_file(repo: Repo, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    name = "model.layers.0.mlp.up_proj"
    weight = random.normal(0, 1, (96, 64)).astype(np.float32)
    repo.write("config.json", json.dumps({"model_type": "qwen2"}).encode())
    repo.write("m.safetensors", safetensors({f"{name}.weight": weight}))
    repo.commit("base")
    parts = {}
    for one, shape in (("A", (5, 64)), ("B", (96, 5))):
        factor = random.normal(0, 1, shape).astype(np.float32)
        parts[f"base_model.model.{name}.lora_{one}.weight"] = factor
    repo.theta("add", "m.safetensors", "--update", adapter(repo, parts, r=5, lora_alpha=10))
    repo.git("commit", "-q", "-m", "tuned")
    out = tmp_path / "lora.gguf"
    repo.theta("export", "HEAD~1..HEAD", "--to", "gguf-lora", "-o", str(out))
    reader = gguf.GGUFReader(out)
    assert reader.get_field("general.architecture").contents() == "qwen2"
    assert reader.get_field("general.type").contents() == gguf.GGUFType.ADAPTER
    assert reader.get_field(gguf.Keys.Adapter.TYPE).contents() == "lora"
    assert reader.get_field(gguf.Keys.Adapter.LORA_ALPHA).contents() == 10
    found = {one.name: one for one in reader.tensors}
    down, up = (found[f"blk.0.ffn_up.weight.lora_{one}"] for one in "ab")
    assert list(down.shape) == [64, 5]
    assert list(up.shape) == [5, 96]
    assert np.array_equal(down.data, next(iter(parts.values())))
    assert np.array_equal(up.data, list(parts.values())[1])
