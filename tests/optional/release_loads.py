"""Releases that `from_pretrained` of transformers loads: sharded, cast, with tied weights.

Not part of the default run, for torch and transformers take 1 GB: `.ci/optional` runs it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.scenarios.repositories import Repo

OPTIONS = {
    "as it is": (),
    "cast": ("--dtype", "bf16"),
    "in shards": ("--max-shard-size", "60kB"),
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_loads(repo: Repo, tmp_path: Path, options: tuple[str, ...], tied: bool) -> None:
    config = LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    config.save_pretrained(repo.path)
    training = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({**training, "optimizer.step": torch.ones(3)}, repo.path / "pytorch_model.bin")
    repo.commit("model")
    out = tmp_path / "dist"
    reshape = ("--strip-prefix", "module.", "--drop", "optimizer.*")
    repo.theta("release", "HEAD", "-o", str(out), *reshape, *options)
    loaded, told = AutoModelForCausalLM.from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not any(told.values())
    assert loaded.dtype == (torch.bfloat16 if "bf16" in options else torch.float32)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.to(loaded.dtype)), name
