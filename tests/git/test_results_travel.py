"""Results of evaluations go where commits go, and nobody's are lost when two people push."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.evaluation import travel
from git_theta_ext.evaluation.content import content_of
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.ref_names import REF
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME
from tests.scenarios.merges import st
from tests.scenarios.repositories import Repo
from tests.scenarios.warm import PREFIX


def imported(repo: Repo, value: float) -> None:
    path = repo.path.parent / f"{value}.json"
    path.write_text(json.dumps({"rte": {"acc": value}}))
    repo.theta("evaluate", "--evaluation", "glue", "--import", str(path))


def values(repo: Repo) -> list[float]:
    """The scores of HEAD that this clone knows."""
    content = content_of([parse_manifest(repo.blob(f"HEAD:{NAME}"))])
    found = Kept(Repository.discover(repo.path)).of([content]).get(content, ())
    return sorted(score.value for result in found for score in result.scores)


@pytest.fixture
def pair(repo: Repo, tmp_path: Path) -> tuple[Repo, Repo]:
    """Two clones of one repository, whose hooks run."""
    remote = tmp_path / "remote.git"
    repo.git("init", "-q", "--bare", str(remote))
    repo.write(NAME, st({"w": np.full(300, 1, np.float32)}))
    repo.commit("a model")
    repo.git("remote", "add", "origin", str(remote))
    repo.git("push", "-q", "-u", "origin", "main")
    repo.git("clone", "-q", str(remote), str(tmp_path / "other"))
    other = Repo(tmp_path / "other")
    other.theta("install", "--local")
    return repo, other


def test_plain_push_and_fetch_carry_them(pair: tuple[Repo, Repo]) -> None:
    ours, theirs = pair
    imported(ours, 0.5)
    imported(theirs, 0.75)
    # No commit to push: the hook sends the results all the same, and then Git knows the way.
    said = ours.run("git", "push", "origin", "main").stderr.decode()
    assert "results of evaluations sent to origin; git fetch brings those of others" in said
    assert values(theirs) == [0.75]
    theirs.git("commit", "-q", "--allow-empty", "-m", "more")
    said = theirs.run("git", "push", "origin", "main").stderr.decode()
    assert "results of evaluations sent to origin" in said
    assert values(theirs) == [0.5, 0.75]  # united with what the other had pushed
    assert values(ours) == [0.5]
    ours.git("pull", "-q")
    assert values(ours) == [0.5, 0.75]
    # Nothing new: nothing is asked of the remote, nothing said.
    said = ours.run("git", "push", "origin", "main").stderr.decode()
    assert "results" not in said
    # Both at once again, and ours wins the race: the union is pushed by who comes second.
    imported(ours, 0.25)
    imported(theirs, 0.125)
    assert "Sent results of evaluations" in ours.theta("push")
    assert "Sent results of evaluations" in theirs.theta("push")
    assert "Fetched results of evaluations" in ours.theta("fetch")
    assert values(ours) == values(theirs) == [0.125, 0.25, 0.5, 0.75]


def test_a_new_clone_and_a_remote_that_lost_them(pair: tuple[Repo, Repo], tmp_path: Path) -> None:
    ours, theirs = pair
    imported(ours, 0.5)
    ours.git("push", "-q", "origin", "main")
    said = theirs.run(*PREFIX, "fetch").stderr.decode()
    assert "origin has results of evaluations; git fetch brings them, too, from now on" in said
    assert values(theirs) == [0.5]
    # Somebody made the ref anew: what was fetched stays.
    theirs.git("push", "-q", "origin", f":{REF}")
    imported(theirs, 0.75)
    theirs.git("update-ref", "-d", "refs/theta/remotes/origin/evaluations")
    theirs.git("push", "-q", "origin", "main")
    ours.theta("fetch")
    assert values(ours) == [0.5, 0.75]
    # Switched off, they stay here.
    imported(ours, 0.25)
    ours.git("config", travel.SETTING, "false")
    assert b"results" not in ours.run("git", "push", "origin", "main").stderr
    theirs.git("fetch", "-q")
    assert values(theirs) == [0.75]
    # A remote that does not answer stops neither what is here nor a push.
    ours.git("config", "--unset", travel.SETTING)
    ours.git("remote", "set-url", "origin", str(tmp_path / "gone"))
    assert b"results of evaluations were not fetched" in ours.run(*PREFIX, "fetch").stderr


def test_a_remote_that_refuses_them_stops_no_push(pair: tuple[Repo, Repo]) -> None:
    ours, _ = pair
    hook = ours.path.parent / "remote.git" / "hooks" / "update"
    hook.write_text(f'#!/bin/sh\ntest "$1" != {REF}\n')
    hook.chmod(0o755)
    imported(ours, 0.5)
    ours.git("commit", "-q", "--allow-empty", "-m", "more")
    said = ours.run("git", "push", "origin", "main").stderr.decode()
    assert "warning: results of evaluations were not sent" in said
    assert ours.git("rev-parse", "origin/main") == ours.git("rev-parse", "main")
    ours.run(*PREFIX, "push", ok=(10,))
    do(ours, only(said, "git config"))
    assert "results" not in ours.theta("push")
