"""Make `tests/golden/peft_dtypes`: adapters of each type, merged by PEFT itself in three dtypes.

Needs torch, transformers and peft (made with 2.13, 5.24 and 0.21.2), which the tests do not:

    python -m tests.golden.make_peft_dtypes

The adapter is trained on float32 weights and saved; then it is loaded beside these weights in
float32, bfloat16 and float16, and merged. `base.safetensors` is the same for all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import peft.tuners.boft.layer as boft
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
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

OUT = Path(__file__).parent / "peft_dtypes"
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class Experts(torch.nn.Module):
    """Two parameters for all experts; `is_transposed` says that inputs come before outputs."""

    def __init__(self, is_transposed: bool) -> None:
        super().__init__()
        self.is_transposed = is_transposed
        up, down = (16, 24), (12, 16)
        if not is_transposed:
            up, down = up[::-1], down[::-1]
        self.gate_up_proj = torch.nn.Parameter(torch.randn(3, *up))
        self.down_proj = torch.nn.Parameter(torch.randn(3, *down))


class Net(torch.nn.Module):
    """A layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(24, 20)
        self.c_attn = Conv1D(28, 16)
        self.conv = torch.nn.Conv2d(4, 6, 3)
        self.emb = torch.nn.Embedding(30, 16)
        self.norm = torch.nn.LayerNorm(16)
        self.experts = Experts(False)
        self.turned_experts = Experts(True)


EVERY, TWO = ["lin", "c_attn", "conv"], ["lin", "conv"]
EXPERTS = [f"{one}.{name}" for one in ("experts", "turned_experts")
           for name in ("gate_up_proj", "down_proj")]  # fmt: skip
TYPES: dict[str, Callable[[], PeftConfig]] = {
    "lora": lambda: LoraConfig(r=3, lora_alpha=7, target_modules=[*EVERY, "emb"]),
    "dora": lambda: LoraConfig(r=2, lora_alpha=7, use_dora=True, target_modules=[*EVERY, "emb"]),
    "experts": lambda: LoraConfig(
        r=2, lora_alpha=5, target_modules=[], target_parameters=[*EXPERTS, "lin.weight"],
        rank_pattern={"experts.gate_up_proj": 3}),
    "ia3": lambda: IA3Config(target_modules=EVERY, feedforward_modules=["conv"]),
    "adalora": lambda: AdaLoraConfig(init_r=3, lora_alpha=7, total_step=9, target_modules=EVERY),
    "loha": lambda: LoHaConfig(r=2, alpha=5, target_modules=TWO, rank_pattern={"conv": 3}),
    "loha-cores": lambda: LoHaConfig(r=2, alpha=5, use_effective_conv2d=True, target_modules=TWO),
    "lokr": lambda: LoKrConfig(r=2, alpha=5, target_modules=TWO),
    "lokr-whole": lambda: LoKrConfig(r=64, alpha=5, target_modules=TWO),
    "vera": lambda: VeraConfig(r=4, target_modules=["lin"]),
    "ln-tuning": lambda: LNTuningConfig(target_modules=["norm"]),
    "tokens": lambda: TrainableTokensConfig(target_modules=["emb"], token_indices=[3, 17]),
    "oft": lambda: OFTConfig(
        r=0, oft_block_size=4, target_modules=[*TWO, "emb"], bias="oft_only"),
    "oft-exact": lambda: OFTConfig(
        r=3, oft_block_size=0, use_cayley_neumann=False, block_share=True, target_modules=["lin"]),
    "coft": lambda: OFTConfig(
        r=0, oft_block_size=6, coft=True, eps=0.4, num_cayley_neumann_terms=3,
        target_modules=TWO),
    "boft": lambda: BOFTConfig(boft_block_size=4, target_modules=TWO, bias="boft_only"),
    "boft-butterfly": lambda: BOFTConfig(
        boft_block_size=2, boft_n_butterfly_factor=3, target_modules=["lin"]),
    "hra": lambda: HRAConfig(r=4, target_modules=TWO, bias="hra_only"),
    "hra-orthogonal": lambda: HRAConfig(r=3, apply_GS=True, target_modules=TWO),
    "fourierft": lambda: FourierFTConfig(
        n_frequency=40, target_modules=["lin"], bias="fourier_only"),
    "fourierft-turned": lambda: FourierFTConfig(
        n_frequency=448, scaling=30.0, random_loc_seed=5, fan_in_fan_out=True,
        target_modules=["c_attn"]),
}  # fmt: skip


