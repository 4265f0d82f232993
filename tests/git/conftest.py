"""Repositories with branches to merge."""

from __future__ import annotations

import pytest

from tests.scenarios.diverged import APART, BASE, OURS, THEIRS
from tests.scenarios.merges import branches, st
from tests.scenarios.pull_requests import github, pull
from tests.scenarios.repositories import Repo

__all__ = ["github", "pull"]


@pytest.fixture
def collided(repo: Repo) -> Repo:
    """Branches `main` and `side` that changed the same tensor."""
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, THEIRS))
    return repo


@pytest.fixture
def apart(repo: Repo) -> Repo:
    """Branches `main` and `side` that changed different tensors."""
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, APART))
    return repo
