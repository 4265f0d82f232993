"""Folders that are made whole, or are not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from git_theta_ext.core.errors import StoreError, UsageError
from git_theta_ext.packages.release.folder import whole


def test_what_was_there_stays_until_all_is_there(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with whole(target, force=False) as folder:
        folder.add("a/b", b"new")
        assert list(target.iterdir()) == []
    assert (target / "a/b").read_bytes() == b"new"
    assert folder.written[0].sha256.startswith("11507a0e")
    with pytest.raises(StoreError), whole(target, force=True) as folder:
        folder.add("../c", b"")
    with pytest.raises(UsageError, match="not empty"), whole(target, force=False):
        pass
    with whole(target, force=True) as folder:
        folder.add("c", b"")
    assert [path.name for path in target.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_two_at_once_one_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out"
    first = whole(target, force=False)
    first.__enter__().add("a", b"1")
    with whole(target, force=False) as second:
        second.add("a", b"2")
    with pytest.raises(UsageError, match="not empty"):
        first.__exit__(None, None, None)
    assert (target / "a").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_names_do_not_leave_the_folder_nor_meet(tmp_path: Path) -> None:
    with whole(tmp_path / "out", force=False) as folder:
        folder.add("a", b"")
        for name in ("../x", "a/../../x", ".git/config", "/x", "a"):
            with pytest.raises(StoreError):
                folder.add(name, b"")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "out"]


def test_what_is_no_folder_of_ours_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    repository = tmp_path / "repository"
    (repository / ".git").mkdir(parents=True)
    places = ["file", "repository"]
    if os.name != "nt":
        (tmp_path / "link").symlink_to(repository)
        places.append("link")
    for name in places:
        with pytest.raises((UsageError, StoreError)), whole(tmp_path / name, force=True):
            pass
    assert (tmp_path / "file").read_text() == "x"
    assert (repository / ".git").is_dir()
