"""The rules of gates about scores, as functions of results: nothing is read here.

A score that was not measured is never a pass, and scores of other examples are never compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from git_theta_ext.evaluation.config import Evaluation, Gate
from git_theta_ext.evaluation.gates.compare import (
    WORDS,
    Difference,
    compare,
    holm,
)
from git_theta_ext.evaluation.gates.verdict import Row
from git_theta_ext.evaluation.results import Result, Score


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a checkpoint, and all that is known of its scores.

    Attributes:
        label: what reports call it: `base`, `best`, `v1.0`, `parent 2`, `this`.
        rev: the commit, to be measured by `git theta evaluate`; "" where there is none.
        content: the identity of its tensors; None where the checkpoint was not there, "" where it
            was not stored tensor by tensor.
        results: of the evaluation in question, the newest first.
        beside: of the other files of its folder; None where they do not count.
        subjects: the scores that it is to be compared by, as `rte/acc`; None: all that no other
            version is for.
    """

    label: str
    rev: str
    content: str | None
    results: tuple[Result, ...] = ()
    beside: str | None = None
    subjects: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """The label and the commit."""
        return f"{self.label} ({self.rev[:10]})" if self.rev else self.label


@dataclass(frozen=True, slots=True)
class Case:
    """One gate, applied to one checkpoint: the update, and the versions it is compared with."""

    gate: Gate
    evaluation: Evaluation
    path: str
    update: Version
    others: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class _Trial:
    """A row that waits for the correction of its p-value."""

    row: Row
    drop: float | None = None


def judge(cases: Sequence[Case]) -> list[Row]:
    """The rows of all cases; p-values are corrected over the drops that all of them look for."""
    trials = [trial for case in cases for trial in _trials(case)]
    tested = [at for at, trial in enumerate(trials) if trial.drop is not None]
    corrected = holm([trials[at].drop or 0.0 for at in tested])
    found = dict(zip(tested, corrected, strict=True))
    return [
        trial.row if at not in found else _dropped(trial, found[at], len(tested))
        for at, trial in enumerate(trials)
    ]


def _trials(case: Case) -> Iterator[_Trial]:
    """A trial for each score that the gate names, and each version that it is compared with."""
    gate = case.gate
    names = _names(case)
    if not names:
        yield _Trial(_unmeasured(case, gate.task or "all tasks", case.update))
    for task, metric in names:
        after = _found(case, case.update, task, metric)
        if not after:
            yield _Trial(_unmeasured(case, f"{task}/{metric}", case.update))
            continue
        bounded = _bounded(case, after[0][1], _said_twice(after))
        if gate.max_drop is None and gate.min_gain is None:
            yield _Trial(bounded)
            continue
        own = [one for one in case.others if f"{task}/{metric}" in (one.subjects or ())]
        for other in own or (one for one in case.others if one.subjects is None):
            trial = _against(case, other, task, metric, after)
            if bounded.verdict == "refused":
                reasons = (*bounded.reasons, *trial.row.reasons)
                trial = replace(trial, row=replace(trial.row, verdict="refused", reasons=reasons))
            yield trial


Found = list[tuple[Result, Score]]


def _names(case: Case) -> list[tuple[str, str]]:
    """The tasks and metrics that a gate looks at, of all that the command gave for any version."""
    gate = case.gate
    found = {
        (score.task, score.metric)
        for one in (case.update, *case.others) for result in one.results for score in result.scores
        if _is_of(case, result)
        and gate.task in (None, score.task) and _is_metric(gate.metric, score.metric)
    }  # fmt: skip
    return sorted(found)


def _is_metric(wanted: str | None, metric: str) -> bool:
    """Whether a metric is the one of a gate, which need not name the harness's filter."""
    return wanted is None or wanted in (metric, metric.partition(",")[0])


def _found(case: Case, version: Version, task: str, metric: str) -> Found:
    """The scores of one version that the command as it is now may have given, the newest first."""
    found = []
    for result in version.results:
        score = result.score(task, metric)
        if score is not None and _is_of(case, result):
            found.append((result, score))
    return found


def _is_of(case: Case, result: Result) -> bool:
    """Whether a result may be of the command as it is now: of what was imported nobody knows."""
    return result.definition in (None, case.evaluation.definition)


