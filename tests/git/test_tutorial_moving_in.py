"""docs/tutorials/moving-in.md as it stands: nothing is lost on the way in and out."""

from __future__ import annotations

from pathlib import Path

from tests.scenarios.lessons import play
from tests.scenarios.repositories import Repo
from tests.scenarios.suggestions import ROOT


def test_a_team_moves_in_and_out(tmp_path: Path, sealed: Path) -> None:
    (tmp_path / "project").mkdir()
    repo = Repo(tmp_path / "project")
    said = play(ROOT / "docs/tutorials/moving-in.md", repo)
    assert "3 versions to move" in said["git theta migrate import --everything --dry-run"]
    assert said["git status --short"] == ""
    assert said["git show head-lfs:model.safetensors"].startswith("version https://git-lfs")
    moved = (tmp_path / "moved.csv").read_text().splitlines()
    assert len(moved) == 3
    assert said["git rev-parse v1.0"].strip() in {line.split(",")[0] for line in moved}
    assert "A better head" in repo.git("log", "-1")
    assert repo.blob("HEAD:model.safetensors").startswith(b"version https://git-lfs")
    assert repo.status() == ""
