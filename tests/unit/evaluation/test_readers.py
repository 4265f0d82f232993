"""Files of results as harnesses write them; broken ones are refused with what was looked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from git_theta_ext.core import limits
from git_theta_ext.core.errors import EvaluationError
from git_theta_ext.evaluation.readers.read import read_all, read_folder
from git_theta_ext.evaluation.results import Score

HARNESS = {
    "results": {
        "rte": {"alias": "rte", "acc,none": 0.75, "acc_stderr,none": 0.25, "sample_len": 4},
        "gsm8k": {"exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": "N/A",
                  "exact_match,flexible-extract": 0.75, "alias": " - gsm8k"},
        "wikitext": {"word_perplexity,none": 12.5, "bleu,none": float("nan")},
    },
    "versions": {"rte": 1.0, "gsm8k": 3}, "n-shot": {"rte": 5},
    "higher_is_better": {"rte": {"acc": True}, "wikitext": {"word_perplexity": False}},
    "n-samples": {"rte": {"original": 277, "effective": 4}},
    "task_hashes": {"rte": "77aa"}, "lm_eval_version": "0.4.9", "model_name": "gpt2",
}  # fmt: skip
DATE = "2026-11-28T10-00-00.123456"


def sample(number: int, right: float, **more: object) -> dict[str, object]:
    return {
        "doc_id": number, "doc": {"text": "x"}, "target": "1", "arguments": {}, "resps": [["1"]],
        "filtered_resps": ["1"], "filter": "none", "metrics": ["acc"], "doc_hash": f"h{number}",
        "prompt_hash": "p", "target_hash": "t", "acc": right, **more,
    }  # fmt: skip


INSPECT = {
    "version": 2, "status": "success",
    "eval": {"task": "security", "task_version": 1, "model": "openai/gpt-4"},
    "results": {"total_samples": 4, "completed_samples": 4, "scores": [
        {"name": "match", "scorer": "match", "reducer": "mean", "scored_samples": 2, "metrics": {
            "accuracy": {"name": "accuracy", "value": 0.75, "params": {}},
            "stderr": {"name": "stderr", "value": 0.125, "params": {}}}}]},
    "samples": [
        {"id": name, "epoch": epoch, "scores": {"match": {"value": value}}}
        for name, epoch, value in (("a", 1, "C"), ("a", 2, "C"), ("b", 1, "I"), ("b", 2, "C"))
    ],
}  # fmt: skip
HUB = """\
- dataset:
    id: cais/hle                  # Required. Hub dataset ID
    task_id: default
    revision: 5503434
  value: 20.90                    # Required.
  date: "2025-01-15"
  source:
    url: https://huggingface.co/spaces/SaylorTwift/smollm3-mmlu-pro
    name: Eval traces
  notes: "no-tools"

# or, with only the required attributes:

- dataset:
    id: Idavidrein/gpqa
  value: 0.412
"""
CARD = """\
---
language:
- en
model-index:
- name: my-cool-model
  results:
  - task: {type: image-classification}
    dataset:
      type: beans
      name: >-
        Beans,
        all of them
      split: test
    metrics:
    - type: accuracy
      value: 0.9
    - {type: wer, value: 20.0 ± 1.2, name: "Test WER"}
