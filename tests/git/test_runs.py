"""A training run on a branch of its own, with real git beside it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import git_theta_ext as theta
from git_theta_ext.api.runs import side_tree
from git_theta_ext.api.runs.run import Run
from git_theta_ext.core.errors import ChangedWhileReadError, RepositoryError, UsageError
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.suggestions import ROOT

MODEL = "model.safetensors"
QUERY = "encoder.layer.0.attention.query.weight"


def weights(step: int) -> dict[str, np.ndarray]:
    return {**model(), QUERY: changed(model()[QUERY], seed=step)}


def tip(repo: Repo, branch: str) -> list[str]:
    return repo.git("ls-tree", "-r", "--name-only", branch, "out").split()


def subjects(repo: Repo, branch: str) -> list[str]:
    return repo.git("log", "--format=%s", f"main..{branch}").splitlines()


class State:
    """What has a `state_dict`, of arrays that change in place as a training goes on."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def state_dict(self) -> dict[str, np.ndarray]:
        return self.arrays


def documented(repo: Repo) -> tuple[list[str], str, list[str]]:
    """Of the how-to: what is typed first, the loop, and what is typed to look at it."""
    text = (ROOT / "docs/training-runs.md").read_text("utf-8").partition("## What is kept")[0]
    before, loop, after = re.split(r"```python\n|```\n", text)
    typed = [re.findall(r"^    ((?:git|echo) .*)$", one, re.MULTILINE) for one in (before, after)]
    return typed[0], loop, typed[1]


def type_in(repo: Repo, lines: list[str]) -> list[str]:
    said = []
    for line in lines:
        words = shlex.split(line)
        if words[:2] == ["git", "theta"]:
            said.append(repo.theta(*words[2:]))
        else:
            said.append(repo.run("sh", "-c", line).stdout.decode())
    return said


