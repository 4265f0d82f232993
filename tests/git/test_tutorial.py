"""docs/tutorials/gate.md as it stands: what the gate decides, and what bisecting finds."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.scenarios.lessons import play
from tests.scenarios.repositories import Repo
from tests.scenarios.suggestions import ROOT


def test_the_gate_decides(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo("empty", install=False)
    said = play(ROOT / "docs/tutorials/gate.md", repo)
    assert "Accepted: 2 judgements" in said["git theta check main...ada"]
    bo = said["git theta check main...bo"]
    assert re.search(r"skills: common/acc .* \+0\.\d+ .* accepted", bo)
    assert re.search(r"skills: rare/acc .* -0\.\d+ .* REFUSED", bo)
    bad = repo.git("rev-parse", "bo~1").strip()
    bisected = said["git bisect run git theta check --gate skills"]
    assert f"{bad} is the first bad commit" in bisected.replace("'bad'", "bad")  # as of Git 2.55
    assert repo.git("rev-parse", "main") == repo.git("rev-parse", "ada")
