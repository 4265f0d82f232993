"""A few kill points and failing calls in every test run; all of them: see `tracing.py`."""

from __future__ import annotations

import shutil

import pytest

from tests.reliability.kills import choose
from tests.reliability.tracing import COMMANDS, Laboratory, Point


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    assert shutil.which("strace"), "strace is not installed; .ci/run installs it"
    return Laboratory(tmp_path_factory.mktemp("kills") / "laboratory")


@pytest.mark.parametrize(("name", "fault"), [("add", "signal=KILL"), ("theta pull", "error=EIO")])
def test_nothing_is_lost(laboratory: Laboratory, name: str, fault: str) -> None:
    (command,) = (one for one in COMMANDS if one.name == name)
    points = [point for point in laboratory.points(command) if point.process == "ours"]
    assert {"write", "rename", "fsync"} <= {point.call for point in points}
    for point in choose(points, 0.06):
        assert laboratory.meet(point, fault) is None


def test_a_reply_to_git_that_cannot_be_written_does_not_hang(laboratory: Laboratory) -> None:
    (checkout,) = (one for one in COMMANDS if one.name == "checkout")
    assert laboratory.meet(Point(checkout, "ours", "write", 4), "error=ENOSPC") is None


def test_a_lost_version_is_noticed(laboratory: Laboratory) -> None:
    folder = laboratory.copy("run")
    at_host = {path.name for path in (folder / "host.git/lfs/objects").rglob("*")}
    objects = (folder / "edited/.git/theta/objects").glob("??/??/*")
    next(path for path in objects if path.name not in at_host).unlink()
    (add,) = (one for one in COMMANDS if one.name == "add")
    with pytest.raises(AssertionError):
        laboratory._check(add, folder)
