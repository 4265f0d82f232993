"""Histories of real DVC and real git-theta 0.2 are moved in, and every version is compared.

Not part of the default run, which has what these programs write, and not the programs:
`.ci/optional` runs it. DVC_PROGRAM names DVC, and OLD_THETA_PYTHON a Python with git-theta 0.2,
torch and safetensors.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from git_theta_ext import open as open_theta
from tests.scenarios.moved import NAME, started, version
from tests.scenarios.repositories import Repo

MAKE = Path(__file__).parents[1] / "golden/make_git_theta.py"


@pytest.mark.skipif("DVC_PROGRAM" not in os.environ, reason="DVC_PROGRAM names no DVC")
def test_a_history_of_dvc(tmp_path: Path, sealed: Path) -> None:
    repo = started(tmp_path / "repo", lfs=False)
    dvc = os.environ["DVC_PROGRAM"]

    def run(*command: str) -> None:
        subprocess.run([dvc, *command], cwd=repo.path, check=True)

    run("init", "-q")
    run("remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    (repo.path / "data").mkdir()
    for number in range(4):
        repo.write(NAME, version(number))
        repo.write("data/a.safetensors", version(number + 4))
        repo.write("data/table.csv", b"1,2\n")
        run("add", "-q", NAME, "data")
        repo.commit(f"version {number}")
    run("push", "-q")
    for path in (repo.path / ".dvc/cache").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    repo.theta("import-dvc")
    repo.theta("fsck")
    for number in range(4):
        for name, data in ((NAME, version(number)), ("data/a.safetensors", version(number + 4))):
            revision = f"main~{3 - number}:{name}"
            assert repo.blob(revision).startswith(b"git-theta ")
            assert repo.run("git", "cat-file", "--filters", revision).stdout == data


@pytest.mark.skipif("OLD_THETA_PYTHON" not in os.environ, reason="OLD_THETA_PYTHON is not set")
def test_a_history_of_git_theta(tmp_path: Path, sealed: Path) -> None:
    made = tmp_path / "made.tar.xz"
    # It sets up its own filter, under the same name.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run([os.environ["OLD_THETA_PYTHON"], str(MAKE), str(made)], env=plain, check=True)
    subprocess.run(["tar", "-xJf", str(made)], cwd=tmp_path, check=True)
    repo = Repo(tmp_path / "golden/repo")
    repo.git("config", "core.bare", "true")
    repo.theta("migrate", "import", "--from-git-theta")
    repo.theta("fsck")
    commits = repo.git("rev-list", "--reverse", "main").split()[1:]
    assert len(commits) == 4
    for number, commit in enumerate(commits):
        wanted = load_file(tmp_path / f"golden/checked-out/{number}.safetensors")
        found = open_theta(f"{commit}:model.pt", repository=repo.path)
        assert set(found.keys()) == set(wanted)
        for name, values in wanted.items():
            assert np.array_equal(np.asarray(found[name]), values), (number, name)