def _unmeasured(case: Case, subject: str, version: Version) -> Row:
    """The row of a score that a version lacks; says what measures it."""
    name = case.evaluation.name
    why = f"{version.name} was not measured by {name}"
    if any(_is_of(case, one) for one in version.results):
        why = f"{version.name} was measured by {name}, without {subject}"
    elif version.results:
        why = f"{version.name} was measured by another command of {name}"
    if version.content is None:
        why = f"{case.path} is not in {version.name}"
    elif not version.content and version.rev:
        why = f"{case.path} is not stored tensor by tensor in {version.name}"
    elif not version.content:
        why = f"there is no {version.name} here"
    elif version.rev:
        why += f": git theta evaluate {version.rev[:10]}"
    return Row(case.gate, case.path, subject, "unmeasured", (why,), _label(case, version))


def _label(case: Case, version: Version) -> str:
    return "" if version is case.update else version.label


def _said_twice(found: Found) -> tuple[str, ...]:
    """What is said where several people measured the same, with other results."""
    values = {score.value for _, score in found}
    if len(values) < 2:
        return ()
    each = ", ".join(f"{score.value:.4g} by {result.by}" for result, score in found[:5])
    return (f"{len(found)} results differ ({each}); the newest counts",)


def _bounded(case: Case, score: Score, notes: tuple[str, ...]) -> Row:
    """The row of `min` and `max`; with `prove` the limit of the score itself has to hold them.

    A gate without the two accepts.
    """
    gate = case.gate
    low = high = score.value
    sure = ""
    if gate.prove and (gate.min is not None or gate.max is not None):
        alone = Score(score.task, score.metric, 0.0, 0.0)
        found = compare(alone, replace(score, stderr=score.error, examples=None, ids_hash=None,
                                       count=None))  # fmt: skip
        if found.how == "numbers":
            why = "it cannot be proved: neither examples nor a standard error are known"
            return Row(gate, case.path, score.name, "refused", (why, *notes), after=score.value)
        low, high = found.test.limits(gate.confidence)
        sure = f" with {gate.confidence:.0%} confidence"
    wrong = []
    if gate.min is not None and low < gate.min:
        wrong.append(f"{low:.4g}{sure} is below the minimum of {gate.min:g}")
    if gate.max is not None and high > gate.max:
        wrong.append(f"{high:.4g}{sure} is above the maximum of {gate.max:g}")
    verdict = "refused" if wrong else "accepted"
    return Row(gate, case.path, score.name, verdict, (*wrong, *notes), after=score.value)  # type: ignore[arg-type]


def _against(case: Case, other: Version, task: str, metric: str, after: Found) -> _Trial:
    """The trial of one score against one other version."""
    gate, subject = case.gate, f"{task}/{metric}"
    update = case.update
    if other.content and (other.content, other.beside) == (update.content, update.beside):
        row = Row(gate, case.path, subject, "accepted", ("the tensors are the same",), other.label)
        return _Trial(replace(row, before=after[0][1].value, after=after[0][1].value))
    if other.content is None:
        verdict = "refused" if gate.min_gain is not None else "accepted"
        why = f"{case.path} is not in {other.name}: there is nothing to compare with"
        row = Row(gate, case.path, subject, verdict, (why,), other.label, None, after[0][1].value)  # type: ignore[arg-type]
        return _Trial(row)
    before = _found(case, other, task, metric)
    if not before:
        return _Trial(replace(_unmeasured(case, subject, other), after=after[0][1].value))
    matching = [
        (old, new) for new in after for old in before if not why_incomparable(old, new)
    ]  # fmt: skip
    if not matching:
        why = why_incomparable(before[0], after[0])
        row = Row(gate, case.path, subject, "incomparable", (why,), other.label,
                  before[0][1].value, after[0][1].value)  # fmt: skip
        return _Trial(row)
    old, new = matching[0]
    notes = (*_said_twice(before), *_said_twice(after), *_said_unsure(old, new))
    return _compared(case, other, old[1], new[1], notes)


def why_incomparable(old: tuple[Result, Score], new: tuple[Result, Score]) -> str:
    """Why two scores are not of the same task and examples; "" where nothing says so.

    What is unknown on a side says nothing.
    """
    pairs = (
        ("the files of examples are not the same", old[0].examples_hash, new[0].examples_hash),
        ("the harness asked other questions (task hash)", old[1].task_hash, new[1].task_hash),
        ("the versions of the task are not the same", old[1].version, new[1].version),
        ("the examples are not the same", old[1].ids_hash, new[1].ids_hash),
        ("the numbers of examples are not the same", old[1].count, new[1].count),
    )
    for words, before, after in pairs:
        if before is not None and after is not None and before != after:
            return f"{words}: measure both versions with the same"
    return ""


def _said_unsure(old: tuple[Result, Score], new: tuple[Result, Score]) -> tuple[str, ...]:
    """What is said where nothing tells that two scores are of the same examples."""
    known = (
        (old[0].definition, new[0].definition), (old[0].examples_hash, new[0].examples_hash),
        (old[1].task_hash, new[1].task_hash), (old[1].ids_hash, new[1].ids_hash),
    )  # fmt: skip
    if any(before is not None and before == after for before, after in known):
        return ()
    return ("nothing tells whether both are of the same examples",)


