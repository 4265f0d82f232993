"""How far the results of `git theta add --update` are from PEFT's own merge, measured.

Not part of the default run, for torch and PEFT take 1 GB of packages: `.ci/optional` runs it.

The table that `docs/adapters.md` shows is what this prints.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from tests.optional.beside_peft import relative, share_of, steps
from tests.scenarios.repositories import Repo

LAYERS = {
    "Linear": lambda: torch.nn.Linear(512, 768),
    "Conv1D": lambda: Conv1D(768, 512),
    "Embedding": lambda: torch.nn.Embedding(2048, 256),
    "Conv2d": lambda: torch.nn.Conv2d(64, 96, 3),
    "square Conv2d": lambda: torch.nn.Conv2d(64, 64, 3),
}
MOST = {torch.float32: 0.9, torch.bfloat16: 2e-3, torch.float16: 2e-3}
"""Largest share of the entries that may differ from PEFT's; each by one step of the dtype."""


class Net(torch.nn.Module):
    """One layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = LAYERS[kind]()


def apply(repo: Repo, folder: Path, kind: str, dtype: torch.dtype, method: str) -> torch.Tensor:
    """The steps between ours and PEFT's, of the layer's weight."""
    torch.manual_seed(3)
    net = Net(kind).to(dtype)
    save_file(net.state_dict(), repo.path / "m.safetensors")
    repo.commit("base")
    config = LoraConfig(r=16, lora_alpha=24, target_modules=["layer"])
    if method.startswith("ia3"):
        inputs = ["layer"] if method.endswith("inputs") else []
        config = IA3Config(target_modules=["layer"], feedforward_modules=inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = get_peft_model(net, config)
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn_like(parameter) * 0.05
            if "ia3_" in name:
                parameter.data = 1 + torch.randn_like(parameter) * 0.1
        tuned.save_pretrained(folder)
        merged = tuned.merge_and_unload().state_dict()["layer.weight"]
    repo.theta("add", "m.safetensors", "--update", str(folder))
    ours = load_file(repo.path / "m.safetensors")["layer.weight"]
    apart = relative(ours, merged)
    print(f"\n{method} {kind} {dtype}: at most {apart:.1e} of the largest weight apart")
    return steps(ours, merged)


@pytest.mark.parametrize("dtype", list(MOST), ids=str)
@pytest.mark.parametrize("kind", ["Linear", "Conv1D", "Embedding", "Conv2d"])
def test_lora(repo: Repo, tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    found = apply(repo, tmp_path / "adapter", kind, dtype, "lora")
    share = share_of(found)
    most = int(np.quantile(found.numpy(), 0.9999))
    print(f"\nlora {kind} {dtype}: {share:.2%} differ; {1e4 * share:.1f} of 10,000, "
          f"largest {int(found.max())} steps, 99.99 % within {most}")  # fmt: skip
    assert share <= MOST[dtype]
    if dtype != torch.float32:
        assert int(found.max()) <= 1


@pytest.mark.parametrize("dtype", list(MOST), ids=str)
@pytest.mark.parametrize("kind", ["Linear", "Conv1D", "Conv2d", "square Conv2d"])
@pytest.mark.parametrize("inputs", [False, True])
def test_ia3_is_peft_s_to_the_bit(
    repo: Repo, tmp_path: Path, inputs: bool, kind: str, dtype: torch.dtype
) -> None:
    method = "ia3 of inputs" if inputs else "ia3"
    assert not apply(repo, tmp_path / "adapter", kind, dtype, method).any()
