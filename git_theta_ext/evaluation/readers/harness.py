"""lm-evaluation-harness: `results_*.json`, and `samples_TASK_*.jsonl` of `--log_samples`.

As `lm_eval/loggers/evaluation_tracker.py` writes them: metrics are called `acc,none`, with the
filter behind the comma, and their standard errors `acc_stderr,none`. Versions before 0.4 write
`acc` and `acc_stderr`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from git_theta_ext.core.errors import UsageError
from git_theta_ext.evaluation.readers.base import (
    Columns,
    Outcomes,
    Reading,
    finite,
    lines_of,
    number_of,
    problem,
)

NAME = "lm-evaluation-harness"
_MARKS = ("versions", "configs", "n-shot", "lm_eval_version", "higher_is_better")
_NO_METRICS = {"alias", "name", "sample_len", "samples"}
_SAMPLE_FIELDS = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics",
    "doc_hash", "prompt_hash", "target_hash",
}  # fmt: skip
_DATED = re.compile(r"samples_(.+)_\d{4}-\d\d-\d\dT[\d.+-]+")


def recognises(value: object) -> bool:
    """Whether a JSON value is a file of results."""
    if not isinstance(value, dict) or not isinstance(value.get("results"), dict):
        return False
    return any(mark in value for mark in _MARKS)


def results(path: Path, value: Mapping[str, Any]) -> Reading:
    """The scores of a `results_*.json`.

    Raises:
        EvaluationError: it has no results, or some that are not as the harness writes them.
    """
    tasks = value["results"]
    if not all(isinstance(found, dict) for found in tasks.values()):
        raise problem(path, "results is not an object of an object for each task")
    scores, remarks = finite(
        (task, metric, number, _more(value, task, found, key))
        for task, found in tasks.items()
        for key, metric, number in _metrics(found)
    )
    if not scores:
        raise problem(path, "it has no score: results TASK metric,filter, as in acc,none", None)
    words = [NAME, str(value.get("lm_eval_version") or "")]
    model = value.get("model_name")
    named = f", model {model}" if isinstance(model, str) and model else ""
    return Reading(" ".join(filter(None, words))[:100] + named[:200], tuple(scores), (),
                   tuple(remarks))  # fmt: skip


def _metrics(found: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Key, metric (with its filter, unless that is `none`) and value of each score of a task."""
    for key, value in found.items():
        name, _, kind = key.partition(",")
        number = number_of(value)
        if number is None or name.endswith("_stderr") or name in _NO_METRICS:
            continue
        yield key, _with_filter(name, kind), number


def _with_filter(name: str, kind: str) -> str:
    return name if kind in ("", "none") else f"{name},{kind}"


def _more(
    value: Mapping[str, Any], task: str, found: Mapping[str, Any], key: str
) -> dict[str, Any]:
    """What else the file says of a score."""
    name, comma, kind = key.partition(",")
    stderr = number_of(found.get(f"{name}_stderr{comma}{kind}"))
    higher = _of(value, "higher_is_better", task)
    higher = higher.get(name) if isinstance(higher, dict) else higher
    samples = _of(value, "n-samples", task)
    count = samples.get("effective") if isinstance(samples, dict) else None
    version, shots = _of(value, "versions", task), _of(value, "n-shot", task)
    words = [] if version is None else [f"{version}"]
    words += [] if number_of(shots) is None else [f"{shots}-shot"]
    task_hash = _of(value, "task_hashes", task)
    return {
        "stderr": stderr if stderr is not None and 0 <= stderr < float("inf") else None,
        "higher_is_better": higher if isinstance(higher, bool) else None,
        "count": count if type(count) is int and count > 0 else None,
        "version": ", ".join(words)[:100] or None,
        "task_hash": task_hash if isinstance(task_hash, str) and task_hash else None,
    }


def _of(value: Mapping[str, Any], key: str, task: str) -> Any:
    """What a table of the file says of a task."""
    table = value.get(key)
    return table.get(task) if isinstance(table, dict) else None


def samples(path: Path) -> Reading:
    """The outcomes of a `samples_TASK_*.jsonl`, by metric and filter.

    An example is named by its number and the hash of what it asks, so that a changed test set has
    other names.

    Raises:
        EvaluationError: a line is no example of the harness, or comes twice.
    """
    match = _DATED.fullmatch(path.stem)
    task = match[1] if match else path.stem.removeprefix("samples_")
    columns: dict[str, Columns] = {}
    number = 0
    try:
        for line in lines_of(path):
            number += 1
            if line.strip():
                _sample(json.loads(line), columns)
        outcomes = tuple(Outcomes(task, name, one.examples()) for name, one in columns.items())
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        what = "it is too deep" if isinstance(error, RecursionError) else str(error)
        raise problem(
            path, f"line {number} is no example of {NAME}: {what}",
            "looked for an object with doc_id, doc_hash, and a number for each metric, such as acc",
        ) from error  # fmt: skip
    except UsageError as error:
        raise problem(path, error.message) from error
    if not outcomes:
        raise problem(path, f"it has no example of {NAME} with a number for a metric")
    return Reading(NAME, (), outcomes)


def _sample(row: Any, columns: dict[str, Columns]) -> None:
    """Take one example; KeyError or TypeError where it is none."""
    if not isinstance(row, dict):
        raise TypeError("it is no object")
    if "doc_id" not in row:
        raise KeyError("no doc_id")
    name = f"{row['doc_id']}:{row.get('doc_hash', '')}"
    kind = str(row.get("filter", ""))
    named = row.get("metrics")
    keys = named if isinstance(named, list) else [key for key in row if key not in _SAMPLE_FIELDS]
    for key in keys:
        value = row.get(key)
        found = float(value) if isinstance(value, bool) else number_of(value)
        if found is not None:
            metric = _with_filter(str(key), kind)
            columns.setdefault(metric, Columns()).add(name, found)
