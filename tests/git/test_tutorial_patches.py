"""docs/tutorials/patches.md as it stands: what the updates do to the scores."""

from __future__ import annotations

from collections.abc import Callable

from tests.scenarios.lessons import play
from tests.scenarios.repositories import Repo
from tests.scenarios.suggestions import ROOT

DOCUMENT = ROOT / "docs/tutorials/patches.md"


def test_updates_travel_by_file(new_repo: Callable[..., Repo]) -> None:
    repo = new_repo("project", install=False)
    every: list[tuple[str, str]] = []
    said = play(DOCUMENT, repo, every)
    scores = [
        {key: float(value) for key, value in (line.split() for line in answer.splitlines())}
        for command, answer in every
        if command == "python score.py"
    ]
    first, moved_on, arms, both, half = scores
    assert arms["arm"] > moved_on["arm"] + 0.03 > first["arm"] + 0.03
    assert arms["ring"] < moved_on["ring"] - 0.03
    assert both["arm"] > moved_on["arm"] + 0.02
    assert abs(both["ring"] - moved_on["ring"]) < 0.03
    assert arms["ring"] < half["ring"] < both["ring"]
    answers = "".join(answer for _, answer in every)
    assert "applied on top of HEAD" in answers
    assert "3 of 4 tensors changed" in said["git theta show ../arms.patch"]
    assert "to the byte" in said["git theta apply -R ../rings.eml"]
    sent = Repo(repo.path.with_name("ada"))
    assert repo.git("rev-parse", "HEAD") == sent.git("rev-parse", "arms")