def test_the_how_to_beside_the_users_work(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    before, loop, after = documented(repo)
    assert (len(before), len(after)) == (4, 4)
    type_in(repo, before)
    repo.write("staged.txt", b"by the user")
    repo.git("add", "staged.txt")
    main, index = repo.git("rev-parse", "main"), (repo.path / ".git/index").read_bytes()
    lock = repo.path / ".git/index.lock"
    lock.write_bytes(b"")  # the user's git is at work, all the time
    out = repo.path / "out/lr-3e-4"
    model, optimizer = State(weights(0)), State({"m": np.zeros(5, np.float32)})
    losses = {10: 3.0, 20: 1.0, 30: 2.0, 40: np.float32(2.5)}

    def train(model: State, optimizer: State, batch: int) -> object:
        np.copyto(model.arrays[QUERY], weights(batch)[QUERY])
        optimizer.arrays["m"][:] = batch
        return losses.get(batch)

    monkeypatch.chdir(repo.path)
    names = {"train": train, "model": model, "optimizer": optimizer, "batches": range(1, 41)}
    exec(compile(loop, "training-runs.md", "exec"), names)
    lock.unlink()
    branch = "runs/lr-3e-4"
    files = (MODEL, "optimizer.pt", "state.json")
    assert tip(repo, branch) == [
        f"out/lr-3e-4/checkpoint-{step}/{name}" for step in (20, 30, 40) for name in files
    ]
    assert sorted(one.name for one in out.iterdir()) == [f"checkpoint-{n}" for n in (20, 30, 40)]
    assert json.loads((out / "checkpoint-40/state.json").read_bytes()) == {"step": 40}
    for step, back in ((10, 3), (40, 0)):
        place = f"{branch}~{back}:out/lr-3e-4/checkpoint-{step}"
        found = theta.open(f"{place}/{MODEL}", repository=repo.path)
        assert np.array_equal(found[QUERY], weights(step)[QUERY])
        moments = theta.open(f"{place}/optimizer.pt", repository=repo.path)
        assert np.array_equal(moments["m"], np.full(5, step, np.float32))
    # Nothing of the user's has changed, and the hidden work tree is gone.
    assert (repo.path / ".git/index").read_bytes() == index
    assert repo.git("rev-parse", "main") == main
    assert repo.status() == "A  staged.txt\n"
    assert repo.git("worktree", "list").count("\n") == 1
    assert list((repo.path / ".git/theta/runs").glob("*/")) == []
    log, scores, _, _ = type_in(repo, after)
    assert log.splitlines()[0].endswith("step 40, loss 2.5")
    assert "training/loss" in scores
    assert [row.split()[2] for row in scores.splitlines()[1:2]] == ["2.5†"]

    # It goes on, and is squashed: only what another branch has keeps its history.
    repo.git("branch", "published", f"{branch}~3")
    repo.git("worktree", "add", "-q", "--detach", str(repo.path / ".git/other"), f"{branch}~2")
    more = {"keep": "best:1,last:1", "metric": "loss", "prefix": "x"}
    with Run(out, squash=True, **more) as run:
        assert run.steps == [20, 30, 40]
        run.save(50, {MODEL: weights(50)}, {"loss": 0.5})
        with pytest.raises(UsageError, match=f"another process trains on the branch {branch}"):
            Run(out)
        assert branch in repo.git("worktree", "list")
        run.save(60, {MODEL: weights(60)}, {"loss": 0.75, "s": "text"})
    assert repo.git("rev-parse", branch).strip() == run.last
    assert subjects(repo, branch) == [
        "x: step 60, loss 0.75", "x: step 50, loss 0.5", "step 20, loss 1", "step 10, loss 3",
    ]  # fmt: skip
    assert {one.split("/")[2] for one in tip(repo, branch)} == {"checkpoint-50", "checkpoint-60"}
    assert repo.git("reflog", branch).count("step 30") == 0
    # Each is stored on its own, so that nothing of what is let go stays for its sake.
    kept = theta.open(f"{branch}:out/lr-3e-4/checkpoint-60/{MODEL}", repository=repo.path)
    assert [ref.kind for block in kept.entry(QUERY).blocks for ref in block.chain] == ["dense"]
    author = repo.git("log", "-1", "--format=%an <%ae> %ad", f"{branch}~1").strip()
    assert author == "Ada <ada@example.org> Mon Jan 1 00:00:00 2024 +0000"
    repo.theta("fsck")


@pytest.mark.filterwarnings("ignore:.*fork")
def test_errors_are_raised_and_nothing_waits_in_a_queue(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = repo.path / "out/b"
    with pytest.raises(UsageError, match="every save takes the place of the one before"):
        Run(out, name="latest", keep="last:2")
    with pytest.raises(UsageError, match="is not in a folder of the work tree"):
        Run(repo.path)
    with pytest.raises(UsageError, match="is no name for a branch"):
        Run(out, branch="a..b")
    with pytest.raises(RepositoryError, match="main"):
        Run(out, branch="main")
    with pytest.raises(UsageError, match="choose one"):
        Run(out, keep="last:1", squash=True, push="origin")
    filter_command = repo.git("config", "filter.theta.process").strip()
    repo.git("config", "filter.theta.process", "")
    with pytest.raises(UsageError, match="git-theta is not set up here"):
        Run(out)
    repo.git("config", "filter.theta.process", filter_command)
    run = Run(out, busy="skip")
    may_end, record = threading.Event(), run._branch.record

    def slow(*arguments: object) -> list[str]:
        may_end.wait(30)
        return record(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run._branch, "record", slow)
    assert run.save(1, {MODEL: weights(1)})
    assert not run.save(2, {MODEL: weights(2)})
    may_end.set()
    run.wait()
    if hasattr(os, "fork"):  # as a loader of data does; its end is not that of the run
        there, here = os.pipe()
        loader = os.fork()
        if not loader:
            run._branch._tree.close()
            os.write(here, b"closed")
            time.sleep(60)
            os._exit(0)
        assert os.read(there, 6) == b"closed"
        assert repo.git("worktree", "list").count("\n") == 2
    with pytest.raises(UsageError, match="a step is a whole number"):
        run.save(2.7, {"a.txt": ""})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'a' is str"):
        run.save(3, {MODEL: {"a": "text"}})
    # Files that others write to meanwhile are not committed in part.
    place = out / "checkpoint-4"
    place.mkdir()
    (place / MODEL).write_bytes(safetensors(weights(4)))
    may_end.clear()
    assert run.commit(place, 4)
    with (place / MODEL).open("ab") as file:
        file.write(b"more")
    may_end.set()
    with pytest.raises(ChangedWhileReadError, match="checkpoint-4"):
        run.wait()
    assert run.commit(place, 5)
    (place / MODEL).unlink()
    run.finish()
    with Run(repo.path / "out/e", start="runs/b") as other:
        assert other.steps == []
    with Run(out) as again:
        assert again.steps == [1, 5]
    if hasattr(os, "fork"):
        os.kill(loader, signal.SIGKILL)
        os.waitpid(loader, 0)
    assert subjects(repo, "runs/b") == ["step 5", "step 1"]
    assert not run.save(6, {MODEL: weights(6)})


def test_a_large_file_that_is_not_tracked(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_tree, "LARGEST_BLOB", 100)
    out, large = repo.path / "out/f", {"large.txt": "text" * 100}
    run = Run(out)
    run.save(1, large)
    with pytest.raises(UsageError, match=r"large\.txt .* is not tracked") as error:
        run.finish()
    assert (
        error.value.hint == "git theta track PATTERN, commit .gitattributes, then start a new run"
    )
    assert subjects(repo, "runs/f") == []
    repo.theta("track", "*.txt")
    repo.git("add", ".gitattributes")
    repo.git("commit", "-q", "-m", "Track")
    with Run(out) as run:
        run.save(1, large)
    assert subjects(repo, "runs/f") == ["step 1"]
    assert repo.git("show", "runs/f:out/f/checkpoint-1/large.txt").startswith("git-theta")


DROPPED = """
import os, numpy as np
import git_theta_ext as theta
run = theta.Run("out/k", keep="last:2")
for step in (1, 2, 3):
    run.save(step, {"model.safetensors": {"w": np.full((8, 8), step, "f4")}})
run.wait()
os.makedirs("out/k/checkpoint-0/by-hand")
run._opened.record = lambda *_: os._exit(9)
run.save(4, {"model.safetensors": {"w": np.zeros((8, 8), "f4")}})
run.wait()
"""


def test_what_a_killed_training_has_saved_goes_when_it_is_not_kept(repo: Repo) -> None:
    """Committed or not; what others have put there stays."""
    repo.run(sys.executable, "-c", DROPPED, ok=(9,))
    out = repo.path / "out/k"
    assert sorted(one.name[-1] for one in out.iterdir()) == ["0", "2", "3", "4"]
    with Run(out, keep="last:2") as run:
        assert run.steps == [2, 3]
        assert sorted(one.name[-1] for one in out.iterdir()) == ["0", "2", "3", "4"]
        run.save(5, {MODEL: {"w": np.ones((8, 8), "f4")}})
    assert sorted(one.name[-1] for one in out.iterdir()) == ["0", "3", "5"]


KILLED = """
import sys, numpy as np
import git_theta_ext as theta
run = theta.Run("out/c", name="latest")
for step in range(1, 50):
    run.save(step, {"model.safetensors": {"w": np.full((64, 64), step, "f4")}})
    print(step, flush=True)
"""


def test_a_killed_training_leaves_whole_commits(repo: Repo) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=repo.path, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    while process.stdout.readline() != "3\n":
        pass
    time.sleep(0.05)
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    process.stdout.close()
    repo.git("fsck", "--strict")
    (hidden,) = (repo.path / ".git/theta/runs").glob("*/")
    (hidden / ".git").unlink()  # as if it had been killed while that was made
    last = len(subjects(repo, "runs/c"))
    assert last >= 2
    found = theta.open(f"runs/c:out/c/latest/{MODEL}", repository=repo.path)
    assert np.array_equal(found["w"], np.full((64, 64), last, "f4"))
    with Run(repo.path / "out/d"):  # of another branch: it takes away what the killed one left
        assert repo.git("worktree", "list").count("\n") == 2
    with Run(repo.path / "out/c") as run:
        assert run.steps == [last]
    assert repo.git("worktree", "list").count("\n") == 1
    repo.theta("fsck")
