"""Results without a harness: flat JSON, a table of examples, and the line that `--tune` takes."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from git_theta_ext.core.errors import EvaluationError, UsageError
from git_theta_ext.evaluation.readers.base import (
    Columns,
    Outcomes,
    Reading,
    finite,
    lines_of,
    number_of,
    problem,
)
from git_theta_ext.evaluation.results import Score
from git_theta_ext.merge.branches import tune

LOOKED_FOR = '{"acc": 0.7} or {"rte": {"acc": 0.7, "acc_stderr": 0.01}}'
TABLE = "id,correct or id,score"
_TRUTH = {"1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0}
_FIELDS = ("value", "stderr", "count", "higher_is_better")
_COUNTS = ("count", "n", "examples")


def recognises(value: object) -> bool:
    """Whether a JSON value is nothing but numbers by metric, or by task and metric."""
    if not isinstance(value, dict) or not value:
        return False
    flat = all(_is_leaf(one) for one in value.values())
    return flat or all(
        isinstance(one, dict) and one and all(_is_leaf(leaf) for leaf in one.values())
        for one in value.values()
    )


def _is_leaf(value: object) -> bool:
    """Whether a value is a number, or an object of `value` and what belongs to it."""
    if isinstance(value, dict):
        return number_of(value.get("value")) is not None and set(value) <= set(_FIELDS)
    return number_of(value) is not None


def flat(path: Path, value: Mapping[str, Any], task: str) -> Reading:
    """The scores of an object of numbers; `task` is what they are of, where it does not say.

    Raises:
        EvaluationError: no number in it is finite.
    """
    by_task = {task: value} if all(_is_leaf(one) for one in value.values()) else value
    scores, remarks = finite(
        (name, *one) for name, metrics in by_task.items() for one in _flat(path, metrics)
    )
    if not scores:
        raise problem(path, "no number in it is finite")
    return Reading("JSON", tuple(scores), (), tuple(remarks))


def _flat(path: Path, metrics: Mapping[str, Any]) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Metric, value and the other fields of each score of a task."""
    total = next((metrics[key] for key in _COUNTS if type(metrics.get(key)) is int), None)
    for name, one in metrics.items():
        if name.endswith("_stderr") or (name in _COUNTS and len(metrics) > 1):
            continue
        fields = one if isinstance(one, dict) else {"value": one}
        stderr = number_of(fields.get("stderr", metrics.get(f"{name}_stderr")))
        if stderr is not None and not 0 <= stderr < float("inf"):
            raise problem(path, f"the standard error of {name!r} is {stderr}")
        higher, count = fields.get("higher_is_better"), fields.get("count", total)
        yield name, float(fields["value"]), {
            "stderr": stderr,
            "higher_is_better": higher if isinstance(higher, bool) else None,
            "count": count if type(count) is int and count > 0 else None,
        }  # fmt: skip


def table(path: Path) -> Reading:
    """The outcomes of a CSV of examples; its name is the task's. Other columns are not looked at.

    Raises:
        EvaluationError: it lacks a column, or a row is no example; names the line.
    """
    rows = csv.reader(lines_of(path))
    number = 1
    try:
        head = [name.strip().lower() for name in next(rows, [])]
        kind = next((name for name in ("correct", "score") if name in head), None)
        if "id" not in head or kind is None:
            found = ", ".join(head[:6]) or "nothing"
            raise problem(path, f"looked for the columns {TABLE} in its first line, found {found}")
        name_at, value_at = head.index("id"), head.index(kind)
        columns = Columns()
        for row in rows:
            number += 1
            if row:
                columns.add(row[name_at], _outcome(row[value_at], kind))
        examples = columns.examples()
    except (ValueError, IndexError, csv.Error) as error:
        raise problem(path, f"row {number} is no example: {error}") from error
    except UsageError as error:
        raise problem(path, error.message) from error
    if kind == "correct" and examples.kind != "right":
        raise problem(path, "correct is 0 or 1, true or false")
    metric = "acc" if kind == "correct" else "score"
    return Reading("CSV", (), (Outcomes(path.stem, metric, examples),))


def _outcome(text: str, kind: str) -> float:
    """What a cell says; ValueError where it says nothing."""
    word = text.strip().lower()
    if kind == "correct":
        if word not in _TRUTH:
            raise ValueError(f"{text[:40]!r} is not 0 or 1, true or false")
        return _TRUTH[word]
    return float(word)


def printed(output: str, task: str) -> Reading:
    """The score in the last line that a command printed: `SCORE` or `SCORE EXAMPLES`.

    Raises:
        EvaluationError: there is none.
    """
    found = tune.parse_score(output)
    if found.value == float("-inf"):
        raise EvaluationError("the evaluation printed a score that is not a number")
    score = Score(task, "score", found.value, found.error, True, found.examples)
    return Reading("printed", (score,))
