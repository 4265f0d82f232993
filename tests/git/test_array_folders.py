"""A folder that Orbax writes is one model, though every save calls its files anew."""

from __future__ import annotations

import shutil

import numpy as np

import git_theta_ext as theta
from tests.scenarios.array_files import below
from tests.scenarios.repositories import Repo

MODEL = "ckpt/**"


def put(repo: Repo, version: str) -> None:
    """Save a version in place of the one before."""
    shutil.rmtree(repo.path / "ckpt", ignore_errors=True)
    for path, data in below(version).items():
        repo.write(f"ckpt/{path}", data)


def test_an_orbax_folder_is_one_model_that_is_compared_and_merged(repo: Repo) -> None:
    repo.theta("track", "ckpt/**/d/*", "manifest.ocdbt", "lone.zarr/**/c/**")
    put(repo, "orbax/base")
    for path, data in below("lone").items():
        repo.write(f"lone.zarr/{path}", data)
    repo.commit("base")
    assert b"\ntensor lone.zarr\n" in repo.blob("HEAD:lone.zarr/c/0/0")
    repo.git("switch", "-q", "-c", "side")
    put(repo, "orbax/theirs")
    repo.commit("theirs")
    repo.git("switch", "-q", "main")
    put(repo, "orbax/ours")
    repo.commit("ours")

    text = repo.theta("diff", "HEAD~1", "HEAD")
    assert f"{MODEL}  1 of 3 tensors changed" in text
    assert "~ emb " in text
    assert "deleted" not in text
    assert "ours" not in repo.theta("log", MODEL, "dense.kernel")

    # Merged by tensor, into our files: where values lie in them does not change.
    done = repo.run("git", "theta", "merge", "side", ok=(1,))
    assert MODEL in done.stdout.decode() + done.stderr.decode()
    texts = ("ckpt/_CHECKPOINT_METADATA", "ckpt/commit_success.txt")
    repo.git("checkout", "-q", "--ours", "--", *texts)
    repo.git("add", "-A")
    repo.git("commit", "-q", "-m", "merge")
    with (
        theta.open(f"HEAD:{MODEL}", repository=repo.path) as merged,
        theta.open(f"HEAD~1:{MODEL}", repository=repo.path) as ours,
        theta.open(f"side:{MODEL}", repository=repo.path) as theirs,
    ):
        assert sorted(merged) == ["dense.kernel", "emb", "head"]
        assert np.array_equal(merged["emb"], ours["emb"])
        assert np.array_equal(merged["dense.kernel"], theirs["dense.kernel"])
        assert not np.array_equal(ours["dense.kernel"], theirs["dense.kernel"])
    files = below("orbax/ours")
    folder = repo.path / "ckpt"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == set(files)
    for path, data in files.items():
        now = (folder / path).read_bytes()
        assert len(now) == len(data)
        assert now == data or "/d/" in path
