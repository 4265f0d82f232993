"""The strategies beside mergekit's, where it implements the same method.

Not part of the default run, for mergekit takes 1.7 GB of packages: `.ci/optional --mergekit` runs
it, with mergekit in a virtual environment of its own (MERGEKIT_PYTHON).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from git_theta_ext.merge.strategies.arrays import merge_arrays
from git_theta_ext.merge.strategies.choice import Choice, Setting

_SCRIPT = """
import json, sys
from mergekit.graph import Executor
from mergekit.options import MergeOptions
from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig, plan_flat_merge
for config, target in json.load(open(sys.argv[1])):
    made = RawPyTorchMergeConfig.model_validate(config)
    tasks = plan_flat_merge(made, target, False, False, MergeOptions(quiet=True))
    Executor(tasks, math_device="cpu", storage_device="cpu").execute()
"""

Row = tuple[str, tuple[tuple[str, Setting], ...], str, dict[str, float], float]
ROWS: list[Row] = [
    ("average", (), "linear", {"weight": 1.0}, 0.0),
    ("average", (("weights", (3.0, 1.0)),), "linear 3:1", {}, 1.2e-7),
    ("task-arithmetic", (), "task_arithmetic", {"weight": 1.0}, 1.2e-7),
    ("task-arithmetic", (("lambda", 0.5),), "task_arithmetic", {"weight": 0.5}, 1.2e-7),
    ("ties", (("density", 0.5),), "ties", {"weight": 1.0, "density": 0.5}, 1.2e-7),
    ("ties", (("density", 1.0),), "ties", {"weight": 1.0, "density": 1.0}, 1.2e-7),
    ("slerp", (), "slerp", {}, 2.4e-7),
    ("karcher", (), "karcher", {}, 2.4e-7),
]
"""Ours, mergekit's, and how far they may be apart. DARE and DELLA draw other masks and rescale to
the tensor's L1 norm, SCE falls to uniform weights for small variances, model stock clamps, and
breadcrumbs counts the dropped entries differently: they are compared by accuracy, in
benchmarks/training.py."""


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """A base and two sides, also as files."""
    folder = tmp_path_factory.mktemp("kit")
    random = np.random.default_rng(0)
    base = random.normal(0, 0.02, (64, 96)).astype(np.float32)
    arrays = [base, *(base + random.normal(0, 1e-2, base.shape) for _ in range(2))]
    arrays = [one.astype(np.float32) for one in arrays]
    for name, one in zip(("base", "ours", "theirs"), arrays, strict=True):
        save_file({"w": one}, folder / f"{name}.safetensors", {"format": "pt"})
    return folder, arrays


def config(folder: Path, method: str, settings: dict[str, float]) -> dict[str, object]:
    base, ours, theirs = (
        str(folder / f"{name}.safetensors") for name in ("base", "ours", "theirs")
    )
    each = [settings, settings]
    if method == "linear 3:1":
        method, each = "linear", [{"weight": 3.0}, {"weight": 1.0}]
    made: dict[str, object] = {"merge_method": method, "dtype": "float32"}
    made["models"] = [
        {"model": name, "parameters": one} for name, one in zip((ours, theirs), each, strict=True)
    ]
    if method == "slerp":
        made["base_model"], made["parameters"] = ours, {"t": 0.5}
    elif method not in ("linear", "karcher"):
        made["base_model"] = base
    return made


@pytest.fixture(scope="module")
def merged(versions: tuple[Path, list[np.ndarray]]) -> list[np.ndarray]:
    """What mergekit makes of each row."""
    python = os.environ.get("MERGEKIT_PYTHON")
    assert python, "MERGEKIT_PYTHON names no Python that has mergekit"
    folder, _ = versions
    targets = [folder / f"out-{number}" for number in range(len(ROWS))]
    jobs = [
        (config(folder, row[2], row[3]), str(target))
        for row, target in zip(ROWS, targets, strict=True)
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    subprocess.run([python, "-c", _SCRIPT, str(folder / "jobs.json")], check=True)
    return [load_file(next(target.glob("*.safetensors")))["w"] for target in targets]


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[f"{row[0]} {row[2]}" for row in ROWS])
def test_the_same_numbers(
    number: int, versions: tuple[Path, list[np.ndarray]], merged: list[np.ndarray]
) -> None:
    name, settings, method, _, distance = ROWS[number]
    base, *sides = versions[1]
    found = merge_arrays(Choice(name, settings), base, sides)
    if method == "ties":
        # mergekit divides by the sum of the weights that agree, and counts trimmed entries as
        # it rounds: single entries at the edge of the density may differ.
        apart = np.abs(found - merged[number]) > distance
        assert np.mean(apart) < 0.01
    else:
        assert np.max(np.abs(found - merged[number])) <= distance
