"""How far `git theta add --update` is from PEFT's own merge, by type of adapter, measured.

Not part of the default run: `.ci/optional` runs it. The table of `docs/adapters.md` is what it
prints.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    FourierFTConfig,
    HRAConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from tests.optional.beside_peft import DTYPES, relative, share_of, steps
from tests.scenarios.repositories import Repo


class Net(torch.nn.Module):
    """A layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(192, 256)
        self.c_attn = Conv1D(160, 96)
        self.c_proj = Conv1D(96, 96)
        self.conv = torch.nn.Conv2d(16, 24, 3)
        self.embed = torch.nn.Embedding(300, 64)
        self.norm = torch.nn.LayerNorm(64)
        self.experts = torch.nn.Module()
        self.experts.up = torch.nn.Parameter(torch.randn(4, 96, 64) * 0.1)


ALL, TWO = ["linear", "c_attn", "c_proj", "conv"], ["linear", "conv"]
TYPES: dict[str, Callable[[], PeftConfig]] = {
    "LoRA": lambda: LoraConfig(r=4, lora_alpha=7, target_modules=[*ALL, "embed"]),
    "IA3": lambda: IA3Config(target_modules=ALL, feedforward_modules=["conv"]),
    "DoRA": lambda: LoraConfig(r=4, lora_alpha=7, use_dora=True, target_modules=[*ALL, "embed"]),
    "AdaLoRA": lambda: AdaLoraConfig(init_r=6, lora_alpha=7, total_step=9, target_modules=ALL),
    "LoHa": lambda: LoHaConfig(r=3, alpha=5, target_modules=TWO),
    "LoHa, cores": lambda: LoHaConfig(r=3, alpha=5, use_effective_conv2d=True, target_modules=TWO),
    "LoKr": lambda: LoKrConfig(r=3, alpha=5, target_modules=TWO),
    "LoKr, whole": lambda: LoKrConfig(r=64, alpha=5, target_modules=TWO),
    "LoKr, cores": lambda: LoKrConfig(
        r=1, alpha=5, use_effective_conv2d=True, decompose_both=True, decompose_factor=4,
        target_modules=TWO),
    "VeRA": lambda: VeraConfig(r=16, target_modules=["linear"]),
    "experts": lambda: LoraConfig(
        r=4, lora_alpha=7, target_modules=[], target_parameters=["experts.up"]),
    "OFT": lambda: OFTConfig(r=0, oft_block_size=16, target_modules=[*TWO, "embed"]),
    "OFT, exact": lambda: OFTConfig(
        r=0, oft_block_size=16, use_cayley_neumann=False, target_modules=[*TWO, "embed"]),
    "BOFT": lambda: BOFTConfig(boft_block_size=8, target_modules=TWO),
    "HRA": lambda: HRAConfig(r=8, target_modules=TWO),
    "FourierFT": lambda: FourierFTConfig(n_frequency=500, target_modules=["linear"]),
    "LN tuning": lambda: LNTuningConfig(target_modules=["norm"]),
}  # fmt: skip
EXACT = {"IA3", "LoKr, whole", "LN tuning"}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", list(TYPES))
def test_type(repo: Repo, tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    net = Net().to(dtype)
    base = {name: value.clone() for name, value in net.state_dict().items()}
    save_file(base, repo.path / "m.safetensors")
    repo.commit("base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(net, TYPES[kind]())
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or "lambda" in name:
                noise = torch.randn_like(parameter) * 0.1
                near = "magnitude" in name or "boft_s" in name or "ia3" in name
                parameter.data = parameter.data + noise if near else noise
        model.save_pretrained(tmp_path)
        fresh = Net().to(dtype)
        fresh.load_state_dict(base)
        merged = PeftModel.from_pretrained(fresh, tmp_path).merge_and_unload().state_dict()
    repo.theta("add", "m.safetensors", "--update", str(tmp_path))
    ours = load_file(repo.path / "m.safetensors")
    changed = 0
    for name, wanted in merged.items():
        apart = steps(ours[name], wanted)
        changed += not torch.equal(base[name], wanted)
        share, far = share_of(apart), relative(ours[name], wanted)
        if not torch.equal(base[name], wanted):
            print(f"\n{kind} {dtype} {name}: {share:.2%} differ, at most {int(apart.max())} ulps, "
                  f"{far:.1e} of the largest weight", end="")  # fmt: skip
        assert far <= (1e-6 if dtype == torch.float32 else 8e-3)
        if kind in EXACT:
            assert not apart.any(), name
        if dtype != torch.float32:
            assert share <= 0.01, name
    assert changed
