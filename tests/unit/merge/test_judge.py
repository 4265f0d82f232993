"""Which merges are evaluated, and what is said of their scores."""

from __future__ import annotations

import pytest

from git_theta_ext.formats.safetensors import NAME
from git_theta_ext.manifest.model import Block, Manifest
from git_theta_ext.merge.branches.tune import Contest, Score, Trial, candidates, judge
from git_theta_ext.merge.strategies.choice import Choice


def trials(base: float, ours: float, merged: float) -> list[Trial]:
    known = [("base", None, base), ("ours", None, ours), ("theirs", None, 0.1)]
    rows = [*known, ("average", Choice("average"), merged)]
    return [Trial(label, choice, Score(value, 400)) for label, choice, value in rows]


def test_a_base_that_beats_everything_is_told() -> None:
    remark = "the base is better than every side and every merge"
    assert remark in judge(trials(0.8, 0.4, 0.7)).remarks
    assert remark not in judge(trials(0.6, 0.4, 0.7)).remarks
    assert judge(trials(0.8, 0.4, 0.7)).worth_it
    assert "no merge beats ours" in judge(trials(0.1, 0.7, 0.5)).remarks


@pytest.mark.parametrize(
    ("base", "slope", "lengths", "favours"),
    [
        (0.1, 0.5, ["0.5", "0.7", "1", "0.85"], True),
        (0.1, -0.5, ["0.5", "0.7", "1", "0.3"], True),
        (0.9, -0.5, ["0.5", "0.7", "1", "0.3", "0.15"], False),
    ],
)
def test_lengths_are_tried_where_they_help(
    base: float, slope: float, lengths: list[str], favours: bool
) -> None:
    """Scores that rise or fall with the length; a base that is better than both sides."""
    empty = Manifest(NAME, Block(0, "0" * 64, ()), ())
    contest = Contest("m", empty, {"ours": empty, "theirs": empty}, lambda _: empty)
    seen = [Trial("base", None, Score(base, 400)), Trial("ours", None, Score(0.2, 400))]
    seen.append(Trial("theirs", None, Score(0.1, 400)))
    for choice in candidates(contest, seen):
        length = float(dict(choice.settings).get("lambda", 0.5))  # type: ignore[arg-type]
        seen.append(Trial(str(choice), choice, Score(0.6 + slope * length, 400)))
    tried = [trial.label for trial in seen]
    assert [label.partition("lambda=")[2] for label in tried if "lambda" in label] == lengths
    assert any("weights" in label for label in tried) == favours
