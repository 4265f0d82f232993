"""docs/tutorials/packages.md as it stands: an update arrives where it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.scenarios.lessons import play
from tests.scenarios.repositories import Repo
from tests.scenarios.suggestions import ROOT


def test_an_update_arrives(new_repo: Callable[..., Repo]) -> None:
    top = Repo(new_repo("empty", install=False).path)
    said = play(ROOT / "docs/tutorials/packages.md", top)
    assert "@vision-team" in said["git -C base theta modules model.safetensors"]
    blame = said["git theta blame model.safetensors"]
    assert re.search(r"vision_tower.proj.weight.*vision@main", blame), blame
    assert re.search(r"text.0.weight.*base@v1.0", blame), blame
    assert re.search(r"tower +v1.0.0 +v1.1.0", said["git theta outdated"])
    moved = said["git theta update tower"]
    assert "tower: v1.0.0 → v1.1.0" in moved
    assert "1 of 2 tensors changed" in moved
    assert "1 of 5 tensors changed" in said["git theta diff HEAD~1 HEAD --stat"]
    older = Repo(top.path / "vision").run(
        "git", "cat-file", "--filters", "v1.0.0:tower.safetensors"
    )
    assert (top.path / "product/tower/tower.safetensors").read_bytes() == older.stdout
