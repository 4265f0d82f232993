"""One job at a time, Git's locks, and copies of a state."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import OrderedDict

import numpy as np
import pytest

from git_theta_ext.api.runs.snapshot import Snapshots
from git_theta_ext.api.runs.worker import Worker
from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.git.patience import patiently


def test_one_job_at_a_time() -> None:
    worker, done, may_end = Worker("it"), [], threading.Event()
    worker.start(lambda: (may_end.wait(10), done.append(1)))
    assert worker.busy
    threading.Timer(0.02, may_end.set).start()
    worker.start(lambda: done.append(2))
    assert done[0] == 1
    worker.wait()
    assert (done, worker.busy) == ([1, 2], False)


def test_an_error_is_raised_once() -> None:
    worker = Worker("it")
    worker.start(lambda: 1 / 0)
    worker.join()
    with pytest.raises(ZeroDivisionError):
        worker.check()
    worker.wait()


def test_an_error_that_nobody_asked_for_is_said_at_the_end() -> None:
    code = (
        "from git_theta_ext.api.runs.worker import Worker\n"
        "worker = Worker('the run x')\nworker.start(lambda: 1 / 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the run x: division by zero" in done.stderr


def test_a_lock_of_git_is_waited_for() -> None:
    now, waited = [0.0], 3

    def command() -> str:
        if now[0] < waited:
            raise RepositoryError("git add failed: Unable to create '/x/.git/index.lock': exists")
        return "done"

    def sleep(seconds: float) -> None:
        now[0] += seconds

    assert patiently(command, sleep=sleep, clock=lambda: now[0]) == "done"
    assert 3 <= now[0] < 6
    now[0], waited = 0.0, 1000
    with pytest.raises(
        RepositoryError, match=r"tried for 60 seconds[\s\S]*remove that \.lock file"
    ):
        patiently(command, sleep=sleep, clock=lambda: now[0])
    assert 60 <= now[0] < 63

    def other() -> None:
        raise RepositoryError("git add failed: fatal: no")

    with pytest.raises(RepositoryError, match="fatal: no"):
        patiently(other, sleep=sleep)


def test_a_snapshot_is_a_copy_in_the_memory_of_the_one_before() -> None:
    weight = np.arange(6.0).reshape(2, 3)
    state = OrderedDict(a=weight, tied=weight, rest=[1, (weight.T, "x")], other={1, 2})
    snapshots = Snapshots()
    first = snapshots.take(state)
    assert type(first) is OrderedDict
    assert first["a"] is first["tied"]
    assert first["other"] is not state["other"]
    weight += 1
    assert first["a"][0, 1] == 1
    assert first["rest"][1][1] == "x"
    second = snapshots.take(state)
    assert second["a"] is first["a"]
    assert np.array_equal(second["a"], weight)
    assert second["rest"][1][0].strides == weight.T.strides
    state["a"] = np.zeros((4, 4), np.float32)
    third = snapshots.take(state)
    assert third["a"].shape == (4, 4)
    assert np.array_equal(third["tied"], weight)
    snapshots.clear()
    assert snapshots.take(state)["a"] is not third["a"]
