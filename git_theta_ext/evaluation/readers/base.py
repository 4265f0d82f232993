"""What readers of results share: what they give, errors that name the file, and limits."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import EvaluationError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.evaluation.results import Examples, Score

HIGHER = (
    "acc", "accuracy", "acc_norm", "exact_match", "correct", "f1", "f1_macro", "f1_micro",
    "precision", "recall", "mcc", "matthews_correlation", "bleu", "rouge1", "rouge2", "rougeL",
    "chrf", "pearson", "spearmanr", "auc", "roc_auc", "score", "pass@1", "mean", "em", "map",
    "ndcg",
)  # fmt: skip
LOWER = (
    "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ppl", "loss", "eval_loss",
    "wer", "cer", "mae", "mse", "rmse", "error", "error_rate", "ter", "brier_score",
)  # fmt: skip
"""Metrics whose direction everybody agrees on, where a file does not say it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one file says: scores, outcomes of examples, and what was left out of it.

    `outcomes` are of tasks and metrics whose scores another file may have.
    """

    source: str
    scores: tuple[Score, ...] = ()
    outcomes: tuple[Outcomes, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of the examples of one task by one metric."""

    task: str
    metric: str
    examples: Examples

    @property
    def mean(self) -> float:
        """The mean over the examples."""
        return float(self.examples.values().mean())


@dataclass(slots=True)
class Columns:
    """Outcomes as they are read, line by line: 10 million take about 1 GB, most of it their ids."""

    ids: list[str] = field(default_factory=list)
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, name: str, value: float) -> None:
        """One more example.

        Raises:
            UsageError: there are too many.
        """
        if len(self.ids) >= limits.EXAMPLES:
            raise UsageError(f"more than {limits.EXAMPLES:,} examples of one task")
        self.ids.append(name)
        self.values.append(value)

    def examples(self) -> Examples:
        """The examples, by their ids; right or wrong if all outcomes are 0 or 1.

        Raises:
            UsageError: there are none, two have the same id, or an outcome is not finite.
        """
        if not self.ids:
            raise UsageError("it has no example")
        names = np.array(self.ids, object)
        self.ids.clear()
        order = np.argsort(names, kind="stable")
        names = names[order]
        same = np.flatnonzero(names[1:] == names[:-1])
        if len(same):
            raise UsageError(f"the example {names[same[0]]!r} comes twice")
        return Examples.pack(names, np.frombuffer(self.values)[order])


def problem(path: Path, what: str, hint: str | None = None) -> EvaluationError:
    """The error of a file that cannot be read as results."""
    return EvaluationError(f"{printable(path.name)}: {what}", hint=hint)


def direction(metric: str) -> bool | None:
    """Whether higher is better, where that is known of a metric's name."""
    name = metric.partition(",")[0]
    return True if name in HIGHER else False if name in LOWER else None


def text_of(path: Path) -> str:
    """The text of a file that is read as a whole.

    Raises:
        EvaluationError: it is too large, no UTF-8, or cannot be read.
    """
    try:
        with files.plain(path, follow=True) as file:
            data = file.read(limits.RESULT_FILE_BYTES + 1)
    except OSError as error:
        raise problem(path, error.strerror or str(error)) from error
    if len(data) > limits.RESULT_FILE_BYTES:
        raise problem(path, f"it is larger than {limits.RESULT_FILE_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise problem(path, f"it is no UTF-8 text: {error}") from error


def json_of(path: Path, text: str) -> Any:
    """The value of a JSON text.

    Raises:
        EvaluationError: it is none, or its parts are too deep inside each other.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "too deep" if isinstance(error, RecursionError) else error
        raise problem(path, f"it is not JSON: {what}") from error


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a file of any length.

    Raises:
        EvaluationError: a line is too long or no UTF-8, or the file cannot be read.
    """
    try:
        with files.plain(path, follow=True) as file:
            number = 0
            while line := file.readline(limits.RESULT_LINE_BYTES + 1):
                number += 1
                if len(line) > limits.RESULT_LINE_BYTES:
                    most = f"{limits.RESULT_LINE_BYTES:,}"
                    raise problem(path, f"line {number} is longer than {most} bytes")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise problem(path, f"line {number} is no UTF-8 text: {error}") from error
    except OSError as error:
        raise problem(path, error.strerror or str(error)) from error


def number_of(value: object) -> float | None:
    """A number of JSON, finite or not; None for anything else, a truth value too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def finite(
    found: Iterable[tuple[str, str, float, Mapping[str, Any]]],
) -> tuple[list[Score], list[str]]:
    """Scores of tasks and metrics whose value is finite; of the others, remarks.

    Args:
        found: task, metric, value and the other fields of each score.
    """
    scores, remarks = [], []
    for task, metric, value, more in found:
        if math.isfinite(value):
            scores.append(Score(task, metric, value, **more))
        else:
            remarks.append(f"{task}/{metric} is {value}, and was left out")
    return scores, remarks


def with_direction(score: Score, lower: Iterable[str]) -> Score:
    """A score that says its direction: as the project has it, its file, or its metric's name."""
    name = score.metric.partition(",")[0]
    if {name, score.metric} & set(lower):
        return replace(score, higher_is_better=False)
    if score.higher_is_better is None:
        return replace(score, higher_is_better=direction(score.metric))
    return score
