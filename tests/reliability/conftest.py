"""These tests make their own environments, as they do outside of pytest, out of this one."""

from __future__ import annotations

import pytest

from tests.scenarios.repositories import Repo


@pytest.fixture(autouse=True)
def started_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Git starts begins where its imports end, unless it is under strace."""
    if Repo.warm is not None:
        monkeypatch.setenv(*Repo.warm.address())
