"""A file from elsewhere gets its place in a folder: moved, or copied from another file system."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError
from git_theta_ext.git.work_tree import WorkTree


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "made"
    path.write_bytes(b"new")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("far", [False, True], ids=["here", "on another file system"])
def test_it_takes_the_place(
    made: Path, tmp_path: Path, far: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if far:
        monkeypatch.setattr(files, "move", refuse)
    top = tmp_path / "top"
    (top / "a").mkdir(parents=True)
    (top / "a/file").symlink_to(tmp_path / "untouched")
    WorkTree(top).take(made, "a/file")
    assert not (top / "a/file").is_symlink()
    assert (top / "a/file").read_bytes() == b"new"
    assert os.name == "nt" or (top / "a/file").stat().st_mode & 0o777 == 0o755
    assert not made.exists()
    assert [one.name for one in (top / "a").iterdir()] == ["file"]


def test_no_place_behind_a_link(made: Path, tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "top/a").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="symbolic link"):
        WorkTree(tmp_path / "top").take(made, "a/file")
    assert made.read_bytes() == b"new"
