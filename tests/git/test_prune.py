"""`git theta prune` removes what is safe elsewhere or needed by nothing, and no object more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from git_theta_ext.locks import StoreLock
from tests.checkpoints import safetensors
from tests.conftest import Repo

NAME = "model.safetensors"


def version(seed: int) -> bytes:
    values = np.random.default_rng(seed).normal(0, 1, (64, 64)).astype(np.float32)
    return safetensors({"w": values})


def commit(repo: Repo, seed: int, days_ago: float = 100) -> bytes:
    data = version(seed)
    repo.write(NAME, data)
    date = f"{int(time.time() - days_ago * 86400)} +0000"
    repo.git("add", NAME)
    repo.git("commit", "-q", "-m", str(seed), env={"GIT_COMMITTER_DATE": date})
    return data


def store(repo: Repo) -> set[str]:
    folder = repo.path / ".git" / "theta" / "objects"
    return {path.name for path in folder.glob("??/??/*")}


def prune(repo: Repo, *flags: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(repo.theta("prune", "--json", *flags))
    return found


def needed(repo: Repo, revision: str) -> set[str]:
    text = repo.git("show", f"{revision}:{NAME}")
    return {
        line.split("sha256:")[1].split()[0]
        for line in text.splitlines()
        if line.startswith("  dense")
    }


@pytest.fixture
def history(repo: Repo, tmp_path: Path) -> Repo:
    """Three old versions, pushed to a path."""
    for seed in range(3):
        commit(repo, seed)
    repo.git("init", "-q", "--bare", str(tmp_path / "host.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "host.git"))
    repo.git("push", "-q", "origin", "HEAD")
    return repo


def grow_old(repo: Repo) -> None:
    """Make every object look as if it had been written long ago."""
    for path in (repo.path / ".git" / "theta" / "objects").glob("??/??/*"):
        os.utime(path, (0, 0))


def test_history_that_the_remote_has_goes_and_comes_back(history: Repo) -> None:
    before = store(history)
    old = needed(history, "HEAD~1") | needed(history, "HEAD~2")
    said = prune(history, "--dry-run")
    assert store(history) == before
    assert {ref["oid"] for ref in said["at_remote"]} >= old - needed(history, "HEAD")
    said = prune(history)
    assert said["removed"] == len(said["at_remote"])
    assert store(history) == before - {ref["oid"] for ref in said["at_remote"]}
    assert needed(history, "HEAD") <= store(history)
    history.git("checkout", "-q", "HEAD~2")
    assert (history.path / NAME).read_bytes() == version(0)


def test_what_the_remote_lacks_or_has_damaged_stays(history: Repo, tmp_path: Path) -> None:
    (first,) = needed(history, "HEAD~2") - needed(history, "HEAD")
    (second,) = needed(history, "HEAD~1") - needed(history, "HEAD")
    folder = tmp_path / "host.git" / "lfs" / "objects"
    (folder / first[:2] / first[2:4] / first).unlink()
    damaged = folder / second[:2] / second[2:4] / second
    damaged.chmod(0o644)
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    said = prune(history)
    assert {ref["oid"] for ref in said["not_at_remote"]} >= {first, second}
    assert {first, second} <= store(history)
    assert "git theta push origin --all" in history.theta("prune")


def test_recent_commits_keep_their_objects(history: Repo) -> None:
    commit(history, 7, days_ago=5)
    commit(history, 8, days_ago=1)
    history.git("push", "-q", "origin", "HEAD")
    prune(history)
    assert needed(history, "HEAD~1") <= store(history)
    prune(history, "--keep-days", "2")
    assert not needed(history, "HEAD~1") - needed(history, "HEAD") <= store(history)
    history.git("config", "theta.pruneKeepDays", "soon")
    history.theta("prune", ok=(2,))


def test_without_a_remote_history_stays(repo: Repo) -> None:
    for seed in range(3):
        commit(repo, seed)
    before = store(repo)
    assert prune(repo, "--keep-days", "0")["removed"] == 0
    assert store(repo) == before


def test_a_remote_that_cannot_be_asked_stops_it(history: Repo, tmp_path: Path) -> None:
    before = store(history)
    (tmp_path / "host.git").rename(tmp_path / "away")
    history.theta("prune", ok=(9,))
    assert store(history) == before


def test_what_nothing_names_goes_when_it_is_old(history: Repo) -> None:
    known = store(history)
    history.write(NAME, version(50))
    history.git("add", NAME)
    history.git("reset", "-q", "--hard")
    loose = store(history) - known
    assert loose
    assert prune(history, "--keep-days", "0")["young"] == len(loose)
    grow_old(history)
    assert set(prune(history, "--keep-days", "0")["unneeded"]) == loose
    assert not loose & store(history)
    history.write(NAME, version(50))
    history.git("commit", "-q", "-am", "again")
    assert loose <= store(history)


def test_an_object_that_is_added_again_is_young(history: Repo) -> None:
    known = store(history)
    history.write(NAME, version(60))
    history.git("add", NAME)
    history.git("reset", "-q", "--hard")
    loose = store(history) - known
    grow_old(history)
    history.write("other.safetensors", version(60))
    history.git("add", "other.safetensors")
    history.git("rm", "-q", "--cached", "other.safetensors")
    history.theta("prune", "--keep-days", "0")
    assert loose <= store(history)


def test_index_stash_and_other_work_trees_keep_theirs(history: Repo, tmp_path: Path) -> None:
    history.git("worktree", "add", "-q", str(tmp_path / "second"), "HEAD~2")
    history.write(NAME, version(70))
    history.git("stash", "-q")
    history.write(NAME, version(71))
    history.git("add", NAME)
    history.git("push", "-q", "origin", "HEAD")
    grow_old(history)
    needs = needed(history, "HEAD~2") | needed(history, "stash@{0}") | needed(history, "")
    history.theta("prune", "--keep-days", "0")
    assert needs <= store(history)
    gone = needed(history, "HEAD~1") - needs - needed(history, "HEAD")
    assert gone
    assert not gone & store(history)


def test_a_rebase_under_way_keeps_its_autostash(history: Repo) -> None:
    history.write("notes.txt", b"base\n")
    history.commit("notes")
    history.git("branch", "-M", "main")
    history.git("branch", "side")
    history.write("notes.txt", b"one\n")
    history.commit("one")
    history.git("checkout", "-q", "side")
    history.write("notes.txt", b"two\n")
    history.commit("two")
    history.write(NAME, version(80))
    history.git("rebase", "--autostash", "main", ok=(1,))
    grow_old(history)
    before = store(history)
    history.theta("prune", "--keep-days", "0")
    history.git("rebase", "--abort")
    assert (history.path / NAME).read_bytes() == version(80)
    assert store(history) <= before


def test_a_shared_store_is_not_pruned(history: Repo, tmp_path: Path) -> None:
    history.git("config", "theta.storage", str(tmp_path / "shared"))
    history.theta("prune", ok=(2,))


def test_a_damaged_manifest_stops_it(history: Repo) -> None:
    blob = history.git("show", f"HEAD~1:{NAME}").replace("sha256:", "sha25:", 1)
    oid = history.git("hash-object", "-w", "--stdin", stdin=blob.encode()).strip()
    history.git("tag", "damaged", oid)
    before = store(history)
    history.theta("prune", ok=(4,))
    assert store(history) == before


def refused(repo: Repo) -> str:
    command = (sys.executable, "-m", "git_theta_ext.cli.main", "prune")
    return repo.run(*command, ok=(11,)).stderr.decode()


_WRITER = """
import sys, time
from pathlib import Path
from git_theta_ext.store import Store
store = Store(Path(sys.argv[1]))
store.put([b"something"])
print("written", flush=True)
sys.stdin.read()
"""


def test_it_waits_for_nobody_and_a_killed_writer_leaves_no_lock(history: Repo) -> None:
    root = history.path / ".git" / "theta"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"written\n"
    assert "another command is writing" in refused(history)
    history.theta("prune", "--dry-run")
    writer.kill()
    writer.communicate()
    history.theta("prune")


def test_writers_share_and_wait(tmp_path: Path) -> None:
    one, two, pruning = (StoreLock(tmp_path) for _ in range(3))
    one.share()
    two.share()
    with pytest.raises(Exception, match="another command is writing"):
        pruning.exclude()
    one.release()
    two.release()
    pruning.exclude()
    code = "from pathlib import Path; from git_theta_ext.locks import StoreLock;"
    code += f"StoreLock(Path({str(tmp_path)!r})).share(); print('in')"
    waiting = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1.5)
    pruning.release()
    assert waiting.communicate(timeout=30)[0] == b"in\n"
