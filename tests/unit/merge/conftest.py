"""A store of its own for each test of merging."""

from __future__ import annotations

from pathlib import Path

import pytest

from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    return Blocks(Store(tmp_path))
