"""What is said of an evaluation's scores."""

from __future__ import annotations

from git_theta_ext.merge.choice import Choice
from git_theta_ext.merge.tune import Score, Trial, judge


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