class _BlockDiagonal:
    """What BOFT's CUDA extension computes; without it PEFT makes one factor only."""

    @staticmethod
    def apply(blocks: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.block_diag(*one) for one in blocks])


def save(model: torch.nn.Module, folder: Path) -> None:
    """An adapter with random parameters; its settings name no class of ours."""
    for key, parameter in model.named_parameters():
        if (parameter.requires_grad or "lambda" in key) and "ranknum" not in key:
            noise = torch.randn_like(parameter) * 0.2
            near = "magnitude" in key or "boft_s" in key or "ia3" in key
            parameter.data = parameter.data + noise if near else noise
    with tempfile.TemporaryDirectory() as there:
        model.save_pretrained(there)
        folder.mkdir(parents=True, exist_ok=True)
        saved = sorted(Path(there).rglob("adapter_*"))
        for path in saved:
            shutil.copy(path, folder / path.name)
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["auto_mapping"] = None
    settings = {key: value for key, value in settings.items() if value is not None}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1, sort_keys=True))


def fresh(base: dict[str, torch.Tensor], dtype: torch.dtype) -> torch.nn.Module:
    """The net again, in a dtype."""
    net = Net().to(dtype)
    net.load_state_dict({name: value.to(dtype) for name, value in base.items()})
    return net


def write(folder: Path, name: str, merged: torch.nn.Module, base: dict[str, torch.Tensor]) -> None:
    """The tensors that the merge changed."""
    dtype = DTYPES[name]
    changed = {key: value.contiguous() for key, value in merged.state_dict().items()
               if not torch.equal(value, base[key].to(dtype))}  # fmt: skip
    save_file(changed, folder / f"merged.{name}.safetensors")


def make(kind: str, base: dict[str, torch.Tensor]) -> None:
    """An adapter of a type, and three merges."""
    torch.manual_seed(2)
    folder = OUT / kind
    several = kind == "boft-butterfly"
    extension, block_diagonal = boft.get_fbd_cuda, boft.FastBlockDiag
    if several:
        boft.get_fbd_cuda, boft.FastBlockDiag = (lambda: True), _BlockDiagonal
    save(get_peft_model(fresh(base, torch.float32), TYPES[kind]()), folder)
    for name, dtype in DTYPES.items():
        model = PeftModel.from_pretrained(fresh(base, dtype), folder)
        write(folder, name, model.merge_and_unload(), base)
    boft.get_fbd_cuda, boft.FastBlockDiag = extension, block_diagonal


WEIGHED = {
    "a": lambda: LoraConfig(r=3, lora_alpha=7, target_modules=[*EVERY, "emb"]),
    "b": lambda: LoraConfig(r=3, lora_alpha=4, target_modules=["lin", "emb"]),
    "c": lambda: LoraConfig(r=3, lora_alpha=5, target_modules=["conv", "lin"]),
}
WEIGHTS = {"a": 0.7, "b": -0.3, "c": 1.25}


def make_weighted(base: dict[str, torch.Tensor]) -> None:
    """Three adapters of LoRA, joined by PEFT with weights, in both ways."""
    torch.manual_seed(3)
    for one, config in WEIGHED.items():
        save(get_peft_model(fresh(base, torch.float32), config()), OUT / "weighted" / one)
    for how in ("cat", "linear"):
        folder = OUT / "weighted" / how
        folder.mkdir(exist_ok=True)
        for name, dtype in DTYPES.items():
            folders = {one: OUT / "weighted" / one for one in WEIGHED}
            model = PeftModel.from_pretrained(fresh(base, dtype), folders["a"], adapter_name="a")
            for one in ("b", "c"):
                model.load_adapter(folders[one], adapter_name=one)
            model.add_weighted_adapter(
                list(WEIGHTS), list(WEIGHTS.values()), "joined", combination_type=how
            )
            model.set_adapter("joined")
            write(folder, name, model.merge_and_unload(), base)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    OUT.mkdir(exist_ok=True)
    whole = Net().state_dict()
    save_file(whole, OUT / "base.safetensors")
    for one in TYPES:
        make(one, load_file(OUT / "base.safetensors"))
    make_weighted(load_file(OUT / "base.safetensors"))
