"""The repositories of the cache are as we make them, whatever the user's own are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from git_theta_ext.packages.cache import Cache

URL = "https://example.org/model"


@pytest.mark.parametrize("sha256", [False, True])
def test_references_are_in_files(
    sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sha256: bool
) -> None:
    """From Git 2.45 on there is another kind, which libgit2 does not open."""
    monkeypatch.setenv("GIT_DEFAULT_REF_FORMAT", "reftable")
    cache = Cache(tmp_path / "cache")
    place = cache.repository(URL, sha256=sha256).git_dir
    assert cache.is_whole(URL)
    assert (place / "refs/heads").is_dir()
    assert not (place / "reftable").exists()
