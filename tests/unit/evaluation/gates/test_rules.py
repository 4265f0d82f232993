"""The rules of gates as functions of results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from git_theta_ext.evaluation.config import Evaluation, Gate
from git_theta_ext.evaluation.gates.rules import Case, Version, best, judge
from git_theta_ext.evaluation.gates.verdict import Row, code_of
from git_theta_ext.evaluation.results import Score
from tests.scenarios.gates import COMMAND, result, score

EVALUATION = Evaluation("glue", "python evaluate.py {checkpoint} --out {results}")


def case(before: Score | None, after: Score | None, *, old: Any = None, new: Any = None,
         **rules: Any) -> Case:  # fmt: skip
    """One gate over two scores; `old` and `new` are fields of their results."""
    gate = Gate("g", "glue", **rules)
    base = () if before is None else (result("a", before, **(old or {})),)
    this = () if after is None else (result("b", after, **(new or {})),)
    versions = Version("this", "1" * 40, "b", this), Version("base", "2" * 40, "a", base)
    return Case(gate, EVALUATION, "model.safetensors", versions[0], (versions[1],))


def verdict(before: Score | None, after: Score | None, **more: Any) -> Row:
    (row,) = judge([case(before, after, **more)])
    return row


def test_the_command_is_the_one_of_the_results() -> None:
    assert EVALUATION.definition == COMMAND


def test_a_drop_must_be_shown_or_excluded() -> None:
    assert verdict(score(800), score(780), max_drop=0.0).verdict == "refused"
    assert verdict(score(800), score(780), max_drop=0.02).verdict == "accepted"
    # As many are lost as are won: nothing is shown, and nothing is excluded.
    noisy = score(800, seed=1)
    assert verdict(score(800), noisy, max_drop=0.0).verdict == "accepted"
    assert verdict(score(800), noisy, max_drop=0.01, prove=True).verdict == "refused"
    assert verdict(score(800), score(799), max_drop=0.01, prove=True).verdict == "accepted"
    # Without the examples that both have, a drop of two points in a thousand is noise.
    old, new = (replace(score(n), examples=None, ids_hash=None) for n in (800, 780))
    row = verdict(old, new, max_drop=0.0)
    assert (row.verdict, row.difference and row.difference.how) == ("accepted", "errors")


def test_a_gain_must_be_shown() -> None:
    assert verdict(score(800), score(800), min_gain=0.0).verdict == "refused"
    assert verdict(score(800), score(810), min_gain=0.0).verdict == "accepted"
    assert verdict(score(800), score(810), min_gain=0.009).verdict == "refused"


def test_less_may_be_better() -> None:
    old, new = score(300), score(400)
    for told in (False, None):
        pair = [replace(one, metric="loss", higher_is_better=told) for one in (old, new)]
        for lower, wanted in ((("loss",), "refused"), ((), "accepted" if told is None else "")):
            one = case(pair[0], pair[1], max_drop=0.0)
            one = replace(one, evaluation=replace(EVALUATION, lower_is_better=lower))
            assert judge([one])[0].verdict == (wanted or "refused")
    swapped = [replace(one, metric="loss", higher_is_better=False) for one in (new, old)]
    assert verdict(swapped[0], swapped[1], min_gain=0.0).verdict == "accepted"


def score_of(value: float, stderr: float | None = None) -> Score:
    return Score("rte", "f1", value, stderr)


def test_bounds_of_the_score_itself() -> None:
    assert verdict(None, score_of(0.7), min=0.7).verdict == "accepted"
    assert "below the minimum" in verdict(None, score_of(0.69), min=0.7).reasons[0]
    assert "above the maximum" in verdict(None, score_of(0.7), max=0.6).reasons[0]
    assert verdict(None, score_of(0.7, 0.01), min=0.69, prove=True).verdict == "refused"
    assert verdict(None, score_of(0.7, 0.005), min=0.69, prove=True).verdict == "accepted"
    assert verdict(None, score_of(0.7), min=0.1, prove=True).verdict == "refused"
    both = verdict(score(800), score(790), max_drop=0.1, min=0.795)
    assert (both.verdict, both.after) == ("refused", 0.79)


def test_numbers_alone_are_compared_and_prove_nothing() -> None:
    row = verdict(score_of(0.7), score_of(0.65), max_drop=0.04)
    assert (row.verdict, row.limits) == ("refused", None)
    assert any("numbers alone" in one for one in row.reasons)
    assert verdict(score_of(0.7), score_of(0.65), max_drop=0.06).verdict == "accepted"
    assert verdict(score_of(0.7), score_of(0.9), max_drop=0.06, prove=True).verdict == "refused"
    assert verdict(score_of(0.7), score_of(0.9), min_gain=0.1).verdict == "refused"


def test_numbers_alone_have_no_part_in_the_correction() -> None:
    alone = [case(score_of(0.7), score_of(0.7), max_drop=0.0)] * 20
    rows = judge([case(score(800), score(794), max_drop=0.0), *alone])
    assert [row.verdict for row in rows] == ["refused", *["accepted"] * 20]
    assert rows[0].p == pytest.approx(0.5**6)
    assert rows[1].p is None


def test_it_is_said_where_nothing_tells_of_the_examples() -> None:
    imported = {"definition": None}
    words = "nothing tells whether both are of the same examples"
    row = verdict(score_of(0.7), score_of(0.7), max_drop=0.0, old=imported)
    assert words in row.reasons
    assert words not in verdict(score_of(0.7), score_of(0.7), max_drop=0.0).reasons
    assert words not in verdict(score(8), score(8), max_drop=0.0, old=imported).reasons


def test_what_was_not_measured_is_never_a_pass() -> None:
    for before, after in ((None, score(800)), (score(800), None), (None, None)):
        row = verdict(before, after, max_drop=1.0)
        assert row.verdict == "unmeasured"
        assert "git theta evaluate" in row.reasons[0]
    assert verdict(score(800), score(800), max_drop=1.0, task="other").verdict == "unmeasured"
    stale = {"definition": "0" * 64}
    row = verdict(score(800), score(800), max_drop=1.0, new=stale)
    assert "another command" in row.reasons[0]
    # What another command gave names no scores that are missed.
    wide = result("a", score(800), replace(score(1), task="old"), definition="0" * 64)
    one = case(score(800), score(800), max_drop=1.0)
    (base,) = one.others
    one = replace(one, others=(replace(base, results=(*base.results, wide)),))
    assert [row.subject for row in judge([one])] == ["rte/acc"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"task_hash": "a"}, {"task_hash": "b"}, "task hash"),
        ({"version": "1"}, {"version": "2"}, "versions of the task"),
        ({}, {"count": 900}, "numbers of examples"),
    ],
)
def test_scores_of_other_examples_are_not_compared(
    old: dict[str, Any], new: dict[str, Any], words: str
) -> None:
    row = verdict(replace(score(800), **old), replace(score(800), **new), max_drop=1.0)
    assert (row.verdict, words in row.reasons[0]) == ("incomparable", True)
    assert verdict(replace(score(800), **old), score(800), max_drop=1.0).verdict == "accepted"


def test_files_and_ids_of_other_examples_are_not_compared() -> None:
    files = {"old": {"examples_hash": "a"}, "new": {"examples_hash": "b"}}
    assert verdict(score(8), score(8), max_drop=1.0, **files).verdict == "incomparable"
    assert verdict(score(8, 10), score(8, 11), max_drop=1.0).verdict == "incomparable"


def test_both_measured_on_the_same_examples_are_compared() -> None:
    """A branch changed the examples; then somebody measured the base on the new ones, too."""
    old, new = {"examples_hash": "a"}, {"examples_hash": "b"}
    one = case(score(800), score(700), max_drop=0.0, old=old, new=new)
    assert judge([one])[0].verdict == "incomparable"
    (base,) = one.others
    again = result("a", score(750), when=0, **new)
    one = replace(one, others=(replace(base, results=(*base.results, again)),))
    (row,) = judge([one])
    assert (row.verdict, row.before, row.after) == ("refused", 0.75, 0.7)


def test_p_values_are_corrected_over_all_gates() -> None:
    """A drop that one gate alone refuses is to be expected once among twenty."""
    old, new = score(800, 1000), score(794, 1000)
    assert verdict(old, new, max_drop=0.0).verdict == "refused"
    cases = [case(old, new, max_drop=0.0)]
    cases += [case(score(800), score(800), max_drop=0.0) for _ in range(19)]
    rows = judge(cases)
    assert {row.verdict for row in rows} == {"accepted"}
    assert rows[0].p == pytest.approx(20 * 0.5**6)


def test_the_best_of_each_metric() -> None:
    other = replace(score(500), task="mnli")
    versions = [
        Version("base", "", "a", (result("a", score(800), other),)),
        Version("best", "", "b", (result("b", score(900), other),)),
        Version("best", "", "c", (result("c", score(700), replace(score(600), task="mnli")),)),
        Version("best", "", "d", (result("d", replace(score(999), task_hash="x")),)),
    ]
    update = Version("this", "", "e", (result("e", replace(score(850), task_hash="y"), other),))
    found = best(versions, Gate("g", "glue", max_drop=0.0), EVALUATION, update)
    assert {one.content: one.subjects for one in found} == {
        "b": {"rte/acc"}, "c": {"mnli/acc"},
    }  # fmt: skip
    rows = judge([Case(Gate("g", "glue", max_drop=0.0), EVALUATION, "m", update, (
        versions[0], *found))])  # fmt: skip
    assert [(row.subject, row.against, row.verdict) for row in rows] == [
        ("mnli/acc", "best", "refused"), ("rte/acc", "best", "refused"),
    ]  # fmt: skip


def test_the_exit_code() -> None:
    def row(verdict: Any) -> Row:
        return Row(Gate("g"), "m", "s", verdict)

    assert code_of([]) == code_of([row("accepted")]) == 0
    assert code_of([row("accepted"), row("unmeasured")]) == code_of([row("incomparable")]) == 3
    assert code_of([row("incomparable"), row("refused")]) == 1
