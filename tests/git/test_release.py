"""`git theta release`: folders that load without this program."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import safe_open

from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

CONFIG = {"model_type": "tiny", "torch_dtype": "float32", "text_config": {"dtype": "float32"}}
CARD = "---\nlicense: mit\n---\n\n# Tiny\n"
QUERY = "model.encoder.layer.1.attention.query.weight"


def training(seed: int = 0) -> dict[str, np.ndarray]:
    tensors = {f"model.{name}": value for name, value in model(seed).items()}
    return {**tensors, "optimizer.exp_avg": np.ones((4, 4), np.float32)}


def published(repo: Repo) -> None:
    """Two versions in a folder, with what a trainer leaves beside a checkpoint."""
    (repo.path / "weights").mkdir()
    repo.write("weights/model.safetensors", safetensors(training(), {"step": "1"}))
    repo.write("weights/config.json", json.dumps(CONFIG).encode())
    repo.write("weights/tokenizer.json", b"{}\n")
    repo.write("README.md", CARD.encode())
    repo.write("train.py", b"print()\n")
    repo.git("add", ".")
    repo.commit("first")
    repo.git("tag", "v1.0")
    second = training()
    second[QUERY] = changed(second[QUERY])
    repo.write("weights/model.safetensors", safetensors(second, {"step": "2"}))
    repo.commit("second")
    repo.git("tag", "-a", "-m", "x", "v1.1")
    repo.git("tag", "nightly")


def test_a_release_loads_without_us(repo: Repo, tmp_path: Path) -> None:
    published(repo)
    out = tmp_path / "dist"
    options = ("--strip-prefix", "model.", "--drop", "optimizer.*", "--dtype", "bf16",
               "--max-shard-size", "20kB")  # fmt: skip
    said = repo.theta("release", "v1.1", "-o", str(out), *options)
    assert said.startswith(f"{out}: v1.1, 14 tensors, ")
    names = sorted(path.name for path in out.iterdir())
    shards = [name for name in names if name.endswith(".safetensors")]
    assert shards == [
        f"model-0000{n}-of-0000{len(shards)}.safetensors" for n in range(1, len(shards) + 1)
    ]
    others = ["README.md", "SHA256SUMS", "config.json", "model.safetensors.index.json",
              "theta_tensors.json", "tokenizer.json"]  # fmt: skip
    assert names == sorted([*shards, *others])
    subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=out, check=True, capture_output=True
    )
    index = json.loads((out / "model.safetensors.index.json").read_text())
    found = {}
    for shard in shards:
        assert (out / shard).stat().st_size < 22_000
        with safe_open(out / shard, "np") as file:
            assert file.metadata() == {"step": "2", "format": "pt"}
            for name in file.keys():  # noqa: SIM118  it is no dict
                assert index["weight_map"][name] == shard
                found[name] = file.get_tensor(name)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in found.values())
    before = training()
    before[QUERY] = changed(before[QUERY])
    del before["optimizer.exp_avg"]
    assert set(found) == {name.removeprefix("model.") for name in before}
    for name, value in found.items():
        then = before[f"model.{name}"]
        now = then.astype(ml_dtypes.bfloat16) if then.dtype == np.float32 else then
        assert value.tobytes() == now.tobytes(), name
    config = json.loads((out / "config.json").read_text())
    assert config == {**CONFIG, "torch_dtype": "bfloat16", "text_config": {"dtype": "bfloat16"}}
    card = (out / "README.md").read_text()
    print(card)
    print((out / "theta_tensors.json").read_text()[:500])
    print(said, repo.theta("status"))
