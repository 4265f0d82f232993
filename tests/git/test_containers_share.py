"""The same weights in several containers are stored once."""

from __future__ import annotations

import itertools

import numpy as np

from git_theta_ext.checkpoints.write import ArraysSource
from tests.scenarios.containers import hdf5, keras
from tests.scenarios.repositories import Repo


def test_one_model_in_every_container_is_stored_once(repo: Repo) -> None:
    repo.theta("track", "*.npz", "*.gguf", "*.h5", "*.keras")
    random = np.random.default_rng(0)
    tensors = {
        f"layers.{number}.weight": random.normal(size=(200, 300)).astype(np.float32)
        for number in range(6)
    }

    def stored() -> int:
        root = repo.path / ".git/theta/objects"
        return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())

    sizes = []
    for container in ("safetensors", "pt", "npz", "gguf"):
        source = ArraysSource(tensors, {}, container)
        repo.write(f"model.{container}", source.read(0, source.size))
        repo.commit(container)
        sizes.append(stored())
    repo.write("model.h5", hdf5(tensors))
    repo.write("model.keras", keras(tensors))
    repo.commit("Keras")
    sizes.append(stored())
    raw = sum(array.nbytes for array in tensors.values())
    assert sizes[0] > 0.5 * raw
    for before, after in itertools.pairwise(sizes):
        assert after - before < 0.02 * raw
    for container in ("pt", "npz", "gguf", "h5", "keras"):
        before = (repo.path / f"model.{container}").read_bytes()
        (repo.path / f"model.{container}").unlink()
        repo.git("checkout", "--", f"model.{container}")
        assert (repo.path / f"model.{container}").read_bytes() == before
