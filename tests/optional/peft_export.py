"""Commits exported by `git theta export --to peft`, loaded and merged by PEFT itself.

Not part of the default run: `.ci/optional` runs it.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from tests.optional.beside_peft import DTYPES, relative, share_of, steps
from tests.scenarios.repositories import Repo


class Net(torch.nn.Module):
    """A layer of each kind, and those that change in full."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(200, 64)
        self.proj = torch.nn.Linear(64, 96)
        self.c_attn = Conv1D(192, 96)
        self.c_proj = Conv1D(96, 96)
        self.conv = torch.nn.Conv2d(8, 12, 3)
        self.norm = torch.nn.LayerNorm(96)


MOST = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
"""Largest distance from the commit, over the largest weight."""


def tuned(
    net: torch.nn.Module, folder: Path, seed: int, **options: object
) -> dict[str, torch.Tensor]:
    """An adapter with random factors, saved; what PEFT merges it to."""
    torch.manual_seed(seed)
    config = LoraConfig(
        target_modules=["embed_tokens", "proj", "c_attn", "c_proj", "conv"], **options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(net, config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn_like(parameter) * 0.05
        model.save_pretrained(folder)
        return {k: v.clone() for k, v in model.merge_and_unload().state_dict().items()}


def save(repo: Repo, tensors: dict[str, torch.Tensor]) -> None:
    save_file({k: v.contiguous() for k, v in tensors.items()}, repo.path / "m.safetensors")


def check(repo: Repo, folder: Path, dtype: torch.dtype) -> None:
    """PEFT's merge of the exported adapter, beside the commit."""
    nets = []
    for revision in ("v1", "v2"):
        repo.git("checkout", "-q", revision)
        nets.append(load_file(repo.path / "m.safetensors"))
    net = Net().to(dtype)
    net.load_state_dict(nets[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set")
        model = PeftModel.from_pretrained(net, folder)
    merged = model.merge_and_unload().state_dict()
    assert merged.keys() == nets[1].keys()
    for name, wanted in nets[1].items():
        apart = steps(wanted, merged[name])
        print(f"{dtype} {name}: {share_of(apart):.2%} differ, at most {int(apart.max())} ulps")
        assert relative(merged[name], wanted) <= MOST[dtype], name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_a_trainer_saved(repo: Repo, tmp_path: Path, dtype: torch.dtype) -> None:
    """Supplied, exported, loaded by PEFT; and applied again, to the bit."""
    torch.manual_seed(1)
    net = Net().to(dtype)
    save(repo, net.state_dict())
    repo.commit("base")
    repo.git("tag", "v1")
    tuned(net, tmp_path / "trained", 2, r=6, lora_alpha=9, rank_pattern={"proj": 3},
          alpha_pattern={"c_proj": 5})  # fmt: skip
    repo.theta("add", "m.safetensors", "--update", str(tmp_path / "trained"))
    repo.git("commit", "-q", "-m", "tuned")
    repo.git("tag", "v2")
    print(repo.theta("export", "v1..v2", "--to", "peft", "-o", str(tmp_path / "out")))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] is True
    assert config["rank_pattern"] == {"^proj": 3}
    check(repo, tmp_path / "out", dtype)
    repo.git("checkout", "-q", "v1")
    repo.theta("add", "m.safetensors", "--update", str(tmp_path / "out"))
    assert repo.git("diff", "--cached", "--raw", "v2") == ""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_was_merged_elsewhere(repo: Repo, tmp_path: Path, dtype: torch.dtype) -> None:
    """Two merges by PEFT in a row, added as checkpoints; biases and a norm changed besides."""
    torch.manual_seed(1)
    net = Net().to(dtype)
    save(repo, net.state_dict())
    repo.commit("base")
    repo.git("tag", "v1")
    for seed in (2, 3):
        merged = tuned(net, tmp_path / "trained", seed, r=4, lora_alpha=8)
        merged["norm.weight"] += 0.125
        merged["proj.bias"] += 0.125
        net = Net().to(dtype)
        net.load_state_dict(merged)
        save(repo, merged)
        repo.commit(f"tuned {seed}")
    repo.git("tag", "v2")
    print(repo.theta("export", "v1..v2", "--to", "peft", "--rank", "8", "--rest",
                     "modules-to-save", "-o", str(tmp_path / "out")))  # fmt: skip
    check(repo, tmp_path / "out", dtype)
