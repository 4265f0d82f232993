"""Pairs of LoRA's factors, and the configuration of an adapter that holds them."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np

MODULE = "base_model.model.l.0.q"
A, B = f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight"
KINDS = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def factors(seed: int, rank: int, kind: type = np.float32) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    pair = {A: random.normal(size=(rank, 40)), B: random.normal(size=(24, rank))}
    return {name: value.astype(kind) for name, value in pair.items()}


def config(rank: int, alpha: float = 16, **more: object) -> bytes:
    return json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": alpha, **more}).encode()


def load(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, bfloat16 too."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    found = {}
    for name, one in header.items():
        first, last = (start + at for at in one["data_offsets"])
        found[name] = np.frombuffer(data[first:last], KINDS[one["dtype"]]).reshape(one["shape"])
    return found
