"""A result as it is kept: a line of JSON, and beside it the outcomes of its examples, packed.

What is read may come from anyone who can push. Each value is checked for its kind, and nothing is
taken that we would not have written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import EvaluationError, FormatError
from git_theta_ext.core.text import plural
from git_theta_ext.evaluation.results import Examples, Result, Score, packed_bytes

_FORMAT = "git-theta result v1"
_HASH_DIGITS = 64
_TEXT_CHARS = 4096


def to_bytes(result: Result) -> tuple[bytes, bytes]:
    """The record of a result, and the packed outcomes of all its examples, score by score.

    Raises:
        EvaluationError: it could not be read again: it is too large, or a text in it is too long.
    """
    outcomes = b"".join(score.examples.outcomes for score in result.scores if score.examples)
    row = as_json(result) | {
        "format": _FORMAT,
        "outcomes": hashlib.sha256(outcomes).hexdigest() if outcomes else None,
    }
    row = {key: value for key, value in row.items() if value is not None}
    record = json.dumps(row, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(record) > limits.RESULT_BYTES or len(outcomes) > limits.OUTCOMES_BYTES:
        many = len(record) > limits.RESULT_BYTES
        raise EvaluationError(
            f"a result of {len(record):,} bytes, with outcomes of {len(outcomes):,}, is not kept; "
            f"at most {limits.RESULT_BYTES:,} and {limits.OUTCOMES_BYTES:,}",
            hint=f"it has {plural(len(result.scores), 'score')}: keep them as several evaluations"
            if many
            else "leave out the files of examples",
        )
    try:
        from_bytes(record, outcomes or None)
    except FormatError as error:
        raise EvaluationError(f"a result is not kept: {error.message}") from error
    return record, outcomes


def as_json(result: Result) -> dict[str, Any]:
    """What a result says, without the outcomes themselves; None for what is not known."""
    return {
        "content": result.content, "evaluation": result.evaluation,
        "definition": result.definition, "examples": result.examples_hash,
        "beside": result.beside, "origin": result.origin, "by": result.by, "when": result.when,
        "rev": result.rev, "path": result.path, "source": result.source,
        "scores": [_score_row(score) for score in result.scores],
    }  # fmt: skip


def _score_row(score: Score) -> dict[str, Any]:
    row = {
        "task": score.task, "metric": score.metric, "value": score.value, "stderr": score.stderr,
        "higher_is_better": score.higher_is_better, "count": score.count,
        "version": score.version, "task_hash": score.task_hash, "ids": score.ids_hash,
        "kind": score.examples.kind if score.examples else None,
        "examples": score.examples.count if score.examples else None,
    }  # fmt: skip
    return {key: value for key, value in row.items() if value is not None}


def from_bytes(record: bytes, outcomes: bytes | None = None) -> Result:
    """The result of a record; its scores have examples where `outcomes` is given.

    Raises:
        FormatError: it is no record, or the outcomes are not those that it names.
    """
    if len(record) > limits.RESULT_BYTES:
        raise FormatError(f"a record of {len(record):,} bytes")
    try:
        row = json.loads(record)
        if not isinstance(row, dict) or row.get("format") != _FORMAT:
            raise FormatError(f"it does not begin as a {_FORMAT!r}")
        if outcomes is not None and hashlib.sha256(outcomes).hexdigest() != row.get("outcomes"):
            raise FormatError("its outcomes have another hash")
        return _result(row, outcomes)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise FormatError(f"{type(error).__name__}: {error}") from error


def _result(row: Mapping[str, Any], outcomes: bytes | None) -> Result:
    """The value of a record; ValueError, TypeError or KeyError where it is none."""
    origin = row["origin"]
    if origin not in ("measured", "imported") or type(row["when"]) is not int:
        raise ValueError("an origin or a time that is none")
    scores = []
    at = 0
    for one in row["scores"]:
        examples, at = _examples(one, outcomes, at)
        scores.append(_score(one, examples))
    if outcomes is not None and at != len(outcomes):
        raise ValueError("outcomes of other examples")
    return Result(
        _hash(row["content"]), _text(row["evaluation"]), _maybe_hash(row, "definition"),
        _maybe_hash(row, "examples"), _maybe_hash(row, "beside"), origin, _text(row["by"]),
        row["when"], _text(row["rev"]), _text(row["path"]), _text(row["source"]), tuple(scores),
    )  # fmt: skip


def _examples(
    row: Mapping[str, Any], outcomes: bytes | None, at: int
) -> tuple[Examples | None, int]:
    """The examples of a score whose outcomes begin at an offset, and where the next ones do."""
    kind, count = row.get("kind"), row.get("examples")
    if kind is None or outcomes is None:
        return None, at
    if kind not in ("right", "real") or type(count) is not int or count > limits.EXAMPLES:
        raise ValueError("examples that are none")
    end = at + packed_bytes(kind, count)
    return Examples(_hash(row["ids"]), kind, count, outcomes[at:end]), end


def _score(row: Mapping[str, Any], examples: Examples | None) -> Score:
    higher, count = row.get("higher_is_better"), row.get("count")
    if not (higher is None or isinstance(higher, bool)) or type(count) not in (int, type(None)):
        raise ValueError("a score that is none")
    stderr = row.get("stderr")
    return Score(
        _text(row["task"]), _text(row["metric"]), _number(row["value"]),
        None if stderr is None else _number(stderr), higher, count,
        None if row.get("version") is None else _text(row["version"]),
        None if row.get("task_hash") is None else _text(row["task_hash"]),
        _maybe_hash(row, "ids"), examples,
    )  # fmt: skip


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_CHARS:
        raise ValueError("a text that is none, or too long")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number that is none")
    return float(value)


def _hash(value: object) -> str:
    text = _text(value)
    if len(text) != _HASH_DIGITS or set(text) - set("0123456789abcdef"):
        raise ValueError("a hash that is none")
    return text


def _maybe_hash(row: Mapping[str, Any], key: str) -> str | None:
    return None if row.get(key) is None else _hash(row[key])
