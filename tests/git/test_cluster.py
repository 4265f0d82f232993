"""The work on blocks sent to a Dask cluster: the same bits as here, and nothing silent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.core.errors import ClusterError
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.cluster.client import Dask
from git_theta_ext.objects.store.store import Store
from tests.scenarios import torchzip
from tests.scenarios.checkpoints import NAME, changed, safetensors
from tests.scenarios.clusters import ROOT, THEIR_MODE, cluster, die, die_once, own_id
from tests.scenarios.objects import damage
from tests.scenarios.repositories import Repo

RANDOM = np.random.default_rng(11)
WIDE = (320, 320)
MODEL = {
    **{f"l.{n}.w": RANDOM.normal(0, 0.02, WIDE).astype(np.float32) for n in range(6)},
    **{f"l.{n}.b": RANDOM.normal(0, 0.02, 40).astype(np.float32) for n in range(6)},
    "step": np.array(7, np.int64),
}
"""2.5 MB: enough to be worth sending."""
OTHER = RANDOM.normal(0, 0.02, WIDE).astype(np.float32)

NOBODY = "dask://127.0.0.1:1"


@pytest.fixture(scope="module")
def on() -> Iterator[str]:
    """Where there is a cluster."""
    with cluster() as address:
        yield address


def torch_file(seed: int) -> bytes:
    """A PyTorch file, which holds checksums of what is written by others."""
    values = np.random.default_rng(seed).normal(0, 0.02, (2, 300, 700)).astype(np.float32)
    tensors = {
        f"t{n}": torchzip.tensor(torchzip.Storage(str(n), count=210_000), (300, 700))
        for n in range(2)
    }
    return torchzip.save(
        torchzip.state_dict(tensors), {str(n): values[n].tobytes() for n in range(2)}
    )


def objects(repo: Repo) -> dict[str, int]:
    """The permissions of each object in the store."""
    found = (repo.path / ".git/theta/objects").rglob("*")
    return {path.name: path.stat().st_mode & 0o777 for path in found if path.is_file()}


def mostly_theirs(repo: Repo, before: dict[str, int]) -> bool:
    """Whether workers wrote most of the objects that are new."""
    new = {oid: mode for oid, mode in objects(repo).items() if oid not in before}
    return 2 * list(new.values()).count(THEIR_MODE) > len(new) > 0


def object_file(repo: Repo, oid: str) -> Path:
    """The file of an object."""
    return repo.path / ".git/theta/objects" / oid[:2] / oid[2:4] / oid


def staged(repo: Repo) -> str:
    """The ids of all manifests in the index."""
    return repo.git("ls-files", "-s")


def test_all_verbs(new_repo: Callable[..., Repo], on: str) -> None:
    """A version, two branches, a merge, a check and a checkout; beside the same on one machine."""
    near, far = new_repo("near"), new_repo("far")
    for repo in (near, far):
        repo.write(NAME, safetensors(MODEL))
        repo.write("model.pt", torch_file(1))
    near.git("add", ".")
    far.theta("add", ".", "--on", on)
    assert staged(near) == staged(far)
    assert objects(near).keys() == objects(far).keys()
    assert mostly_theirs(far, {})
    assert b"\nformat torch-zip\n" in far.blob(":model.pt")
    assert far.status() == near.status()

    ours = {**MODEL, "l.0.w": changed(MODEL["l.0.w"], seed=2), "l.1.w": OTHER}
    theirs = {**MODEL, "l.0.w": changed(MODEL["l.0.w"], seed=3), "l.2.w": OTHER}
    for repo in (near, far):
        repo.git("commit", "-q", "-m", "base")
        repo.git("branch", "side")
        repo.write(NAME, safetensors(ours))
    near.git("add", ".")
    far.git("config", "theta.executor", on)
    before = objects(far)
    far.theta("add", NAME)
    assert staged(near) == staged(far)
    assert mostly_theirs(far, before)
    for repo in (near, far):
        repo.git("commit", "-q", "-m", "ours")
        repo.git("checkout", "-q", "side")
        repo.write(NAME, safetensors(theirs))
        repo.commit("theirs")
        repo.git("checkout", "-q", "main")

    # What Git starts is told by the environment; here of a cluster that is not there. The file is
    # older than the index, so that Git need not clean it first.
    os.utime(far.path / NAME, (1, 1))
    far.status()
    told = far.run("git", "merge", "side", ok=(1,), env={"GIT_THETA_EXECUTOR": NOBODY})
    assert b"no Dask scheduler" in told.stderr
    far.git("merge", "--abort")
    without = {"GIT_THETA_SKIP_SMUDGE": "1"}
    near.theta("merge", "side", "--strategy", "average")
    far.theta("merge", "side", "--strategy", "average", env=without)
    assert near.git("rev-parse", "HEAD^{tree}") == far.git("rev-parse", "HEAD^{tree}")
    far.theta("pull")
    assert (near.path / NAME).read_bytes() == (far.path / NAME).read_bytes()
    assert far.status() == ""

    assert far.theta("fsck") == near.theta("fsck")
    oid = max(before)
    damage(object_file(far, oid))
    assert oid in far.theta("fsck", ok=(5,))
    assert far.theta("fsck", "--on", "here", ok=(5,)) == far.theta("fsck", ok=(5,))


def test_checkpoints_are_written_by_workers(repo: Repo, on: str) -> None:
    """Also where a checksum of what they write stands before it; a damaged object stops it."""
    files = {NAME: safetensors(MODEL), "model.pt": torch_file(2)}
    for name, data in files.items():
        repo.write(name, data)
    repo.commit("model")
    without = {"GIT_THETA_SKIP_SMUDGE": "1"}
    for name in files:
        (repo.path / name).unlink()
    repo.git("checkout", "--", ".", env=without)
    (repo.path / NAME).chmod(0o600)
    (repo.path / "model.pt").chmod(0o644)
    repo.theta("pull", "--on", "here", "--", "model.pt")
    repo.theta("pull", "--on", on)
    for name, data in files.items():
        assert (repo.path / name).read_bytes() == data
    assert (repo.path / NAME).stat().st_mode & 0o777 == 0o600
    assert repo.status() == ""

    (repo.path / NAME).unlink()
    repo.git("checkout", "--", NAME, env=without)
    manifest = (repo.path / NAME).read_bytes()
    victim = next(line.split(b"sha256:")[1][:64] for line in manifest.splitlines()
                  if line.strip().startswith(b"dense"))  # fmt: skip
    damage(object_file(repo, victim.decode()))
    said = repo.run("git", "theta", "pull", "--on", on, ok=(5,)).stderr.decode()
    assert "l." in said
    assert (repo.path / NAME).read_bytes() == manifest
    assert [path.name for path in repo.path.iterdir() if ".theta-" in path.name] == []


COMMIT = """
import sys
import numpy as np
import git_theta_ext as theta

