"""Adapters as PEFT saves them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo


def lora(width: int = 64, rank: int = 4, seed: int = 3) -> dict[str, Any]:
    """Factors for every query of `tests.scenarios.checkpoints.model`, named as PEFT names them."""
    random = np.random.default_rng(seed)
    found = {}
    for layer in range(3):
        stem = f"base_model.model.encoder.layer.{layer}.attention.query"
        found[f"{stem}.lora_A.weight"] = random.normal(0, 0.1, (rank, width)).astype(np.float32)
        found[f"{stem}.lora_B.weight"] = random.normal(0, 0.1, (width, rank)).astype(np.float32)
    return found


def adapter(repo: Repo, tensors: dict[str, Any], **config: object) -> str:
    """A PEFT folder outside the work tree; its path."""
    folder = repo.path.parent / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return str(folder)
