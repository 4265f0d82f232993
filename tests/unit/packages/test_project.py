"""Where the models of a project are, and where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.packages.locking.project import Project, find
from git_theta_ext.packages.locking.requirements import Requirement


def test_where_a_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the project itself, whatever folder the command is run in."""
    top = tmp_path / "app"
    (top / "inside").mkdir(parents=True)
    (top / "a.bundle").write_bytes(b"# v2 git bundle\n")
    (top / "models.toml").write_bytes(b"")
    monkeypatch.chdir(top / "inside")
    project = Project.read(top)
    far = ["https://host/a/b", "ssh://host/a", "git@host:a/b", str(tmp_path), "file:///elsewhere"]
    for url in far:
        assert project.url(Requirement("m", url)) == url
    assert project.url(Requirement("m", "../base")) == str(tmp_path / "base")
    assert project.url(Requirement("m", "a.bundle")) == str(top / "a.bundle")
    for url in ("inside", ".", "../app", f"file://{top}/inside", f"file://localhost{top}/%69nside"):
        with pytest.raises(UsageError, match="leads into the work tree"):
            project.url(Requirement("m", url))


def test_a_folder_without_models(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no models\.toml here\n"):
        find(tmp_path)
    with pytest.raises(UsageError, match="has no model 'x'"):
        Project(tmp_path, (), {}).named(["x"])
