"""Targets of fuzzing: files of results, records of results, and what `.theta.toml` declares."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from git_theta_ext.checkpoints import modules
from git_theta_ext.core.errors import EvaluationError, FormatError, UsageError
from git_theta_ext.evaluation import config
from git_theta_ext.evaluation.readers import yaml_subset
from git_theta_ext.evaluation.readers.read import read_all
from git_theta_ext.evaluation.records import from_bytes, to_bytes
from git_theta_ext.evaluation.results import Examples, Result, Score

Run = Callable[[bytes], None]

_HARNESS = {
    "results": {"rte": {"alias": "rte", "acc,none": 0.75, "acc_stderr,none": 0.1}},
    "versions": {"rte": 1.0}, "n-shot": {"rte": 5}, "higher_is_better": {"rte": {"acc": True}},
    "n-samples": {"rte": {"effective": 4}}, "task_hashes": {"rte": "77"}, "model_name": "gpt2",
}  # fmt: skip
_INSPECT = {
    "status": "success", "eval": {"task": "t", "model": "m"},
    "results": {"scores": [{"name": "match", "metrics": {"accuracy": {"value": 0.5}}}]},
    "samples": [{"id": 1, "scores": {"match": {"value": "C"}}},
                {"id": 2, "scores": {"match": {"value": 0}}}],
}  # fmt: skip
_FILES = {
    "r.json": [_HARNESS, _INSPECT, {"rte": {"acc": 0.5, "acc_stderr": 0.1, "n": 4}}, {"acc": 1}],
    "samples_a.jsonl": [{"doc_id": 1, "doc_hash": "h", "filter": "none", "acc": 1.0}],
    "a.csv": ["id,correct\na,1\nb,0\n", 'id,score\n"a",0.5\n'],
    "a.yaml": ["- dataset:\n    id: a/b  # c\n    task_id: 'x'\n  value: 20.9\n"],
    "README.md": ["---\nmodel-index:\n- results:\n  - dataset: {type: a}\n    metrics:\n    - "
                  "type: acc\n      value: 0.9\n---\n"],
}  # fmt: skip
_TOML = b"""[[evaluation]]
name = "glue"
command = "run {checkpoint} '{results}'"
timeout = 3
examples = ["a", "b"]
[[gate]]
evaluation = "glue"
task = "rte"
min = 0.5
max_stored = "20 MB"
[[module]]
name = "head"
pattern = ["head.{0..3}.*", "[a-c]?"]
owners = "@org/team"
frozen = true
"""


def _require(holds: bool, law: str) -> None:
    """Raise AssertionError with the law that does not hold."""
    if not holds:
        raise AssertionError(law)


def _file(name: str, data: bytes) -> None:
    """A file of results of that name: scores, or an error of a bearable length."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        try:
            scores, _, _ = read_all([path], "task")
        except EvaluationError as error:
            _require(len(str(error)) < 20_000, "a message that floods the terminal")
            return
    _require(bool(scores), "a file without scores is an error")
    result = Result("a" * 64, "e", None, None, None, "imported", "", 0, "", "p", "s", scores)
    try:
        record, outcomes = to_bytes(result)
    except EvaluationError:
        return
    again = from_bytes(record, outcomes or None)
    _require(again == result, "a result comes back")


def _record(data: bytes) -> None:
    record, _, outcomes = data.partition(b"\0")
    try:
        found = from_bytes(record, outcomes or None)
    except FormatError:
        return
    _require(len(found.content) == 64, "a content is a hash")


def _yaml(data: bytes) -> None:
    try:
        yaml_subset.parse(data.decode("utf-8", "replace"))
    except FormatError as error:
        _require(error.message.startswith("line "), "an error names the line")


def _declared(data: bytes) -> None:
    for parse in (config.parse, modules.parse):
        try:
            parse(data)
        except UsageError as error:
            _require(len(str(error)) < 20_000, "a message that floods the terminal")


def _records() -> list[bytes]:
    right = Examples.of({"a": 1.0, "b": 0.0}, "right")
    score = Score("rte", "acc", 0.5, 0.1, True, 2, "1", "h", right.ids_hash, right)
    result = Result("a" * 64, "e", "b" * 64, None, None, "measured", "A", 1, "", "p", "s", (score,))
    return [b"\0".join(to_bytes(result))]


def targets() -> Iterator[tuple[str, Callable[[], list[bytes]], Run]]:
    """Name, seeds and what is run of each."""
    for name, values in _FILES.items():
        seeds = [
            value.encode() if isinstance(value, str) else json.dumps(value).encode()
            for value in values
        ]
        yield f"results-{name.rpartition('.')[2]}", partial(list, seeds), partial(_file, name)
    yield "result-record", _records, _record
    yield "yaml", lambda: [str(_FILES["a.yaml"][0]).encode()], _yaml
    yield "evaluations", lambda: [_TOML], _declared
