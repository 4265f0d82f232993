"""The filter answers from memory where that is safe, and never where the bytes may be others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.checkpoints.clean import Cleaner
from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.checkpoints.predecessors import Predecessors
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.where import store_of
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
COUNT = 3 << 20
"""Values of a checkpoint of 12 MiB, which is large enough to be remembered after a checkout."""


def _remembered(repo: Repo) -> bytes | None:
    """What the filter would answer at once for the work-tree file."""
    repository = Repository.discover(repo.path)
    memo = Memo(store_of(repository).root / "memo")
    cleaner = Cleaner(Blocks.open(repository), Predecessors(repository), memo)
    with FileSource(repo.path / NAME) as source:
        return cleaner.remembered(NAME, source)


def _versions(repo: Repo) -> None:
    values = np.arange(COUNT, dtype=np.float32)
    repo.write(NAME, safetensors({"w": values}))
    repo.commit("first")
    values[5] = -1
    repo.write(NAME, safetensors({"w": values}))
    repo.commit("second")


def _forget(repo: Repo) -> None:
    for path in (repo.path / ".git/theta/memo").iterdir():
        path.unlink()


@pytest.fixture
def checked_out(repo: Repo) -> Repo:
    """A repository that has just checked out its first version; all else is forgotten."""
    _versions(repo)
    _forget(repo)
    repo.git("checkout", "-q", "HEAD~1")
    return repo


def test_a_checkout_is_remembered(checked_out: Repo) -> None:
    assert _remembered(checked_out) == checked_out.blob(f"HEAD:{NAME}")


def test_a_file_written_since_is_not(checked_out: Repo) -> None:
    path = checked_out.path / NAME
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x01\x02\x03\x04")
    # Even with its old times: the inode's change time gives it away.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _remembered(checked_out) is None
    assert checked_out.status() == f" M {NAME}\n"


def test_one_whose_objects_are_gone_is_not(checked_out: Repo) -> None:
    objects = checked_out.path / ".git/theta/objects"
    for path in [path for path in objects.rglob("*") if path.is_file()]:
        path.unlink()
    assert _remembered(checked_out) is None


def test_a_new_index_asks_anew(checked_out: Repo) -> None:
    checked_out.write("other.safetensors", safetensors({"v": np.arange(99, dtype=np.float32)}))
    checked_out.git("add", "other.safetensors")
    assert _remembered(checked_out) is None
    assert checked_out.status() == "A  other.safetensors\n"


def test_a_diff_does_not_pass_for_a_checkout(repo: Repo) -> None:
    _versions(repo)
    _forget(repo)
    # Smudges the first version into a temporary file, while the work tree holds the second.
    repo.git("-c", "diff.theta.command=true", "diff", "HEAD~1", "HEAD")
    repo.git("cat-file", "--filters", f"HEAD~1:{NAME}", env={"PAGER": "cat"}, ok=(0,))
    found = _remembered(repo)
    assert found is None or found == repo.blob(f"HEAD:{NAME}")


def test_a_file_as_young_as_the_clock_is_not_remembered(repo: Repo, tmp_path: Path) -> None:
    repo.write(NAME, safetensors({"w": np.arange(50, dtype=np.float32)}))
    repository = Repository.discover(repo.path)
    cleaner = Cleaner(Blocks.open(repository), Predecessors(repository), Memo(tmp_path / "memo"))
    path = repo.path / NAME
    future = time.time_ns() + 10**12
    os.utime(path, ns=(future, future))
    with FileSource(path) as source:
        cleaner.remember(NAME, source, b"answer")
        assert cleaner.remembered(NAME, source) is None