random = np.random.default_rng(5)
model = {f"w{n}": random.normal(size=(400, 500)) for n in range(4)}
print(theta.commit(model, "model.safetensors", message="from Python", executor=sys.argv[1]))
"""


def test_commits_from_python(repo: Repo, on: str) -> None:
    trees = []
    for where in (on, "here"):
        command = (sys.executable, "-c", COMMIT, where)
        commit = repo.run(*command).stdout.decode().strip()
        trees.append(repo.git("rev-parse", f"{commit}^{{tree}}"))
        if where == on:
            assert mostly_theirs(repo, {})
            assert list((repo.path / ".git/theta/tmp").iterdir()) == []
    assert trees[0] == trees[1]


def test_where_the_work_cannot_be_done(repo: Repo, on: str, tmp_path: Path) -> None:
    """Each is said before anything is staged, with the machine that it is about."""
    repo.write(NAME, safetensors(MODEL))

    def said(*options: str, code: int = 13) -> str:
        return repo.run("git", *options, ok=(code,)).stderr.decode()

    assert "no Dask scheduler" in said("theta", "add", NAME, "--on", NOBODY)
    assert "says not where" in said("theta", "add", NAME, "--on", "spark://127.0.0.1:1", code=2)
    if sys.platform == "linux":  # a path that is another place in each process
        elsewhere = "theta.storage=/proc/self/cwd/store"
        found = said("-c", elsewhere, "theta", "add", NAME, "--on", on)
        assert "worker tcp://" in found
        assert "does not see /proc/self/cwd/store" in found
        assert "at the same path" in found
    assert repo.git("diff", "--cached", "--name-only") == ""
    found = said("theta", "add", NAME, "--json", code=2)
    assert "git add FILE   adds a checkpoint" in found
    # No file of a commit names a cluster.
    for name in (".lfsconfig", ".gitconfig", ".gitmodules"):
        repo.write(name, f"[theta]\n\texecutor = {NOBODY}\n".encode())
    repo.git("add", ".lfsconfig", ".gitconfig")
    repo.theta("fsck")
    # Git itself asks no cluster that is named in its configuration.
    repo.git("config", "theta.executor", NOBODY)
    repo.run(*"git add FILE".replace("FILE", NAME).split())
    assert "no Dask scheduler" in said("theta", "fsck")
    repo.theta("fsck", "--on", "here")


def test_a_worker_that_dies(on: str, tmp_path: Path) -> None:
    """Its work is done by another one; what kills every worker is an error that says so."""
    root = tmp_path / "theta"
    executor = Dask(on.replace("dask", "tcp"), store := Store(root))
    blocks = Blocks(store, executor=executor)
    try:
        executor.check()
        done = list(blocks.map(own_id, range(400), lambda item: 1))
        assert [item for _, item in done] == list(range(400))
        assert len({process for process, _ in done}) == 2
        (survivor,) = blocks.map(die_once, [str(tmp_path / "marker")], lambda item: 1)
        assert survivor
        with pytest.raises(ClusterError, match="died one after the other"):
            list(blocks.map(die, [0], lambda item: 1))
    finally:
        executor.close()
    assert list((root / "tmp").iterdir()) == []


def test_the_package_is_imported_only_when_it_is_asked_for() -> None:
    code = (
        "import sys, git_theta_ext, git_theta_ext.drivers.filter_commands, "
        "git_theta_ext.drivers.merge, git_theta_ext.cli.verbs.merge;"
        "sys.exit('distributed' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
