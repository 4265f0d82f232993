"""`git status` asks whether a checkpoint has changed: it is told, and nothing is stored for it."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.checkpoints.clean import Cleaner
from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.checkpoints.predecessors import Predecessors, Unlike
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.where import store_of
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo

NAME = "m.safetensors"
SIZE = 300_000
"""Values of a tensor whose file is large enough for answers about it to be kept."""


_TIMES = itertools.count()


def checkpoint(second: float, names: tuple[str, ...] = ("a", "b")) -> bytes:
    values = np.random.default_rng(0).normal(0, 1, SIZE).astype(np.float32)
    return safetensors({name: values + (name == "b") * np.float32(second) for name in names})


def stored(repo: Repo) -> set[Path]:
    return {path for path in (repo.path / ".git/theta/objects").rglob("*") if path.is_file()}


def write(repo: Repo, data: bytes) -> None:
    """Write the file, of another time each time, and long ago: an answer about it may be kept."""
    past = 1_700_000_000.5 + next(_TIMES)
    os.utime(repo.write(NAME, data), (past, past))


@pytest.fixture
def committed(repo: Repo) -> Repo:
    write(repo, checkpoint(0))
    repo.commit()
    return repo


@pytest.mark.parametrize(
    "changed",
    [checkpoint(1), checkpoint(0, ("a",)), checkpoint(0, ("a", "b", "c")), b"no checkpoint" * 9999],
    ids=["values", "fewer", "more", "other"],
)
def test_a_change_is_seen_and_not_stored(committed: Repo, changed: bytes) -> None:
    before = stored(committed)
    write(committed, changed)
    assert committed.status() == f" M {NAME}\n"
    assert committed.git("--no-optional-locks", "status", "-sb", "-uno").endswith(f" M {NAME}\n")
    assert stored(committed) == before
    committed.commit()
    assert stored(committed) > before
    assert committed.status() == ""
    (committed.path / NAME).unlink()
    committed.git("checkout", "--", NAME)
    assert (committed.path / NAME).read_bytes() == changed


def test_no_change_is_no_change(committed: Repo) -> None:
    write(committed, checkpoint(0))
    assert committed.status() == ""
    write(committed, checkpoint(1))
    committed.git("add", NAME)
    write(committed, checkpoint(0))  # as in HEAD, but not as in the index
    assert committed.status() == f"MM {NAME}\n"
    write(committed, checkpoint(1))
    assert committed.status() == f"M  {NAME}\n"


def test_a_large_file_that_has_changed_is_looked_through_once(
    committed: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(committed, checkpoint(1))
    time.sleep(0.1)  # what is newer could change unnoticed
    repository = Repository.discover(committed.path)
    memo = Memo(store_of(repository).root / "memo")
    predecessors = Predecessors(repository, only_asked=True)
    cleaner = Cleaner(Blocks.open(repository), predecessors, memo)
    with FileSource(committed.path / NAME) as source:
        with pytest.raises(Unlike):
            cleaner.clean(NAME, source)
        assert cleaner.remembered(NAME, source) is None  # it is no answer to any other question
        monkeypatch.setattr(Cleaner, "_clean", None)
        with pytest.raises(Unlike):
            cleaner.clean(NAME, source)


def test_what_it_would_be_an_update_of_is_not_fetched(committed: Repo) -> None:
    """Which takes the network, and fails where there is none."""
    shutil.rmtree(committed.path / ".git/theta/objects")
    write(committed, checkpoint(1))
    assert committed.status() == f" M {NAME}\n"
    assert b"could not be fetched" in committed.run("git", "add", NAME, ok=(128,)).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("commit", "-q", "-a", "-m", "status"),
        ("-c", "alias.st=commit -q -a -m status", "st"),
        ("stash", "push", "-q", "-m", "status"),
    ],
)
def test_who_keeps_the_answer_gets_another(committed: Repo, words: tuple[str, ...]) -> None:
    write(committed, checkpoint(1))
    assert committed.status() == f" M {NAME}\n"
    committed.git(*words)
    committed.git("checkout", "-q", "stash@{0}" if "stash" in words else "HEAD", "--", NAME)
    assert (committed.path / NAME).read_bytes() == checkpoint(1)


def test_what_was_changed_is_shown_to_who_asks_for_it(committed: Repo) -> None:
    write(committed, checkpoint(1))
    committed.git("status")
    committed.git("config", "--unset", "diff.theta.command")
    said = committed.git("status", "-v", "-v")
    assert "+  F32 [300000]" in said
    assert "git-theta:" not in said
