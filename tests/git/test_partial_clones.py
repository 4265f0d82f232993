"""A partial clone lacks objects of Git: nothing takes those for objects that do not exist."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo

NAME = "large/model.safetensors"


def version(seed: int) -> bytes:
    """A model of which nothing is that of another seed's: no version needs an object of another."""
    random = np.random.default_rng(seed)
    return safetensors({f"w{n}": random.random((64, 64), np.float32) for n in range(2)})


@pytest.mark.parametrize("kind", ["blob:none", "tree:0"])
def test_what_is_not_here_is_said_and_fetched(repo: Repo, tmp_path: Path, kind: str) -> None:
    remote, other = tmp_path / "remote.git", tmp_path / "other.git"
    for path in (remote, other):
        repo.git("init", "-q", "--bare", str(path))
    repo.git("-C", str(remote), "config", "uploadpack.allowFilter", "true")
    for seed in (1, 2, 3):
        repo.write(NAME, version(seed))
        repo.commit(f"version {seed}")
    repo.git("push", "-q", str(remote), "main")
    repo.theta("install")  # for what a clone checks out

    def cloned(name: str) -> Repo:
        clone = Repo(tmp_path / name)
        repo.git("clone", "-q", f"--filter={kind}", f"file://{remote}", str(clone.path))
        return clone

    # What is not here is not passed over, in what is printed and in the exit status.
    clone = cloned("clone")
    assert (clone.path / NAME).read_bytes() == version(3)
    said = clone.theta("fsck", ok=(6,))
    assert "checked 1 manifest," in said
    assert "0 problems\nnot checked: " in said
    assert json.loads(clone.theta("fsck", "--json", ok=(6,)))["promised"] > 0
    clone.theta("fsck", "HEAD^{tree}")
    clone.write("note", b"an entry of the index without content is none of that")
    clone.git("add", "-N", "note")
    clone.theta("fsck", "HEAD^{tree}")

    # Another remote gets the objects of every version before its ref moves.
    clone.git("push", "-q", str(other), "main")
    assert "checked 3 manifests" in Repo(other).theta("fsck")

    # A new branch at the remote that has promised all the rest brings nothing here.
    clone = cloned("again")
    clone.write(NAME, version(4))
    clone.commit("version 4")
    clone.git("push", "-q", "origin", "HEAD:refs/heads/new")
    assert "checked 2 manifests" in clone.theta("fsck", ok=(6,))

    # The objects of older versions are had when they are asked for.
    assert "Fetched " in clone.theta("fetch", "origin", "HEAD~2")
    clone = cloned("third")
    assert "Fetched " in clone.theta("fetch", "--all")
    assert "checked 4 manifests" in clone.theta("fsck")
    clone = cloned("fourth")
    done = clone.run("git", "theta", "fsck", ok=(6,))
    assert "checked 4 manifests" in do(clone, only(done.stderr.decode()))

    # Where the remote is gone nothing is pretended.
    clone = cloned("fifth")
    remote.rename(tmp_path / "away.git")
    done = clone.run("git", "theta", "push", str(other), "main", ok=(9,))
    assert b"not given by origin" in done.stderr
    (tmp_path / "away.git").rename(remote)
    assert "refs/heads/main" in do(clone, only(done.stderr.decode()))

    # In a whole repository it is damage.
    oid = repo.git("rev-parse", f"HEAD~1:{NAME}").strip()
    (repo.path / ".git/objects" / oid[:2] / oid[2:]).unlink()
    said = repo.theta("fsck", ok=(6,))
    assert "1 object of Git that is missing here; git fsck names them" in said
    done = repo.run("git", "theta", "fetch", "--all", ok=(9,))
    assert f"missing blob {oid}" in do(repo, only(done.stderr.decode()), ok=(2,))
