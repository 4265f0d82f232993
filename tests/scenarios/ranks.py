"""An adapter of two modules in three versions, whose ranks and scalings may differ."""

from __future__ import annotations

import json

import numpy as np

from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo

NAME, CONFIG = "lora/adapter_model.safetensors", "lora/adapter_config.json"
MODULES = [f"base_model.model.l.{n}.q" for n in range(2)]
Pair = tuple[int, float]


def adapter(seed: int, rank: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {}
    for module in MODULES:
        made[f"{module}.lora_A.weight"] = random.normal(size=(rank, 30))
        made[f"{module}.lora_B.weight"] = random.normal(size=(20, rank))
    return {name: value.astype(np.float32) for name, value in made.items()}


def config(rank: int, alpha: float, **more: object) -> bytes:
    made = {
        "base_model_name_or_path": "m", "bias": "none", "lora_alpha": alpha, "peft_type": "LORA",
        "r": rank, "rank_pattern": {}, "target_modules": ["q"], "use_rslora": False, **more,
    }  # fmt: skip
    return json.dumps(made, indent=2, sort_keys=True).encode()


def start(repo: Repo, base: Pair, ours: Pair, theirs: Pair) -> None:
    """Three versions of an adapter: base 0, ours 1, theirs 2; each by its rank and alpha."""

    def version(number: int, pair: Pair) -> None:
        repo.write(NAME, safetensors(adapter(number, pair[0])))
        repo.write(CONFIG, config(*pair))
        repo.commit(f"version {number}")

    def make() -> None:
        version(0, base)
        repo.git("checkout", "-q", "-b", "side")
        version(2, theirs)
        repo.git("checkout", "-q", "main")
        version(1, ours)

    repo.once(make, base, ours, theirs)
