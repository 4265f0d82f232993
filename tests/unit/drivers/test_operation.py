"""What Git is doing when it starts the merge driver, from what it leaves to be seen."""

from __future__ import annotations

import pytest

from git_theta_ext.drivers import operation as module
from git_theta_ext.drivers.operation import merged_head, operation
from git_theta_ext.git.ancestry import command_of
from git_theta_ext.git.repository import Repository
from tests.scenarios.repositories import Repo


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, repo: Repo) -> Repository:
    monkeypatch.setattr(module, "git_command", lambda: None)
    return Repository.discover(repo.path)


def test_nothing_known_is_a_merge(repository: Repository) -> None:
    assert operation(repository, {}) == "merge"


@pytest.mark.parametrize("action", ["cherry-pick", "revert", "rebase (pick)", "rebase -i", "am"])
def test_gits_name_for_the_action(repository: Repository, action: str) -> None:
    assert operation(repository, {"GIT_REFLOG_ACTION": action}) == "rebase"


@pytest.mark.parametrize("name", ["rebase-merge", "rebase-apply", "CHERRY_PICK_HEAD"])
def test_what_git_leaves_in_its_folder(repository: Repository, name: str) -> None:
    (repository.git_dir / name).mkdir()
    assert operation(repository, {}) == "rebase"
    # A merge that is made while a rebase has stopped is a merge.
    assert operation(repository, {"GITHEAD_" + "a" * 40: "side"}) == "merge"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["git", "cherry-pick", "x"], "cherry-pick"),
        (["/usr/bin/git", "-C", "rebase", "-c", "a=b", "--no-pager", "merge", "x"], "merge"),
        (["git"], ""),
        ([], ""),
    ],
)
def test_the_command_is_found_behind_options(command: list[str], expected: str) -> None:
    assert next(iter(command_of(command)), "") == expected


def test_the_command_that_started_the_driver(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "git_command", lambda: ["git", "revert", "HEAD"])
    assert operation(repository, {}) == "rebase"


def test_a_stash_is_popped_as_a_merge_even_in_a_rebase(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository.git_dir / "rebase-merge").mkdir()
    monkeypatch.setattr(module, "git_command", lambda: ["git", "stash", "pop"])
    assert operation(repository, {}) == "merge"


def test_the_merged_head_is_the_one_that_is_not_ours(repository: Repository) -> None:
    own, other = repository.resolve("HEAD"), "b" * 40
    environment = {f"GITHEAD_{own}": "HEAD", f"GITHEAD_{other}": "side"}
    assert merged_head(repository, environment) == other
    assert merged_head(repository, {}) is None
    assert merged_head(repository, {**environment, "GITHEAD_" + "c" * 40: "third"}) is None
