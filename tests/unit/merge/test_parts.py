"""The smaller parts of merging: orders, metadata, scores, states, pickles."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.core.errors import EvaluationError, UsageError
from git_theta_ext.formats.pickles.contents import Contents
from git_theta_ext.git.repository import Repository
from git_theta_ext.merge.branches.tune import Score, Trial, command_of, parse_score
from git_theta_ext.merge.branches.tune import judge as judge_trials
from git_theta_ext.merge.combine.pickles import judge
from git_theta_ext.merge.combine.skeleton import merge_metadata, merge_order
from git_theta_ext.merge.conflicts.state import Resolution, State, key_of, load, save
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.merge.strategies.policy import Policy, Rule

NAMES = st.lists(st.sampled_from("abcdefghij"), unique=True)


@given(NAMES, NAMES)
@settings(deadline=None)
def test_orders_merge(ours: list[str], theirs: list[str]) -> None:
    merged = merge_order(ours, theirs)
    assert sorted(merged) == sorted({*ours, *theirs})
    assert [name for name in merged if name in ours] == ours
    for before, after in pairwise(theirs):
        if after not in ours:
            assert merged.index(before) < merged.index(after)


def test_metadata_merges_key_by_key() -> None:
    base = {"kept": "1", "dropped": "1", "mine": "1", "both": "1", "step": "5", "gone": "1"}
    ours = {"kept": "1", "mine": "2", "both": "2", "step": "9", "new": "1", "gone": "1"}
    theirs = {"kept": "1", "dropped": "1", "mine": "1", "both": "3", "step": "70"}
    merged, clashes = merge_metadata(base, ours, theirs)
    assert merged == {"kept": "1", "mine": "2", "both": "2", "step": "70", "new": "1"}
    assert clashes == ["both"]
    merged, clashes = merge_metadata(base, ours, theirs, "theirs")
    assert merged["both"] == "3"
    assert clashes == []


def leaves(**values: object) -> Contents:
    found = {("data.pkl", *key.split("__")): (type(v).__name__, v) for key, v in values.items()}
    return Contents(found, {"version": b"3\n"})


@pytest.mark.parametrize(
    ("ours", "theirs", "side"),
    [
        ({"epoch": 2, "lr": 1}, {"epoch": 3, "lr": 1}, "theirs"),
        ({"epoch": 4, "lr": 1}, {"epoch": 3, "lr": 1}, "ours"),
        ({"epoch": 2, "lr": 2}, {"epoch": 3, "lr": 1}, "ours"),
        ({"epoch": 2, "lr": 1}, {"epoch": 3, "lr": 2}, "theirs"),
        ({"epoch": 2, "lr": 2}, {"epoch": 3, "lr": 3}, None),
        ({"epoch": 2, "lr": 2}, {"epoch": 2, "lr": 2}, "ours"),
        # A counter that became something else is no counter.
        ({"epoch": "two", "lr": 2}, {"epoch": 3, "lr": 1}, None),
        ({"epoch": True, "lr": 1}, {"epoch": 3, "lr": 2}, None),
        ({"epoch": 2, "lr": 1, "more": 1}, {"epoch": 3, "lr": 1}, "ours"),
    ],
)
def test_which_pickle_stands(
    ours: dict[str, object], theirs: dict[str, object], side: str | None
) -> None:
    base = leaves(epoch=1, lr=1)
    assert judge(base, leaves(**ours), leaves(**theirs)).side == side


def test_other_files_must_agree() -> None:
    base = leaves(epoch=1)
    other = Contents(base.leaves, {"version": b"4\n"})
    verdict = judge(base, base, other)
    assert (verdict.side, verdict.reason) == (None, "version differs")


def test_states_come_back_and_damaged_ones_are_forgotten(tmp_path: Path) -> None:
    repository = Repository(tmp_path, tmp_path, tmp_path, None)
    rule = Rule(("a.*",), (), Choice("ties", (("density", 0.25),)))
    policy = Policy(CONFLICT, (rule,), ".theta.toml")
    resolutions = (
        Resolution(frozenset({"x", "y"}), "average,weights=1:3"),
        Resolution(frozenset({"y"}), "theirs", "theirs"),
    )
    state = State(policy, resolutions, {"z": "why"})
    key = key_of([None, b"ours", b"theirs"])
    assert load(repository, key) is None
    save(repository, key, state)
    found = load(repository, key)
    assert found == state
    assert [str(found.choose(name)) for name in ("x", "y", "a.b", "z")] == [
        "average,weights=1:3", "theirs", "ties,density=0.25", "conflict",
    ]  # fmt: skip
    assert found.structure == "theirs"
    for damage in ("", "[]", "{}", '{"version": 1, "default": "nope"}'):
        (tmp_path / "theta-merge" / f"{key}.json").write_text(damage)
        assert load(repository, key) is None
    assert key != key_of([b"ours", None, b"theirs"])


@pytest.mark.parametrize(
    ("output", "score"),
    [
        ("0.5", Score(0.5)),
        ("loading…\n\n0.75 400\n\n", Score(0.75, 400)),
        ("-3e2", Score(-300.0)),
        ("nan", Score(-math.inf)),
    ],
)
def test_scores(output: str, score: Score) -> None:
    assert parse_score(output) == score


@pytest.mark.parametrize("output", ["", "accuracy: 0.5", "0.5 0", "0.5 many", "1 2 3"])
def test_what_is_no_score(output: str) -> None:
    said = f"ended with {output!r}" if output else "printed nothing"
    with pytest.raises(EvaluationError, match=f"the evaluation {said}"):
        parse_score(output)


def test_standard_errors_are_those_of_accuracies() -> None:
    assert Score(0.5, 100).error == pytest.approx(0.05)
    assert Score(7.5, 100).error is None
    assert Score(0.5).error is None


def test_a_difference_within_the_error_is_told() -> None:
    trials = [
        Trial("ours", None, Score(0.80, 200)),
        Trial("theirs", None, Score(0.70, 200)),
        Trial("average", Choice("average"), Score(0.81, 200)),
    ]
    verdict = judge_trials(trials)
    assert verdict.worth_it
    assert verdict.remarks == ("the merge is better by less than one standard error",)


@pytest.mark.parametrize(
    "text",
    ["python evaluate.py", "echo 'open {checkpoint}", "python e.py {checkpoint} --out={results}"],
)
def test_commands_that_cannot_be_run(text: str) -> None:
    with pytest.raises(UsageError):
        command_of(text)
