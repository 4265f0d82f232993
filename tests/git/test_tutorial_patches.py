"""docs/tutorials/patches.md as it stands: its files are written, its commands run in order."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from tests.scenarios.repositories import Repo
from tests.scenarios.suggestions import ROOT

DOCUMENT = ROOT / "docs/tutorials/patches.md"
_FILE = re.compile(r"^`([\w.]+)` [^`]*?\n\n```python\n(.*?)```", re.M | re.S)


def test_updates_travel_by_file(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo("project", install=False)
    text = DOCUMENT.read_text("utf-8")
    made = dict(_FILE.findall(text))
    assert set(made) == {"data.py", "train.py", "score.py"}
    for name, content in made.items():
        repo.write(name, content.encode())
    plain = re.sub(r"```.*?```", "", text, flags=re.S)
    scores: list[dict[str, float]] = []
    said: dict[str, str] = {}
    for command in re.findall(r"^    ((?:git|python|cd) .*)$", plain, re.M):
        if command.startswith("cd "):
            repo = Repo(repo.path.parent / os.path.basename(command))
            continue
        done = repo.run("sh", "-c", command)
        said.setdefault(command, (done.stdout + done.stderr).decode())
        if command == "python score.py":
            rows = (line.split() for line in done.stdout.decode().splitlines())
            scores.append({key: float(value) for key, value in rows})
    first, moved_on, arms, both, half = scores
    assert arms["arm"] > moved_on["arm"] + 0.05
    assert both["ring"] > arms["ring"] + 0.02
    assert both["arm"] > moved_on["arm"]
    assert half != both
    assert first["arm"] < moved_on["arm"]
    assert "applied on top of HEAD" in said["git theta am ../arms.patch"]
    assert "3 of 4 tensors changed" in said["git theta show ../arms.patch"]
    assert "to the byte" in said["git theta apply -R ../rings.eml"]
    sent = repo.path.parent / "ada"
    assert repo.git("rev-parse", "HEAD") == Repo(sent).git("rev-parse", "arms")
