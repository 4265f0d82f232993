"""Tensors of other names: an update is found where the last commit has no tensor of that name."""

from __future__ import annotations

import numpy as np

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def kinds(repo: Repo, path: str = NAME) -> dict[str, list[str]]:
    """The kinds of update in the chain of each tensor's first block, in the index."""
    manifest = parse_manifest(repo.git("show", f":{path}").encode())
    return {
        entry.tensor.name: [ref.kind for ref in entry.blocks[0].chain] for entry in manifest.entries
    }


def test_renamed_and_tuned_at_once(repo: Repo) -> None:
    before = {f"bert.layer.{n}.weight": normal(200, 128, seed=n) for n in range(12)}
    repo.write(NAME, safetensors(before))
    repo.commit("first")
    after = {
        f"model.blocks.{n}.linear.weight": array + normal(200, 128, seed=100 + n) * np.float32(1e-3)
        for n, array in enumerate(before.values())
    }
    repo.write(NAME, safetensors(after))
    repo.git("add", NAME)
    assert set(map(tuple, kinds(repo).values())) == {("dense", "delta")}
    repo.commit("renamed")
    assert_comes_back(repo, NAME)


def test_rows_in_another_order_in_another_file(repo: Repo) -> None:
    gates = normal(4, 128, 96)
    first = {"lstm.weight_ih": gates.reshape(512, 96), "lstm.weight_hh": normal(512, 96, seed=1)}
    repo.write(NAME, safetensors(first))
    repo.commit("first")
    other = {"onnx::LSTM_209": gates[[0, 3, 1, 2]].reshape(1, 512, 96)}
    repo.write("other.safetensors", safetensors(other))
    repo.git("add", "other.safetensors")
    assert kinds(repo, "other.safetensors") == {"onnx::LSTM_209": ["dense", "permute"]}
    repo.commit("second")
    assert_comes_back(repo, "other.safetensors")


def test_going_back_to_the_first_version_costs_nothing(repo: Repo) -> None:
    first = {"small": normal(100, 50), "large": normal(1200, 1000, seed=1)}
    repo.write(NAME, safetensors(first))
    repo.commit("first")
    manifest = repo.git("show", f"HEAD:{NAME}")
    for seed in (2, 3):
        step = {name: normal(*array.shape, seed=seed) for name, array in first.items()}
        tuned = {name: array + step[name] * np.float32(1e-4) for name, array in first.items()}
        repo.write(NAME, safetensors(tuned))
        repo.commit("tuned")
    before = sorted((repo.path / ".git/theta/objects").glob("??/??/*"))
    repo.write(NAME, safetensors(first))
    repo.git("add", NAME)
    assert repo.git("show", f":{NAME}") == manifest
    assert sorted((repo.path / ".git/theta/objects").glob("??/??/*")) == before


def test_a_checkout_that_merges_a_change_into_an_older_version(repo: Repo) -> None:
    first = {"a": normal(300, 64), "b": normal(300, 64, seed=1)}
    repo.write(NAME, safetensors(first))
    repo.commit("first")
    second = {**first, "a": first["a"] + normal(300, 64, seed=2) * np.float32(1e-3)}
    repo.write(NAME, safetensors(second))
    repo.commit("second")
    edited = {**second, "b": first["b"] + normal(300, 64, seed=3) * np.float32(1e-3)}
    repo.write(NAME, safetensors(edited))
    repo.git("checkout", "-q", "-m", "HEAD~1")
    assert (repo.path / NAME).read_bytes() == safetensors({"a": first["a"], "b": edited["b"]})


def test_unrelated_tensors_of_one_form_stay_apart(repo: Repo) -> None:
    repo.write(NAME, safetensors({f"a.{n}": normal(300, 100, seed=n) for n in range(10)}))
    repo.commit("first")
    repo.write(NAME, safetensors({f"b.{n}": normal(300, 100, seed=50 + n) for n in range(10)}))
    repo.git("add", NAME)
    assert set(map(tuple, kinds(repo).values())) == {("dense",)}


def assert_comes_back(repo: Repo, name: str) -> None:
    expected = (repo.path / name).read_bytes()
    (repo.path / name).unlink()
    repo.git("checkout", "--", name)
    assert (repo.path / name).read_bytes() == expected