license: mit
---
# A model
"""


def write(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return path


def by_name(scores: tuple[Score, ...]) -> dict[str, Score]:
    return {score.name: score for score in scores}


def test_lm_evaluation_harness(tmp_path: Path) -> None:
    write(tmp_path, f"gpt2/results_{DATE}.json", HARNESS)
    lines = [json.dumps(sample(number, float(number < 3))) for number in (3, 1, 0, 2)]
    write(tmp_path, f"gpt2/samples_rte_{DATE}.jsonl", "\n".join([*lines, ""]))
    write(tmp_path, "notes.txt", "not looked at")
    scores, source, remarks = read_folder(tmp_path, "", "glue")
    found = by_name(scores)
    assert source == "lm-evaluation-harness 0.4.9, model gpt2"
    assert remarks == ("wikitext/bleu is nan, and was left out",)
    assert set(found) == {
        "rte/acc", "gsm8k/exact_match,strict-match", "gsm8k/exact_match,flexible-extract",
        "wikitext/word_perplexity",
    }  # fmt: skip
    rte = found["rte/acc"]
    assert rte.examples is not None
    assert rte.examples.kind == "right"
    assert rte.examples.values().tolist() == [1, 1, 1, 0]
    assert (rte.value, rte.stderr, rte.count, rte.version, rte.task_hash) == (
        0.75, 0.25, 4, "1.0, 5-shot", "77aa",
    )  # fmt: skip
    assert found["gsm8k/exact_match,strict-match"].stderr is None
    assert found["wikitext/word_perplexity"].higher_is_better is False


def test_examples_of_another_run_are_refused(tmp_path: Path) -> None:
    results = write(tmp_path, "results.json", HARNESS)
    other = write(tmp_path, "samples_rte.jsonl", json.dumps(sample(1, 1.0)))
    with pytest.raises(EvaluationError, match="of 4 examples, but there are the outcomes of 1"):
        read_all([results, other], "glue")
    rows = [json.dumps(sample(number, 1.0)) for number in range(4)]
    other = write(tmp_path, "samples_rte.jsonl", "\n".join(rows))
    with pytest.raises(EvaluationError, match=r"is 0\.75, but its examples have the mean 1:"):
        read_all([results, other], "glue")
    twice = write(tmp_path, "more.json", {"rte": {"acc": 0.5}})
    with pytest.raises(EvaluationError, match=r"two files give rte/acc: 0\.75 and 0\.5"):
        read_all([results, twice], "glue")


def test_examples_alone_give_their_mean(tmp_path: Path) -> None:
    rows = [
        json.dumps(sample(number, number / 4, filter=kind)) for number in range(4)
        for kind in ("strict", "flexible")
    ]  # fmt: skip
    path = write(tmp_path, f"samples_a_b_{DATE}.jsonl", "\n".join(rows))
    found = by_name(read_all([path], "glue")[0])
    assert {name: score.value for name, score in found.items()} == {
        "a_b/acc,strict": 0.375, "a_b/acc,flexible": 0.375,
    }  # fmt: skip


def test_inspect(tmp_path: Path) -> None:
    (score,) = read_all([write(tmp_path, "log.json", INSPECT)], "glue")[0]
    assert (score.name, score.value, score.stderr) == ("security/accuracy", 0.75, 0.125)
    assert score.examples is not None
    assert score.examples.values().tolist() == [1, 0.5]
    # A sample that is none leaves the score without its examples.
    other = INSPECT | {"samples": [{"scores": {"match": {"value": "C"}}}]}
    assert read_all([write(tmp_path, "log.json", other)], "glue")[0][0].examples is None
    for status in ("error", "cancelled", "started"):
        path = write(tmp_path, "log.json", INSPECT | {"status": status})
        with pytest.raises(EvaluationError, match=f"ended with {status!r}"):
            read_all([path], "glue")


def test_hugging_face(tmp_path: Path) -> None:
    found = by_name(read_all([write(tmp_path, "hle.yaml", HUB)], "glue")[0])
    assert {name: score.value for name, score in found.items()} == {
        "cais/hle:default/value": 20.9, "Idavidrein/gpqa/value": 0.412,
    }  # fmt: skip
    assert found["cais/hle:default/value"].version == "no-tools"
    found = by_name(read_all([write(tmp_path, "README.md", CARD)], "glue")[0])
    assert {name: (score.value, score.stderr) for name, score in found.items()} == {
        "beans:test/accuracy": (0.9, None), "beans:test/wer": (20.0, 1.2),
    }  # fmt: skip
    assert found["beans:test/wer"].higher_is_better is False


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"acc": 0.5, "acc_stderr": 0.1, "n": 40}, {"glue/acc": (0.5, 0.1, 40)}),
        ({"rte": {"acc": 1}, "sst2": {"f1": 0.5}}, {"rte/acc": (1, None, None),
                                                    "sst2/f1": (0.5, None, None)}),
        ({"acc": {"value": 0.5, "stderr": 0.2, "count": 9}}, {"glue/acc": (0.5, 0.2, 9)}),
    ],
)  # fmt: skip
def test_flat_json(tmp_path: Path, value: object, wanted: dict[str, object]) -> None:
    found = read_all([write(tmp_path, "r.json", value)], "glue")[0]
    assert {one.name: (one.value, one.stderr, one.count) for one in found} == wanted


def test_tables_of_examples(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, "rte.csv", "\ufeffid,prompt,correct\r\nb,\"x,\ny\",1\r\na,,False\r\n"),
        write(tmp_path, "sts.csv", "id,score\na,0.25\nb,0.75\n"),
    ]  # fmt: skip
    acc, score = read_all(paths, "glue")[0]
    assert (acc.name, acc.value, acc.higher_is_better) == ("rte/acc", 0.5, True)
    assert acc.examples is not None
    assert acc.examples.values().tolist() == [0, 1]
    assert (score.name, score.value, score.count) == ("sts/score", 0.5, 2)
    assert score.stderr == pytest.approx(0.25)  # of the mean, from the examples


def test_the_line_that_was_printed_last(tmp_path: Path) -> None:
    (score,), source, _ = read_folder(tmp_path, "step 1\n0.75 400\n", "glue", ["score"])
    assert (score.name, score.value, score.count, source) == ("glue/score", 0.75, 400, "printed")
    assert score.higher_is_better is False
    write(tmp_path, "config.json", {"name": "x"})
    write(tmp_path, "rte.json", {"acc": 0.5})
    scores, _, remarks = read_folder(tmp_path, "0.75\n", "glue")
    assert [one.name for one in scores] == ["glue/acc"]
    assert "config.json: it is JSON, but no results that are known" in remarks[0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.json", "{", "r.json: it is not JSON"),
        ("r.json", "[" * 100_000, "it is not JSON: too deep"),
        ("r.json", '{"a": "b"}', "no results that are known\n.*results_.*samples_.*Inspect"),
        ("r.json", '{"acc": NaN}', "no number in it is finite"),
        ("r.json", '{"acc": 1e999}', "no number in it is finite"),
        ("r.json", '{"acc": 0.5, "acc_stderr": -1}', "the standard error of 'acc' is -1"),
        ("r.json", '{"results": {"rte": 3}, "versions": {}}', "an object for each task"),
        ("r.json", '{"results": {"rte": {"alias": "rte"}}, "versions": {}}', "it has no score"),
        ("r.json", '{"eval": {}, "status": "success"}', "looked for eval.task and results.scores"),
        ("samples_a.jsonl", "{}\n", "line 1 is no example .*no doc_id"),
        ("samples_a.jsonl", '{"doc_id": 1, "acc": 1}\n[', "line 2 is no example"),
        ("samples_a.jsonl", "[" * 100_000, "line 1 .*too deep"),
        ("samples_a.jsonl", '{"doc_id": 1, "acc": NaN}', "has the score nan|not a finite"),
        ("samples_a.jsonl", '{"doc_id": 1, "acc": 1}\n{"doc_id": 1, "acc": 1}', "comes twice"),
        ("samples_a.jsonl", '{"doc_id": 1, "doc": {}}', "no example .*with a number"),
        ("a.csv", "", "looked for the columns id,correct or id,score .*found nothing"),
        ("a.csv", "name,correct\n", "found name, correct"),
        ("a.csv", "id,correct\n", "it has no example"),
        ("a.csv", "id,correct\na,2\n", "row 2 is no example: '2' is not 0 or 1"),
        ("a.csv", "id,score\na,1\nb\n", "row 3 is no example"),
        ("a.csv", "id,score\na,inf\n", "not a finite number"),
        ("a.csv", "id,score\na,1\na,2\n", "the example 'a' comes twice"),
        ("a.yaml", "value: 3\n", "looked for a list with dataset: id: and value:"),
        ("a.yaml", "- dataset: *x\n", "line 1: .* is not read"),
        ("README.md", "# A model\n", "looked for a head between --- and --- with model-index"),
        ("README.md", "---\nmodel-index:\n- name: x\n---\n", "its model-index is not read"),
        ("a.txt", "0.5", "of no known kind\n.*looked for"),
        ("a.csv", "\xff", "columns"),
    ],
)  # fmt: skip
def test_broken_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(EvaluationError, match=f"(?s){name}: .*(?:{message})|{message}"):
        read_all([path], "glue")


def test_nothing_that_was_left_behind(tmp_path: Path) -> None:
    for output in ("", "done\n", "nan\n"):
        with pytest.raises(EvaluationError, match=r"(?s)gave no result: it left no file.*results_"):
            read_folder(tmp_path, output, "glue")


def test_a_million_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXAMPLES", 1000)
    rows = ["id,correct", *(f"{number},1" for number in range(1001))]
    path = write(tmp_path, "big.csv", "\n".join(rows))
    with pytest.raises(EvaluationError, match=r"big.csv: more than 1,000 examples"):
        read_all([path], "glue")
    (score,) = read_all([write(tmp_path, "big.csv", "\n".join(rows[:-1]))], "glue")[0]
    assert score.count == 1000
