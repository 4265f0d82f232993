"""Make `tests/golden/peft`: adapters saved, and merged, by PEFT itself.

Needs torch, transformers and peft (made with 2.14, 5.24 and 0.21.2), which the tests do not:

    python tests/golden/make_peft.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    PeftConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
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


class Body(torch.nn.Module):
    """The part of a language model that its head does not belong to."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(40, 16)
        self.q_proj = torch.nn.Linear(16, 16)
        self.norm = torch.nn.LayerNorm(16)


class Language(torch.nn.Module):
    """A language model in small: names and methods by which PEFT knows its embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Body()
        self.lm_head = torch.nn.Linear(16, 40, bias=False)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.lm_head


class Classifier(torch.nn.Module):
    """A body with biases, a head of one layer, and a head of two."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.classifier = torch.nn.Linear(16, 3)
        self.score = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Linear(8, 2))


class Convolutions(torch.nn.Module):
    """Convolutions of as many inputs as outputs: only the settings say which a vector scales."""

    def __init__(self) -> None:
        super().__init__()
        self.square = torch.nn.Conv2d(6, 6, 3)
        self.ahead = torch.nn.Conv2d(6, 6, 3)


class Small(torch.nn.Module):
    """A layer of each kind, for types that are no plain factors; names are those of GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(24, 20)
        self.c_attn = Conv1D(36, 24)
        self.c_proj = Conv1D(24, 24)
        self.conv = torch.nn.Conv2d(4, 8, 3)
        self.emb = torch.nn.Embedding(30, 12)
        self.norm = torch.nn.LayerNorm(12)


EVERY, TWO = ["lin", "c_attn", "c_proj", "conv"], ["lin", "conv"]
TYPES = {
    "dora": LoraConfig(r=2, lora_alpha=7, use_dora=True, target_modules=[*EVERY, "emb"]),
    "adalora": AdaLoraConfig(init_r=3, lora_alpha=7, total_step=9, target_modules=EVERY),
    "loha": LoHaConfig(r=2, alpha=5, target_modules=TWO, rank_pattern={"conv": 3}),
    "loha-cores": LoHaConfig(r=2, alpha=5, use_effective_conv2d=True, target_modules=TWO),
    "lokr": LoKrConfig(r=2, alpha=5, target_modules=TWO, alpha_pattern={"conv": 3}),
    "lokr-cores": LoKrConfig(
        r=1, alpha=5, use_effective_conv2d=True, decompose_both=True, decompose_factor=4,
        target_modules=TWO),
    "vera": VeraConfig(r=4, target_modules=["lin"]),
    "ln-tuning": LNTuningConfig(target_modules=["norm"]),
}  # fmt: skip


def make_type(name: str) -> None:
    """A base in bfloat16, an adapter of a type with random parameters, and the two merged."""
    torch.manual_seed(1)
    base = Small().to(torch.bfloat16)
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(base.state_dict(), folder / "base.safetensors")
    model = get_peft_model(base, TYPES[name])
    for key, parameter in model.named_parameters():
        if (parameter.requires_grad or "lambda" in key) and "ranknum" not in key:
            noise = torch.randn_like(parameter) * 0.2
            parameter.data = parameter.data + noise if "magnitude" in key else noise
    model.save_pretrained(folder)
    finish(folder, model)


def make(
    name: str, config: PeftConfig, dtype: torch.dtype, net: type[torch.nn.Module] = Net
) -> None:
    """A base, an adapter with random factors, and the two merged."""
    torch.manual_seed(1)
    base = net().to(dtype)
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(base.state_dict(), folder / "base.safetensors")
    model = get_peft_model(base, config)
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            parameter.data = torch.randn_like(parameter) * 0.1
        elif "ia3_" in key:
            parameter.data = 1 + torch.randn_like(parameter) * 0.1
        elif parameter.requires_grad and net is not Net:
            parameter.data = torch.randn_like(parameter)
    model.save_pretrained(folder)
    finish(folder, model)


def finish(folder: Path, model: torch.nn.Module) -> None:
    """Settings that name no class of ours, and the merged weights."""
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
    for kind in TYPES:
        make_type(kind)
    make("lora-bf16", lora(use_rslora=True), torch.bfloat16)
    make("lora-fp32", lora(), torch.float32)
    make("lora-bias-fp16", LoraConfig(r=4, lora_alpha=10, target_modules=["q"], lora_bias=True),
         torch.float16)  # fmt: skip
    make("ia3-bf16", IA3Config(target_modules=["q", "v", "turned"], feedforward_modules=["v"]),
         torch.bfloat16)  # fmt: skip
    make("lora-embeddings", LoraConfig(r=4, lora_alpha=8, target_modules=[
        "embed_tokens", "lm_head", "q_proj"]), torch.float32, Language)  # fmt: skip
    make("lora-bias-all", LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"], bias="all",
         modules_to_save=["classifier", "score"]), torch.float32, Classifier)  # fmt: skip
    make("lora-bias-only", LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"],
         bias="lora_only", modules_to_save=["classifier"]), torch.float32, Classifier)  # fmt: skip
    make("lora-tokens", LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"],
         trainable_token_indices={"embed_tokens": [7, 3, 39]}), torch.bfloat16,
         Language)  # fmt: skip
    make("tokens", TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=[5, 1]),
         torch.float32, Language)  # fmt: skip
    make("ia3-conv", IA3Config(target_modules=["square", "ahead"], feedforward_modules=["ahead"]),
         torch.float32, Convolutions)  # fmt: skip
