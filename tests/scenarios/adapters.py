"""Adapters as PEFT saves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
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
    """A PEFT folder outside the work tree, of a LoRA; its path."""
    return written(repo, tensors, {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config})


def written(repo: Repo, tensors: dict[str, Any], settings: dict[str, Any]) -> str:
    """The same of any type."""
    folder = repo.path.parent / "adapter"
    folder.mkdir(exist_ok=True)
    fill(folder, tensors, settings)
    return str(folder)


def fill(folder: Path, tensors: dict[str, Any], settings: dict[str, Any]) -> None:
    """The two files of such a folder."""
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    (folder / "adapter_config.json").write_text(json.dumps(settings))


SHAPE = (160, 128)
"""Of each weight that the structured adapters change."""


def structured(modules: Sequence[str]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Settings and tensors of adapters that add products and rotate, as PEFT names them."""
    random = np.random.default_rng(31)
    rows, columns = SHAPE
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "LOKR": {"lokr_w1": (8, 8), "lokr_w2_a": (rows // 8, 2), "lokr_w2_b": (2, columns // 8)},
        "LOHA": {
            "hada_w1_a": (rows, 2), "hada_w1_b": (2, columns), "hada_w2_a": (rows, 2),
            "hada_w2_b": (2, columns),
        },
        "OFT": {"oft_R": (columns // 4, 6)},
        "BOFT": {"boft_R": (2, columns // 4, 4, 4), "boft_s": (rows, 1)},
        "HRA": {"hra_u": (columns, 2)},
    }  # fmt: skip
    settings: dict[str, dict[str, Any]] = {
        "LOKR": {"r": 2, "alpha": 3, "decompose_factor": 8}, "LOHA": {"r": 2, "alpha": 3},
        "OFT": {"oft_block_size": 4, "peft_version": "0.21.2"},
        "BOFT": {"boft_block_size": 4, "boft_n_butterfly_factor": 2}, "HRA": {"r": 2},
    }  # fmt: skip
    found = {}
    for kind, parts in shapes.items():
        tensors = {}
        for module in modules:
            for part, shape in parts.items():
                centre = 1 if part == "boft_s" else 0
                numbers = random.normal(centre, 0.1, shape).astype(np.float32)
                tensors[f"base_model.model.{module}.{part}"] = numbers
        found[kind] = ({"peft_type": kind, **settings[kind]}, tensors)
    return found
