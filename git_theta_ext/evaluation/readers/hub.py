"""Hugging Face: `.eval_results/*.yaml`, and the `model-index` in the head of a model card.

As huggingface/hub-docs describes them (docs/hub/eval-results.md, modelcard.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from git_theta_ext.core.errors import FormatError
from git_theta_ext.evaluation.readers import yaml_subset
from git_theta_ext.evaluation.readers.base import Reading, finite, number_of, problem, text_of

_BLOCK = re.compile(r"^model-index:.*?(?=^[^\s#-]|\Z)", re.MULTILINE | re.DOTALL)
_VALUE = re.compile(r"\s*([-+]?[0-9.]+(?:[eE][-+]?\d+)?)\s*(?:(?:±|\+/-|\+-)\s*([0-9.]+)\s*)?%?\s*")


def eval_results(path: Path) -> Reading:
    """The scores of a `.eval_results/*.yaml`: a list of `dataset` and `value`.

    Raises:
        EvaluationError: it is none.
    """
    try:
        value = yaml_subset.parse(text_of(path))
    except FormatError as error:
        raise problem(path, f"it is not YAML as files of results have it: {error}") from error
    if not isinstance(value, list) or not all(map(_is_entry, value)) or not value:
        raise problem(path, "looked for a list with dataset: id: and value: in each item")
    scores, remarks = finite(_entry(one) for one in value)
    if not scores:
        raise problem(path, "no value is a finite number")
    return Reading("Hugging Face .eval_results", tuple(scores), (), tuple(remarks))


def _is_entry(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("dataset"), dict):
        return False
    return isinstance(value["dataset"].get("id"), str) and number_of(value.get("value")) is not None


def _entry(one: Mapping[str, Any]) -> tuple[str, str, float, dict[str, Any]]:
    dataset = one["dataset"]
    part = dataset.get("task_id") or dataset.get("config")
    task = f"{dataset['id']}:{part}" if part else dataset["id"]
    notes, revision = one.get("notes"), dataset.get("revision")
    more = {
        "version": None if notes is None else str(notes)[:100],
        "task_hash": None if revision is None else str(revision)[:100],
    }
    return task, "value", float(one["value"]), more


def model_index(path: Path) -> Reading:
    """The scores in the head of a model card.

    Raises:
        EvaluationError: it has no head with a model-index, or one without a score.
    """
    text = text_of(path)
    head = re.match(r"---[ ]*\r?\n(.*?\r?\n)---[ ]*(?:\r?\n|\Z)", text, re.DOTALL)
    block = _BLOCK.search(head[1].replace("\r\n", "\n")) if head else None
    if block is None:
        raise problem(path, "looked for a head between --- and --- with model-index: in it")
    try:
        models = yaml_subset.parse(block[0])["model-index"]
        found = list(_cards(models))
    except (FormatError, KeyError, TypeError, AttributeError) as error:
        hint = "looked for results: of task:, dataset: type:, and metrics: of type: and value:"
        raise problem(path, f"its model-index is not read: {error}", hint) from error
    scores, remarks = finite((task, metric, number, more) for task, metric, number, more in found)
    if not scores:
        raise problem(path, "its model-index has no metric with a number")
    return Reading("Hugging Face model-index", tuple(scores), (), tuple(remarks))


def _cards(models: Any) -> Iterator[tuple[str, str, float, dict[str, Any]]]:
    for model in models:
        for result in model["results"]:
            dataset = result["dataset"]
            parts = [dataset.get("config"), dataset.get("split")]
            task = ":".join(str(part) for part in [dataset["type"], *parts] if part)
            revision = dataset.get("revision")
            for metric in result["metrics"]:
                number, error = _measured(metric["value"])
                if number is not None:
                    yield task, str(metric["type"]), number, {
                        "stderr": error,
                        "task_hash": None if revision is None else str(revision)[:100],
                    }  # fmt: skip


def _measured(value: object) -> tuple[float | None, float | None]:
    """A number and its error, as people write them: 0.9, or `20.0 ± 1.2`."""
    if isinstance(value, str):
        match = _VALUE.fullmatch(value)
        try:
            return (
                (float(match[1]), float(match[2]) if match[2] else None) if match else (None, None)
            )
        except ValueError:
            return None, None
    return number_of(value), None
