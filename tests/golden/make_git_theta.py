"""Writes `git_theta_0_2.tar.xz`: a repository of git-theta 0.2 by r-three, with what it checks out.

To be run by hand, by a Python with `git-theta==0.2.0`, torch and safetensors, and git-lfs on PATH:

    python make_git_theta.py OUTPUT

Versions by dense, sparse and low-rank updates, tensors of several dtypes, and a version that adds
one. Beside the repository lies what its filter wrote for each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

DATES = {"GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z"}
NAMES = {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org",
         "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org"}  # fmt: skip


def run(repo: Path, *command: str, **more: str) -> None:
    env = {**os.environ, **DATES, **NAMES, **more}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    subprocess.run(command, cwd=repo, env=env, check=True)


Tensors = dict[str, np.ndarray]


def versions() -> list[tuple[str, Tensors, Tensors]]:
    """The kind of update, the file that is added, and the update that is given beside it."""
    random = np.random.default_rng(0)
    one = {
        "layer.weight": random.normal(0, 1, (24, 16)).astype(np.float32),
        "layer.bias": np.zeros(24, np.float32),
        "embed.weight": np.repeat(np.arange(64, dtype=np.float32), 150).reshape(60, 160),
        "double": random.normal(0, 1, (5, 7)),
        "steps": np.array([3, 4, 5], np.int64),
        "scalar": np.array(2.5, np.float64),
    }
    sparse = {"data": np.ones(3, np.float32), "indices": np.array([3, 70, 300]),
              "indptr": np.array([0, 3]), "shape": np.array([24, 16])}  # fmt: skip
    factors = {"R": random.normal(0, 1, (24, 2)).astype(np.float32),
               "C": random.normal(0, 1, (2, 16)).astype(np.float32)}  # fmt: skip
    added = {**one, "added": np.arange(6, dtype=np.float32), "double": one["double"] * 2}
    return [("dense", one, {}), ("sparse", one, sparse), ("low-rank", one, factors),
            ("dense", added, {})]  # fmt: skip


def main(output: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder) / "golden"
        repo, home = top / "repo", Path(folder) / "home"
        repo.mkdir(parents=True)
        home.mkdir()
        os.environ["HOME"] = str(home)
        os.environ["GIT_THETA_CHECKPOINT_TYPE"] = "pytorch"
        run(repo, "git", "init", "-q", "-b", "main")
        run(repo, "git", "lfs", "install")
        run(repo, "git-theta", "install")
        run(repo, "git-theta", "track", "model.pt")
        run(repo, "git", "commit", "-q", "-m", "track")
        (top / "checked-out").mkdir()
        for number, (kind, tensors, update) in enumerate(versions()):
            torch.save({key: torch.as_tensor(value) for key, value in tensors.items()},
                       repo / "model.pt")  # fmt: skip
            torch.save({f"layer.weight/{key}": torch.as_tensor(value)
                        for key, value in update.items()}, top / "update.pt")  # fmt: skip
            run(repo, "git", "add", "model.pt", GIT_THETA_UPDATE_TYPE=kind,
                GIT_THETA_UPDATE_DATA_PATH=str(top / "update.pt"))  # fmt: skip
            run(repo, "git", "commit", "-q", "-m", f"version {number}")
            (repo / "model.pt").unlink()
            run(repo, "git", "checkout", "--", "model.pt")
            found = torch.load(repo / "model.pt")
            save_file({key: value.numpy() for key, value in found.items()},
                      top / "checked-out" / f"{number}.safetensors")  # fmt: skip
        shutil.rmtree(repo / ".git/hooks")
        shutil.rmtree(repo / ".git/lfs/tmp", ignore_errors=True)
        (repo / "model.pt").unlink()
        (top / "update.pt").unlink()
        with tarfile.open(output, "w:xz") as archive:
            archive.add(top, "golden")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
