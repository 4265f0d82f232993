"""Sizes as people write them for the cache."""

from __future__ import annotations

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.packages.trimming import size_named


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("500 MB", 500_000_000), ("50g", 50_000_000_000), ("1.5kB", 1500)],
)  # fmt: skip
def test_what_is_a_size(text: str, count: int) -> None:
    assert size_named(text, "--limit") == count


@pytest.mark.parametrize("text", ["", "-1", "many", "1e9", "5 x", "1,000", "2 GiB"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="--limit"):
        size_named(text, "--limit")
