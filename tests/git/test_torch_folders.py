"""A folder of PyTorch's distributed checkpoints is one model, whatever process wrote which part."""

from __future__ import annotations

import numpy as np

import git_theta_ext as theta
from tests.scenarios.repositories import Repo
from tests.scenarios.torch_files import torch_files

PATTERN = "ckpt/__*_*.distcp"


def put(repo: Repo, version: str) -> None:
    """Save a version of the checkpoint in the work tree."""
    for path, data in torch_files().items():
        if path.startswith(f"fsdp/{version}/"):
            repo.write(path.replace(f"fsdp/{version}", "ckpt"), data)


def test_a_folder_is_one_model_with_its_names_and_merges(repo: Repo) -> None:
    repo.theta("track", "ckpt/*.distcp", "ckpt/.metadata", "*.pt")
    put(repo, "base")
    shard = "zero/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    for path, data in torch_files().items():
        if path.startswith("zero/"):
            repo.write(path, data)
    repo.commit("base")
    assert b"\ntensor fp32.1.weight\n" in repo.blob(f"HEAD:{shard}")
    # The same bytes are the same manifest, whatever lies beside them.
    for path in ("ckpt/.metadata", "zero/mp_rank_00_model_states.pt"):
        (repo.path / path).unlink()
    for path in ("ckpt/__0_0.distcp", shard):
        (repo.path / path).touch()
    repo.git("add", "ckpt/__0_0.distcp", shard)
    assert repo.status() == " D ckpt/.metadata\n D zero/mp_rank_00_model_states.pt\n"
    repo.git("restore", ".")
    repo.git("switch", "-q", "-c", "side")
    put(repo, "theirs")
    repo.commit("theirs")
    repo.git("switch", "-q", "main")
    put(repo, "ours")
    repo.commit("ours")
    assert repo.status() == ""

    text = repo.theta("diff", "HEAD~1", "HEAD")
    assert "ckpt/__*_*.distcp" in text
    assert "model.0.weight" in text
    assert "1 of " in text
    assert "[:5]" not in text
    assert "model.1.weight" not in text
    log = repo.theta("log", PATTERN, "model.1.weight")
    assert "base" in log
    assert "ours" not in log
    with theta.open(f"HEAD:{PATTERN}", repository=repo.path) as model:
        assert model["model.0.weight"].shape == (9, 12)
        assert np.array_equal(model["both"], np.arange(25.0).reshape(5, 5))
        assert model["columns[:, 5:]"].shape == (6, 5)
        ours = model["model.0.weight"]

    repo.git("merge", "-q", "-m", "merge", "side")
    assert repo.status() == ""
    with theta.open(f"HEAD:{PATTERN}", repository=repo.path) as model:
        assert np.array_equal(model["model.0.weight"], ours)
        with theta.open(f"side:{PATTERN}", repository=repo.path) as theirs:
            assert np.array_equal(model["model.1.weight"], theirs["model.1.weight"])
    # What is not the same in both is an id of the save; the rest says where everything lies.
    merged = (repo.path / "ckpt/.metadata").read_bytes()
    assert merged == torch_files()["fsdp/ours/.metadata"]
    repo.git("checkout", "-q", "HEAD~1")
    for name in (".metadata", "__0_0.distcp", "__1_0.distcp"):
        data = (repo.path / "ckpt" / name).read_bytes()
        assert data == torch_files()[f"fsdp/ours/{name}"]
