"""`git theta prune` with real git: what it removes, what it must not, and who it waits for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from git_theta_ext.core.errors import StoreError
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.store.where import store_of
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.objects import grow_old
from tests.scenarios.repositories import Repo
from tests.servers.lfs import lfs_server

NAME = "model.safetensors"
WEIGHT = "encoder.layer.1.attention.query.weight"


def version(seed: int) -> bytes:
    """A model with one tensor moved."""
    tensors = model()
    return safetensors({**tensors, WEIGHT: changed(tensors[WEIGHT], seed=seed)})


def objects(repo: Repo) -> set[str]:
    """The ids of all objects in the store."""
    return set(Store(repo.path / ".git/theta").oids())


def prune(repo: Repo, *arguments: str, code: int = 0) -> Any:
    """The JSON of a prune."""
    command = [sys.executable, "-m", "git_theta_ext.cli.main", "prune", "--json", *arguments]
    done = repo.run(*command, ok=(code,))
    return json.loads(done.stdout) if code == 0 else done.stderr.decode()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the first test fills and the others copy."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def pushed(new_repo: Callable[..., Repo], prepared: Path, tmp_path: Path) -> Repo:
    """Four old versions of a checkpoint, pushed to a path remote."""
    if not (prepared / "done").exists():
        repo = new_repo("repo")
        repo.git("init", "-q", "--bare", "../remote.git")
        repo.git("remote", "add", "origin", "../remote.git")
        for seed in range(1, 5):
            repo.write(NAME, version(seed))
            repo.commit(f"version {seed}")
        repo.git("push", "-q", "origin", "main")
        for name in ("repo", "remote.git"):
            shutil.copytree(tmp_path / name, prepared / name)
        (prepared / "done").touch()
    else:
        for name in ("repo", "remote.git"):
            shutil.copytree(prepared / name, tmp_path / name)
    repo = Repo(tmp_path / "repo")
    repo.git("update-index", "-q", "--refresh")
    grow_old(repo)
    return repo


def test_only_what_older_versions_need_and_the_remote_has_is_removed(pushed: Repo) -> None:
    before = objects(pushed)
    planned = prune(pushed, "--dry-run")
    assert objects(pushed) == before
    done = prune(pushed)
    assert done["removed"] == planned["removed"] != []
    assert objects(pushed) == before - {item["oid"] for item in done["removed"]}
    assert pushed.status() == ""
    for seed in (2, 1, 4):  # older versions are fetched again
        pushed.git("checkout", "-q", f"main~{4 - seed}")
        assert (pushed.path / NAME).read_bytes() == version(seed)


def test_what_the_remote_has_not_stays(pushed: Repo, tmp_path: Path) -> None:
    planned = prune(pushed, "--dry-run")["removed"]
    lost, damaged = planned[0]["oid"], planned[1]["oid"]
    there = tmp_path / "remote.git/lfs/objects"
    (there / lost[:2] / lost[2:4] / lost).unlink()
    path = there / damaged[:2] / damaged[2:4] / damaged
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    done = prune(pushed)
    assert done["lacking"] == 2
    assert {lost, damaged} <= objects(pushed)
    pushed.git("remote", "remove", "origin")
    grow_old(pushed)
    assert prune(pushed)["removed"] == []


@pytest.mark.parametrize("place", ["stash", "worktree", "reflog", "conflict", "undone"])
def test_what_only_this_repository_has_stays(pushed: Repo, place: str, tmp_path: Path) -> None:
    tree = pushed
    if place == "worktree":
        pushed.git("worktree", "add", "-q", "--detach", str(tmp_path / "other"))
        tree = Repo(tmp_path / "other")
    if place in ("conflict", "undone"):
        pushed.git("checkout", "-q", "-b", "side", "HEAD~1")
        tree.write(NAME, version(9))
        tree.commit("side")
        pushed.git("checkout", "-q", "main")
        pushed.git("merge", "-q", "side", ok=(0, 1))
        pushed.git("branch", "-q", "-D", "side")
        if place == "undone":
            pushed.git("checkout", "-q", "--ours", NAME)
            pushed.git("add", NAME)
            (pushed.path / ".git/MERGE_HEAD").unlink()
        pushed.git("reflog", "expire", "--expire=all", "--all")
    else:
        tree.write(NAME, version(9))
        tree.git("add", NAME)
    if place == "stash":
        tree.git("stash", "-q")
    if place == "reflog":
        tree.git("commit", "-q", "-m", "gone")
        tree.git("reset", "-q", "--hard", "HEAD~1")
    made = objects(pushed)
    grow_old(pushed)
    removed = {item["oid"] for item in prune(pushed, "--keep-days", "0")["removed"]}
    found = json.loads(pushed.theta("fsck", "--json", ok=(0, 6)))
    missing = {item["oid"] for item in found["findings"]}
    assert missing <= removed < made
    remote = {path.name for path in (tmp_path / "remote.git/lfs/objects").glob("??/??/*")}
    assert removed <= remote


def test_garbage_goes_when_it_is_old(pushed: Repo) -> None:
    reachable = objects(pushed)
    pushed.write(NAME, version(9))
    pushed.git("add", NAME)
    garbage = objects(pushed) - reachable
    pushed.git("reset", "-q", "--hard")
    assert garbage
    assert garbage <= objects(pushed)
    assert not garbage & {item["oid"] for item in prune(pushed, "--keep-days", "0")["removed"]}
    grow_old(pushed)
    assert prune(pushed, "--verify-unreachable")["lacking"] == len(garbage)
    assert prune(pushed)["unreachable"] == len(garbage)
    assert not garbage & objects(pushed)


def test_an_object_that_is_added_again_is_young(pushed: Repo) -> None:
    before = objects(pushed)
    pushed.write(NAME, version(9))
    pushed.git("add", NAME)
    garbage = objects(pushed) - before
    pushed.git("reset", "-q", "--hard")
    grow_old(pushed)
    pushed.write(NAME, version(9))
    pushed.git("add", NAME)
    pushed.git("reset", "-q", "--hard")
    prune(pushed)
    assert garbage <= objects(pushed)


def test_a_clock_that_went_back_removes_nothing_new(pushed: Repo) -> None:
    pushed.write(NAME, version(9))
    pushed.git("add", NAME)
    pushed.git("reset", "-q", "--hard")
    later = time.time() + 10 * 86400
    store = Store(pushed.path / ".git/theta")
    for oid in store.oids():
        os.utime(store.path(oid), (later, later))
    assert prune(pushed, "--keep-days", "0")["unreachable"] == 0


def test_a_store_that_may_be_shared_is_left_alone(pushed: Repo, tmp_path: Path) -> None:
    pushed.git("config", "theta.storage", str(tmp_path / "shared"))
    assert "theta.storage" in prune(pushed, code=2)


def test_writers_keep_it_out_and_killed_ones_do_not(pushed: Repo) -> None:
    writing, store = (store_of(Repository.discover(pushed.path)) for _ in range(2))
    writing.share()
    with pytest.raises(StoreError, match="another command"), store.alone(0.1):
        pass
    writing.flush()
    with store.alone(0.1):
        pass
    text = (
        "import sys, time; from pathlib import Path\n"
        "from git_theta_ext.objects.store.store import Store\n"
        "store = Store(Path(sys.argv[1])); store.share(); print('held', flush=True)\n"
        "time.sleep(600)"
    )
    command = [sys.executable, "-c", text, str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(StoreError, match="another command"), store.alone(0.1):
            pass
        writer.kill()
        writer.wait()
        with store.alone(5):
            pass


def test_a_server_is_asked_and_nothing_transferred(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo("with server")
    with lfs_server() as server:
        repo.git("init", "-q", "--bare", "../plain.git")
        repo.git("remote", "add", "origin", "../plain.git")
        repo.git("config", "lfs.url", server.url)
        for seed in (1, 2, 3):
            repo.write(NAME, version(seed))
            repo.commit(f"version {seed}")
        repo.git("push", "-q", "origin", "main")
        grow_old(repo)
        server.requests.clear()
        planned = prune(repo, "--dry-run", "--keep-days", "0")["removed"]
        assert planned
        lost = planned[0]["oid"]
        kept = server.objects.pop(lost)
        fsck = repo.theta("fsck", "--json", "--remote", "origin", ok=(6,))
        assert [item["oid"] for item in json.loads(fsck)["remote_lacks"]] == [lost]
        done = prune(repo, "--keep-days", "0")
        assert done["lacking"] == 1
        assert lost in objects(repo)
        assert {method for method, _ in server.requests} == {"POST"}
        server.objects[lost] = kept
        repo.git("checkout", "-q", "HEAD~1")
        assert (repo.path / NAME).read_bytes() == version(2)
        repo.git("config", "lfs.url", "http://127.0.0.1:9/nobody")
        grow_old(repo)
        repo.git("checkout", "-q", "main")
        before = objects(repo)
        assert "nobody" in prune(repo, "--keep-days", "0", code=9)
        assert objects(repo) == before


def test_pushes_adds_and_checkouts_while_it_prunes(pushed: Repo, tmp_path: Path) -> None:
    pushed.git("worktree", "add", "-q", "--detach", str(tmp_path / "other"), "main~1")
    pushed.git("checkout", "-q", "-b", "side")
    pushed.write(NAME, version(8))
    pushed.commit("version 8")
    pushed.write(NAME, version(9))
    grow_old(pushed)
    theta = [sys.executable, "-m", "git_theta_ext.cli.main"]
    commands = [
        (pushed.path, ["git", "push", "-q", "origin", "side"]),
        (pushed.path, [*theta, "prune", "--keep-days", "0"]),
        (tmp_path / "other", ["git", "checkout", "-q", "main~2"]),
        (pushed.path, ["git", "add", NAME]),
        (tmp_path / "other", [*theta, "prune", "--keep-days", "0"]),
    ]
    running = [subprocess.Popen(command, cwd=place) for place, command in commands]
    assert [process.wait(120) for process in running] == [0] * len(commands)
    assert (tmp_path / "other" / NAME).read_bytes() == version(2)
    pushed.git("commit", "-q", "-m", "version 9")
    pushed.theta("fsck", "--repair")
    for revision, seed in (("side", 9), ("side~1", 8), ("main", 4), ("main~3", 1)):
        pushed.git("checkout", "-q", "--detach", revision)
        assert (pushed.path / NAME).read_bytes() == version(seed)
