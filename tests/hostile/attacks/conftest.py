"""Pull requests, and the host that they are made at."""

from __future__ import annotations

from tests.scenarios.pull_requests import github, pull

__all__ = ["github", "pull"]
