"""Files of results, whatever they are, as the scores of one result."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from git_theta_ext.core import limits
from git_theta_ext.core.errors import EvaluationError
from git_theta_ext.evaluation.readers import harness, hub, inspect_log, plain
from git_theta_ext.evaluation.readers.base import (
    Outcomes,
    Reading,
    json_of,
    problem,
    text_of,
    with_direction,
)
from git_theta_ext.evaluation.results import SHARES, Score

LOOKED_FOR = (
    "results_*.json and samples_*.jsonl of lm-evaluation-harness, a log of Inspect that is JSON "
    "(--log-format json), .eval_results/*.yaml or a README.md with a model-index, JSON such as "
    f"{plain.LOOKED_FOR}, TASK.csv with the columns {plain.TABLE}"
)
_ENDINGS = (".json", ".jsonl", ".yaml", ".yml", ".md", ".csv")
_CLOSE = 1e-3
"""How far the mean of examples may be from the score that they belong to: harnesses round."""


def read(path: Path, task: str) -> Reading:
    """What one file says.

    Args:
        path: the file; its name tells what it may be.
        task: what scores are called that do not say what they are of.

    Raises:
        EvaluationError: it is none of the files that are known, or a broken one.
    """
    name = path.name.lower()
    if name.endswith(".jsonl"):
        return harness.samples(path)
    if name.endswith(".csv"):
        return plain.table(path)
    if name.endswith((".yaml", ".yml")):
        return hub.eval_results(path)
    if name.endswith(".md"):
        return hub.model_index(path)
    if not name.endswith(".json"):
        raise problem(path, "it is of no known kind", f"looked for {LOOKED_FOR}")
    value = json_of(path, text_of(path))
    if harness.recognises(value):
        return harness.results(path, value)
    if inspect_log.recognises(value):
        return inspect_log.read(path, value)
    if plain.recognises(value):
        return plain.flat(path, value, task)
    raise problem(path, "it is JSON, but no results that are known", f"looked for {LOOKED_FOR}")


def read_all(
    paths: Sequence[Path], task: str, lower: Iterable[str] = ()
) -> tuple[tuple[Score, ...], str, tuple[str, ...]]:
    """The scores of some files together, what they were read from, and remarks.

    Args:
        paths: files; outcomes of examples join the scores that they belong to.
        task: see `read`.
        lower: metrics of which less is better, as the project has it.

    Raises:
        EvaluationError: see `read`; or two files say different things of one score.
    """
    return united([read(path, task) for path in paths], lower)


def read_folder(
    folder: Path, output: str, task: str, lower: Iterable[str] = ()
) -> tuple[tuple[Score, ...], str, tuple[str, ...]]:
    """What a command left in its folder of results, else the score that it printed last.

    Other files than those that are known are passed over; a JSON file that is no result is named
    in a remark.

    Args:
        folder: is looked through with all folders below.
        output: what the command printed, or its end.
        task: what scores are called that do not say what they are of.
        lower: metrics of which less is better, as the project has it.

    Raises:
        EvaluationError: there is nothing, or something broken.
    """
    readings: list[Reading] = []
    remarks: list[str] = []
    for path in files_in(folder):
        try:
            readings.append(read(path, task))
        except EvaluationError as error:
            if "no results that are known" not in error.message:
                raise
            remarks.append(error.message)
    if readings:
        scores, source, more = united(readings, lower)
        return scores, source, (*more, *remarks)
    try:
        return united([plain.printed(output, task)], lower)
    except EvaluationError as error:
        left = f"{'; '.join(remarks)}; " if remarks else "it left no file of results; "
        raise EvaluationError(
            f"the evaluation gave no result: {left}{error.message}",
            hint=f"looked for {LOOKED_FOR}; or a last line with the score and the number of "
            "examples: 0.87 500",
        ) from error


def files_in(folder: Path) -> list[Path]:
    """The files of known kinds in a folder and those below, no links followed.

    Raises:
        EvaluationError: there are too many.
    """
    found: list[Path] = []
    count = 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        count += len(names)
        if count > limits.RESULT_FILES:
            raise EvaluationError(f"the evaluation left more than {limits.RESULT_FILES:,} files")
        paths = [Path(place, name) for name in sorted(names) if name.lower().endswith(_ENDINGS)]
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found


def united(
    readings: Iterable[Reading], lower: Iterable[str] = ()
) -> tuple[tuple[Score, ...], str, tuple[str, ...]]:
    """Scores with the outcomes that belong to them, ordered; their sources; and remarks.

    Raises:
        EvaluationError: two files say different things of one score, or the outcomes are of
            another run.
    """
    scores: dict[tuple[str, str], Score] = {}
    outcomes: dict[tuple[str, str], Outcomes] = {}
    readings = list(readings)
    for reading in readings:
        for score in reading.scores:
            known = scores.setdefault((score.task, score.metric), score)
            if known != score:
                raise EvaluationError(
                    f"two files give {score.name}: {known.value:g} and {score.value:g}",
                    hint="read the results of one run at a time",
                )
        for one in reading.outcomes:
            if outcomes.setdefault((one.task, one.metric), one) != one:
                raise EvaluationError(f"two files have the examples of {one.task}/{one.metric}")
    for key, one in outcomes.items():
        scores[key] = _joined(scores.get(key), one)
    ordered = sorted(scores.values(), key=lambda score: (score.task, score.metric))
    sources = dict.fromkeys(reading.source for reading in readings)
    most = [one for one in sources if not any(one != other and one in other for other in sources)]
    lower = tuple(lower)
    return (
        tuple(with_direction(score, lower) for score in ordered),
        ", ".join(most)[:1000],
        tuple(remark for reading in readings for remark in reading.remarks),
    )


def _joined(score: Score | None, one: Outcomes) -> Score:
    """A score with its examples; their mean, where no other file has it.

    Raises:
        EvaluationError: the examples are not those of the score.
    """
    examples = one.examples
    if score is None:
        score = Score(one.task, one.metric, one.mean)
    elif score.count not in (None, examples.count):
        raise EvaluationError(
            f"{score.name} is of {score.count:,} examples, but there are the outcomes of "
            f"{examples.count:,}: they are of another run"
        )
    elif one.metric.partition(",")[0] in SHARES and abs(one.mean - score.value) > _CLOSE:
        raise EvaluationError(
            f"{score.name} is {score.value:g}, but its examples have the mean {one.mean:g}: they "
            "are of another run"
        )
    joined = replace(score, count=examples.count, ids_hash=examples.ids_hash, examples=examples)
    # Kept with the score: whoever shows it need not load the outcomes.
    return replace(joined, stderr=joined.error)
