"""What is fuzzed of quantised weights: of which kind they are, and their numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints.coupled.read import NotDecodedError, numbers, quantised
from git_theta_ext.checkpoints.versions import open_side

_FILES = Path(__file__).parents[1] / "golden" / "quantised"
_SEEDS = ("codes.gguf", "others.gguf", "mlx.safetensors", "bitsandbytes.safetensors",
          "torchao.safetensors", "quanto.safetensors", "gptq.safetensors")  # fmt: skip


def targets(
    scratch: Callable[[], Path],
) -> Iterator[tuple[str, Callable[[], list[bytes]], Callable[[bytes], None]]]:
    """Name, seeds and target; `scratch` gives a folder."""
    config: Mapping[str, Any] = json.loads((_FILES / "mlx.json").read_text())

    def run(data: bytes) -> None:
        path = scratch() / "model"
        path.write_bytes(data)
        side = open_side(path, None)
        if side is None:
            return
        with closing(side):
            for weight in quantised(side, lambda: config).values():
                if weight.decode is None:
                    continue
                with suppress(NotDecodedError):
                    if sum(map(len, numbers(side, weight))) != weight.count:
                        raise AssertionError(f"{weight.name} has another length")

    yield "quantised", lambda: [(_FILES / name).read_bytes() for name in _SEEDS], run
