"""docs/tutorials/moving-in.md as it stands: its file is written, its commands run in order."""

from __future__ import annotations

import re
from pathlib import Path

from tests.scenarios.repositories import Repo
from tests.scenarios.suggestions import ROOT

DOCUMENT = ROOT / "docs/tutorials/moving-in.md"


def test_a_team_moves_in_and_out(tmp_path: Path, sealed: Path) -> None:
    (tmp_path / "project").mkdir()
    repo = Repo(tmp_path / "project")
    text = DOCUMENT.read_text("utf-8")
    ((name, content),) = re.findall(r"`([\w.]+)` [^`]*?\n\n```python\n(.*?)```", text, re.S)
    repo.write(name, content.encode())
    plain = re.sub(r"```.*?```", "", text, flags=re.S)
    said: dict[str, str] = {}
    before = ""
    for command in re.findall(r"^    ((?:git|python) .*)$", plain, re.M):
        if command == "git theta migrate info":
            before = repo.git("rev-parse", "v1.0")
        done = repo.run("sh", "-c", command)
        said[command] = (done.stdout + done.stderr).decode()
    assert "3 versions of 1 file" in said["git theta migrate info"]
    assert "3 versions to move" in said["git theta migrate import --everything --dry-run"]
    assert said["git status --short"] == ""
    assert said["git show head-lfs:model.safetensors"].startswith("version https://git-lfs")
    assert len((tmp_path / "moved.csv").read_text().splitlines()) == 3
    assert said["git rev-parse v1.0"] == before
    assert "A better head" in repo.git("log", "-1")
    assert repo.blob("HEAD:model.safetensors").startswith(b"version https://git-lfs")
    assert repo.status() == ""
