"""Make `tests/golden/peft`: adapters saved, and merged, by PEFT itself.

Needs torch, transformers and peft (made with 2.13, 5.23 and 0.21.2), which the tests do not:

    python tests/golden/make_peft.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import IA3Config, LoraConfig, PeftConfig, get_peft_model
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

OUT = Path(__file__).parent / "peft"


class Net(torch.nn.Module):
    """One layer of each kind that an adapter may change; `turned` is stored as inputs × outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = torch.nn.Embedding(64, 48)
        self.q = torch.nn.Linear(48, 40)
        self.v = torch.nn.Linear(48, 44, bias=False)
        self.turned = Conv1D(56, 48)
        self.conv = torch.nn.Conv2d(8, 16, 3)
        self.head = torch.nn.Linear(40, 4)


def make(name: str, config: PeftConfig, dtype: torch.dtype) -> None:
    """A base, an adapter with random factors, and the two merged."""
    torch.manual_seed(1)
    net = Net().to(dtype)
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), folder / "base.safetensors")
    model = get_peft_model(net, config)
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            parameter.data = torch.randn_like(parameter) * 0.1
        if "ia3_" in key:
            parameter.data = 1 + torch.randn_like(parameter) * 0.1
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["auto_mapping"] = None
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1, sort_keys=True))
    merged = model.merge_and_unload().state_dict()
    save_file({key: value.contiguous() for key, value in merged.items()},
              folder / "merged.safetensors")  # fmt: skip


def lora(**settings: object) -> PeftConfig:
    """Rank and alpha by module, and a head that is trained in full."""
    return LoraConfig(
        r=4, lora_alpha=10, target_modules=["q", "v", "turned", "emb", "conv"],
        rank_pattern={"q": 6}, alpha_pattern={"q": 7}, modules_to_save=["head"], **settings,
    )  # fmt: skip


if __name__ == "__main__":
    make("lora-bf16", lora(use_rslora=True), torch.bfloat16)
    make("lora-fp32", lora(), torch.float32)
    make("lora-bias-fp16", LoraConfig(r=4, lora_alpha=10, target_modules=["q"], lora_bias=True),
         torch.float16)  # fmt: skip
    make("ia3-bf16", IA3Config(target_modules=["q", "v", "turned"], feedforward_modules=["v"]),
         torch.bfloat16)  # fmt: skip