def _compared(case: Case, other: Version, old: Score, new: Score, notes: tuple[str, ...]) -> _Trial:
    """The trial of two scores of the same examples."""
    gate = case.gate
    told = is_higher_better(case.evaluation, new, old)
    found = compare(old, new)
    limits = None if found.how == "numbers" else found.test.limits(gate.confidence)
    level = 1 - gate.confidence
    wrong: list[str] = []
    if gate.min_gain is not None:
        shown = _p_not_more(found, gate.min_gain, told)
        if shown >= level or found.how == "numbers":
            wrong.append(f"a gain of more than {gate.min_gain:g} is not shown")
    if gate.max_drop is not None and gate.prove:
        shown = _p_not_more(found, -gate.max_drop, told)
        if shown >= level or found.how == "numbers":
            wrong.append(f"a drop of more than {gate.max_drop:g} cannot be excluded")
    drop = None
    if gate.max_drop is not None and not gate.prove:
        drop = found.test.at_least(-gate.max_drop) if told else found.test.at_most(gate.max_drop)
    if found.how == "numbers":
        notes = (*notes, WORDS["numbers"])
        if drop == 0:
            wrong.append(f"it dropped by more than {gate.max_drop:g}")
        drop = None  # (it is no p-value, and has no part in a correction)
    row = Row(
        gate, case.path, new.name, "refused" if wrong else "accepted", (*wrong, *notes),
        other.label, old.value, new.value, found, limits, None, told,
    )  # fmt: skip
    return _Trial(row, drop)


def _p_not_more(found: Difference, gain: float, higher_is_better: bool) -> float:
    """The p-value of "the update gained this or less"; small: it gained more."""
    return found.test.at_most(gain) if higher_is_better else found.test.at_least(-gain)


def _dropped(trial: _Trial, p: float, tests: int) -> Row:
    """The row of a trial with its corrected p-value, refused where that shows a larger drop."""
    row, level = replace(trial.row, p=p), 1 - trial.row.gate.confidence
    bound = f"{row.gate.max_drop:g}"
    if p < level:
        why = f"it dropped by more than {bound} (p {_p(p)})"
        return replace(row, verdict="refused", reasons=(why, *row.reasons))
    if trial.drop is not None and trial.drop < level:
        why = f"by itself it dropped by more than {bound} (p {_p(trial.drop)}); of {tests} tests, "
        why += f"one that says so is no surprise (p {_p(p)})"
        return replace(row, reasons=(*row.reasons, why))
    return row


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def with_results(
    version: Version, evaluation: Evaluation, known: Mapping[str, tuple[Result, ...]]
) -> Version:
    """A version with its results of one evaluation, out of those of all contents."""
    found = known.get(version.content or "", ())
    mine = (one for one in found if one.evaluation == evaluation.name)
    if version.beside is not None:
        mine = (one for one in mine if one.beside in (None, version.beside))
    return replace(version, results=tuple(mine))


def best(
    versions: Sequence[Version], gate: Gate, evaluation: Evaluation, update: Version
) -> list[Version]:
    """Of some versions those with the best score of a metric, each for those metrics alone.

    Scores that cannot be compared with the update's do not count.

    Args:
        versions: all that there were, with their results.
        gate: says which scores count.
        evaluation: gives the directions of metrics.
        update: what they are to be compared with.
    """
    found: dict[str, tuple[float, Version]] = {}
    for version in versions:
        case = Case(gate, evaluation, "", update, (version,))
        for task, metric in _names(case):
            now = _found(case, update, task, metric)
            for result, score in _found(case, version, task, metric):
                if now and why_incomparable((result, score), now[0]):
                    continue
                value = score.value if is_higher_better(evaluation, score) else -score.value
                if score.name not in found or value > found[score.name][0]:
                    found[score.name] = (value, version)
    held: dict[str | None, set[str]] = {}
    for name, (_, version) in found.items():
        held.setdefault(version.content, set()).add(name)
    firsts = {one.content: one for one in reversed(versions)}
    return [
        replace(firsts[content], label="best", subjects=frozenset(names))
        for content, names in held.items()
    ]


def is_higher_better(evaluation: Evaluation, *scores: Score) -> bool:
    """The direction of a metric: as the first of some scores says that knows, else the settings."""
    told = [one.higher_is_better for one in scores if one.higher_is_better is not None]
    return told[0] if told else scores[0].metric.partition(",")[0] not in evaluation.lower_is_better
