"""Results in a ref: they come back whole, from every ref, and hostile ones do no harm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.core import limits
from git_theta_ext.core.errors import EvaluationError, FormatError
from git_theta_ext.evaluation import kept, ref_names
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.records import from_bytes, to_bytes
from git_theta_ext.evaluation.results import Examples, Result, Score
from git_theta_ext.git.process import run_git
from git_theta_ext.git.repository import Repository

A, B = "a" * 64, "b" * 64


def result(content: str = A, value: float = 0.5, *, by: str = "Ada", when: int = 7) -> Result:
    right = Examples.of({str(number): float(number % 3 > 0) for number in range(50)}, "right")
    real = Examples.of({"x": 0.25, "y": -1e300}, "real")
    return Result(
        content, "glue", "d" * 64, None, None, "measured", by, when, "c" * 40, "model.safetensors",
        "lm-evaluation-harness 0.4.9",
        (
            Score("rte", "acc", value, 0.01, True, 50, "1.0, 5-shot", "h", right.ids_hash, right),
            Score("sts", "pearson", 0.125, ids_hash=real.ids_hash, examples=real),
            Score("ppl", "word_perplexity", 12.5, higher_is_better=False),
        ),
    )  # fmt: skip


def without_outcomes(one: Result) -> Result:
    return replace(one, scores=tuple(replace(score, examples=None) for score in one.scores))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    run_git(["init", "-q", str(tmp_path)], tmp_path)
    return Repository.discover(tmp_path)


def test_what_is_kept_comes_back(repository: Repository) -> None:
    assert Kept(repository).of([A]) == {}
    ours, theirs = result(value=0.5), result(value=0.625, by="Bob", when=9)
    Kept(repository).add([ours, result(B)])
    Kept(repository).add([theirs])
    Kept(repository).add([theirs])
    found = Kept(repository).of([A, "e" * 64], outcomes=True)
    assert found == {A: (theirs, ours)}
    assert Kept(repository).of([A])[A] == (without_outcomes(theirs), without_outcomes(ours))
    # What was fetched from a remote is read with it, and what both have once.
    repository.git("update-ref", f"{ref_names.REMOTES}origin/evaluations", ref_names.REF)
    repository.git("update-ref", "-d", ref_names.REF)
    Kept(repository).add([replace(ours, when=8), theirs])
    assert [one.when for one in Kept(repository).of([A])[A]] == [9, 8, 7]


def test_outcomes_take_little_room(repository: Repository) -> None:
    random = np.random.default_rng(5)
    scores = []
    for task in range(20):
        outcomes = {f"q{number}": float(random.random() < 0.5) for number in range(10_000)}
        examples = Examples.of(outcomes, "right")
        scores.append(Score(f"t{task}", "acc", 0.5, ids_hash=examples.ids_hash, examples=examples))
    Kept(repository).add([replace(result(), scores=tuple(scores))])
    listed = repository.git("cat-file", "--batch-all-objects",
                            "--batch-check=%(objectsize:disk)")  # fmt: skip
    assert sum(map(int, listed.split())) < 40_000


def test_what_is_no_result_is_passed_over_aloud(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    good = result()
    Kept(repository).add([good])
    record = to_bytes(good)[0]
    row = json.loads(record)
    wrong = {
        "1": b"{", "2": b"[" * 100_000, "3": json.dumps(row | {"when": True}).encode(),
        "4": json.dumps(row | {"content": B}).encode(), "5": record.replace(b"0.5", b"NaN"),
        "6": json.dumps(row | {"scores": [{"task": "t", "metric": "m", "value": 1e999}]}).encode(),
        "7": json.dumps({key: row[key] for key in row if key != "by"}).encode(),
    }  # fmt: skip
    kept.advance(repository, {f"aa/{A}/{name}.json": text for name, text in wrong.items()})
    assert Kept(repository).of([A], outcomes=True) == {A: (good,)}
    said = capsys.readouterr().err
    assert [said.count(f"/{name}.json in {ref_names.REF} is no result") for name in wrong] == [
        1
    ] * 7


def test_what_could_not_be_read_again_is_not_kept(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (replace(result(), path="x" * 5000), replace(result(), content="short")):
        with pytest.raises(EvaluationError, match="is not kept"):
            Kept(repository).add([result(), wrong])
    monkeypatch.setattr(limits, "RESULT_BYTES", 100)
    with pytest.raises(EvaluationError, match="is not kept") as caught:
        Kept(repository).add([result()])
    assert caught.value.hint == "it has 3 scores: keep them as several evaluations"
    assert Kept(repository).of([A]) == {}


def test_outcomes_of_another_result_are_refused() -> None:
    record, outcomes = to_bytes(result())
    assert from_bytes(record, outcomes) == result()
    for other in (outcomes[:-1], b"\xff" * len(outcomes), b""):
        with pytest.raises(FormatError, match="another hash"):
            from_bytes(record, other)
