"""Inspect (`inspect_ai`): the JSON logs of `--log-format json` and `inspect log dump`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from git_theta_ext.core.errors import UsageError
from git_theta_ext.evaluation.readers.base import (
    Columns,
    Outcomes,
    Reading,
    finite,
    number_of,
    problem,
)
from git_theta_ext.evaluation.results import Examples

NAME = "Inspect"
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""Correct, incorrect, partly correct, no answer: as Inspect's `value_to_float` counts them."""
_MEANS = ("accuracy", "mean")
_ERRORS = ("stderr", "std", "bootstrap_stderr", "var")


def recognises(value: object) -> bool:
    """Whether a JSON value is a log of Inspect."""
    return isinstance(value, dict) and isinstance(value.get("eval"), dict) and "status" in value


def read(path: Path, value: Mapping[str, Any]) -> Reading:
    """The scores of a log, and the outcomes of its samples.

    Raises:
        EvaluationError: the evaluation did not succeed, or the log has no scores.
    """
    if value["status"] != "success":
        raise problem(path, f"Inspect says that the evaluation ended with {value['status']!r}")
    found, about = value.get("results"), value["eval"]
    scorers = found.get("scores") if isinstance(found, dict) else None
    task = about.get("task")
    if not isinstance(scorers, list) or not isinstance(task, str):
        raise problem(path, "looked for eval.task and results.scores of a log of Inspect")
    several = len(scorers) > 1
    scores, remarks = finite(
        (task, f"{name},{scorer}" if several else name, number, more)
        for scorer, name, number, more in _metrics(scorers, about)
    )
    if not scores:
        raise problem(path, "results.scores has no metric with a number")
    outcomes = tuple(_outcomes(path, value.get("samples"), task, scorers, several))
    model = about.get("model")
    source = NAME + (f", model {model}"[:200] if isinstance(model, str) else "")
    return Reading(source, tuple(scores), outcomes, tuple(remarks))


def _metrics(
    scorers: list[Any], about: Mapping[str, Any]
) -> Iterator[tuple[str, str, float, dict[str, Any]]]:
    """Scorer, metric, value and the other fields of each score."""
    version = about.get("task_version")
    for scorer in scorers:
        if not isinstance(scorer, dict) or not isinstance(scorer.get("metrics"), dict):
            continue
        values = {
            name: number_of(metric.get("value"))
            for name, metric in scorer["metrics"].items()
            if isinstance(metric, dict)
        }
        error = next((values[name] for name in ("stderr", "bootstrap_stderr") if name in values),
                     None)  # fmt: skip
        count = scorer.get("scored_samples")
        for name, number in values.items():
            if number is None or name in _ERRORS:
                continue
            yield str(scorer.get("name", "")), name, number, {
                "stderr": error if name in _MEANS and error is not None and error >= 0 else None,
                "higher_is_better": True if name in _MEANS else None,
                "count": count if type(count) is int and count > 0 else None,
                "version": None if version is None else str(version)[:100],
            }  # fmt: skip


def _outcomes(
    path: Path, samples: object, task: str, scorers: list[Any], several: bool
) -> Iterator[Outcomes]:
    """The outcomes of each scorer whose metric is a mean; several epochs of a sample are averaged.

    Raises:
        EvaluationError: there are too many samples.
    """
    if not isinstance(samples, list):
        return
    for scorer in scorers:
        if not isinstance(scorer, dict) or not isinstance(scorer.get("metrics"), dict):
            continue
        name = str(scorer.get("name", ""))
        metric = next((one for one in _MEANS if one in scorer["metrics"]), None)
        if metric is None:
            continue
        sums: dict[str, list[float]] = {}
        for sample in samples:
            grade = _grade(sample, name)
            if grade is None:
                break
            sums.setdefault(str(sample["id"]), []).append(grade)
        else:
            if sums:
                yield Outcomes(
                    task, f"{metric},{name}" if several else metric, _columns(path, sums)
                )


def _columns(path: Path, sums: Mapping[str, list[float]]) -> Examples:
    columns = Columns()
    try:
        for one, grades in sums.items():
            columns.add(one, math.fsum(grades) / len(grades))
        return columns.examples()
    except UsageError as error:
        raise problem(path, error.message) from error


def _grade(sample: Any, scorer: str) -> float | None:
    """What a sample got from a scorer as a number; None where that is not one."""
    try:
        value = sample["scores"][scorer]["value"]
        if "id" not in sample:
            return None
        if isinstance(value, str) and value in _GRADES:
            return _GRADES[value]
        return float(value) if isinstance(value, bool | int | float | str) else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
