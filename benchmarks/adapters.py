#!/usr/bin/env python3
"""What adapters of each type take in the store, beside their own files: made by PEFT itself.

    pip install torch peft safetensors
    python benchmarks/adapters.py [--only NAME ...]

A net of two linear layers (768 × 768 and 3,072 × 768), a convolution, an embedding and a norm; the
numbers of an adapter are random. `git theta add --update` adds it to weights of two dtypes. `file`
is PEFT's adapter_model.safetensors, `stored` what the new version adds to the store; `found` is
what it takes where it comes as a merged file, and nobody says how it was made. Each version is
checked out again, and compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import save_file

NAME = "model.safetensors"
LINEAR, TWO = ["up", "query"], ["up", "query", "conv"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TYPES: dict[str, Callable[[], PeftConfig]] = {
    "LoRA, rank 8": lambda: LoraConfig(r=8, lora_alpha=16, target_modules=TWO),
    "DoRA, rank 8": lambda: LoraConfig(r=8, lora_alpha=16, use_dora=True, target_modules=LINEAR),
    "AdaLoRA, rank 12": lambda: AdaLoraConfig(init_r=12, total_step=9, target_modules=LINEAR),
    "VeRA, rank 64": lambda: VeraConfig(r=64, target_modules=LINEAR),
    "IA3": lambda: IA3Config(target_modules=LINEAR, feedforward_modules=["up"]),
    "LN tuning": lambda: LNTuningConfig(target_modules=["norm"]),
    "LoHa, rank 8": lambda: LoHaConfig(r=8, alpha=8, target_modules=TWO),
    "LoHa, rank 8, cores": lambda: LoHaConfig(
        r=8, alpha=8, use_effective_conv2d=True, target_modules=TWO),
    "LoKr, rank 8": lambda: LoKrConfig(r=8, alpha=8, target_modules=TWO),
    "LoKr, rank 8, cores": lambda: LoKrConfig(
        r=8, alpha=8, use_effective_conv2d=True, decompose_factor=8, target_modules=TWO),
    "LoKr, whole": lambda: LoKrConfig(r=10_000, alpha=10_000, target_modules=TWO),
    "OFT, blocks of 32": lambda: OFTConfig(oft_block_size=32, target_modules=TWO),
    "OFT, exact": lambda: OFTConfig(
        oft_block_size=32, use_cayley_neumann=False, target_modules=[*TWO, "embed"]),
    "OFT, shared block": lambda: OFTConfig(
        oft_block_size=32, block_share=True, target_modules=TWO),
    "BOFT, blocks of 8": lambda: BOFTConfig(boft_block_size=8, target_modules=TWO),
    "HRA, rank 8": lambda: HRAConfig(r=8, target_modules=TWO),
    "HRA, rank 8, Gram-Schmidt": lambda: HRAConfig(r=8, apply_GS=True, target_modules=TWO),
    "FourierFT, 1,000": lambda: FourierFTConfig(n_frequency=1000, target_modules=LINEAR),
}  # fmt: skip


class Net(torch.nn.Module):
    """Layers of the kinds that adapters are for."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(768, 3072)
        self.query = torch.nn.Linear(768, 768)
        self.conv = torch.nn.Conv2d(64, 128, 3)
        self.embed = torch.nn.Embedding(2000, 256)
        self.norm = torch.nn.LayerNorm(768)


def theta(folder: Path, *command: str) -> str:
    """What a command of git theta prints."""
    run = [sys.executable, "-m", "git_theta_ext.cli.main", *command]
    return subprocess.run(run, cwd=folder, check=True, text=True, stdout=subprocess.PIPE).stdout


def git(folder: Path, *command: str) -> None:
    """Run git, as somebody."""
    who = {f"GIT_{role}_{part}": "a@b.c" for role in ("AUTHOR", "COMMITTER")
           for part in ("NAME", "EMAIL")}  # fmt: skip
    subprocess.run(["git", *command], cwd=folder, check=True, env={**os.environ, **who})


def base(folder: Path, dtype: torch.dtype) -> None:
    """A repository with the first version of the net."""
    git(folder, "init", "-q")
    theta(folder, "install", "--local")
    theta(folder, "track", "*.safetensors")
    torch.manual_seed(1)
    save_file(Net().to(dtype).state_dict(), folder / NAME)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "base")


def trained(folder: Path, config: PeftConfig) -> int:
    """An adapter with random numbers; the length of its file."""
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(Net(), config)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or "lambda" in name:
                size = 0.2 if "hada" in name or "lokr" in name else 0.02
                noise = torch.randn_like(parameter) * size
                keep = any(part in name for part in ("magnitude", "boft_s", "ia3", "norm"))
                parameter.data = parameter.data + noise if keep else noise
        model.save_pretrained(folder)
    return (folder / "adapter_model.safetensors").stat().st_size


def measured(name: str, top: Path) -> Iterator[tuple[int, str, int, str, int]]:
    """For each dtype: length of the adapter, dtype, bytes stored, their kinds, bytes if found."""
    adapter = top / name.replace(" ", "")
    length = trained(adapter, TYPES[name]())
    for dtype in DTYPES:
        repo = top / dtype
        told: Any = json.loads(theta(repo, "add", NAME, "--update", str(adapter), "--json"))
        kinds = dict.fromkeys(kind for one in told["tensors"] for kind in one["updates"])
        merged = (repo / NAME).read_bytes()
        (repo / NAME).unlink()
        git(repo, "checkout-index", "-f", NAME)
        if (repo / NAME).read_bytes() != merged:
            raise SystemExit(f"{name}: what comes back is not what was written")
        yield length, dtype, told["stored"], " + ".join(kinds), found(top / f"{dtype} base", merged)
        git(repo, "reset", "-q", "--hard")


def found(pristine: Path, merged: bytes) -> int:
    """What the version takes where it comes as a file, in a copy of the first repository."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        shutil.copytree(pristine, copy)
        (copy / NAME).write_bytes(merged)
        objects = copy / ".git/theta/objects"
        before = {path for path in objects.rglob("*") if path.is_file()}
        git(copy, "add", NAME)
        return sum(path.stat().st_size for path in objects.rglob("*")
                   if path.is_file() and path not in before)  # fmt: skip


def main() -> None:
    """Print a row for each type and dtype."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(TYPES), help="names of the table")
    args = parser.parse_args()
    print(f"{'type':26} {'dtype':5} {'file':>9} {'stored':>9} {'share':>6} {'found':>9}  kinds")
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for dtype, kind in DTYPES.items():
            (top / dtype).mkdir()
            base(top / dtype, kind)
            shutil.copytree(top / dtype, top / f"{dtype} base")
        for name in args.only:
            for length, dtype, stored, kinds, other in measured(name, top):
                print(f"{name:26} {dtype:5} {length:9,} {stored:9,} {stored / length:6.2f} "
                      f"{other:9,}  {kinds}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
