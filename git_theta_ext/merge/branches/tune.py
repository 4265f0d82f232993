"""Find a merge by evaluating candidates: about ten evaluations find nearly the best of many.

Of 29 candidates on small models (benchmarks/training.py) these came near the best, where a plain
average was up to 13 points away. Every candidate is written into a temporary folder; neither work
tree nor index is touched.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from git_theta_ext.checkpoints.placed import write_file
from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core import files
from git_theta_ext.core.errors import EvaluationError, StoreError, UsageError
from git_theta_ext.git.process import run_program
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.manifest.text import manifest_bytes
from git_theta_ext.merge.combine.apply import merge
from git_theta_ext.merge.combine.merger import Statistics
from git_theta_ext.merge.decide.changed_on_both import Pair
from git_theta_ext.merge.decide.scaling import Scalings
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.objects.blocks import Blocks

ENOUGH = 100
"""Examples below which an accuracy says little: its standard error is 4 points and more."""
PLACE = "{checkpoint}"
_ELSEWHERE = ("{model_dir}", "{results}", "{rev}")
"""Places that only `git theta evaluate` fills."""


@dataclass(frozen=True, slots=True)
class Score:
    """What an evaluation printed: a number, higher is better, and how many examples it saw."""

    value: float
    examples: int | None = None

    @property
    def error(self) -> float | None:
        """The standard error of an accuracy (a score from 0 to 1 over known examples)."""
        if not self.examples or not 0 <= self.value <= 1:
            return None
        return math.sqrt(self.value * (1 - self.value) / self.examples)


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate and its score; `choice` is None for the versions that are there already.

    `remembered`: an earlier run, which was interrupted, has evaluated it. `left` parts of it stay
    open, and ours stood for them. `manifest`: what was evaluated; None if it is remembered.
    """

    label: str
    choice: Choice | None
    score: Score
    remembered: bool = False
    left: int = 0
    manifest: Manifest | None = None


Evaluate = Callable[[Path], Score]


def command_of(text: str) -> list[str]:
    """The words of an evaluation command.

    Raises:
        UsageError: it does not say where the checkpoint goes, or has a place that is not filled.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--tune: {error}: {text!r}") from error
    if not any(PLACE in word for word in words):
        raise UsageError(
            f"the evaluation command does not name the checkpoint: {text!r}",
            hint=f"put {PLACE} where its path goes: --tune 'python evaluate.py {PLACE}'",
        )
    unknown = next((place for place in _ELSEWHERE if any(place in word for word in words)), None)
    if unknown is not None:
        raise UsageError(
            f"--tune knows only {PLACE}, not {unknown}: {text!r}",
            hint="candidates are told apart by one score: the command prints it as its last line",
        )
    return words


def evaluator(words: Sequence[str], folder: Path) -> Evaluate:
    """Runs a command in a folder; the last line that it prints is `SCORE` or `SCORE EXAMPLES`."""

    def evaluate(checkpoint: Path) -> Score:
        command = [word.replace(PLACE, str(checkpoint)) for word in words]
        status, output, errors = run_program(command, folder)
        if status:
            last = errors.decode("utf-8", "replace").strip().splitlines()[-5:]
            raise EvaluationError("\n".join([f"the evaluation exited with {status}:", *last]))
        return parse_score(output.decode("utf-8", "replace"))

    return evaluate


def parse_score(output: str) -> Score:
    """The score that an evaluation printed.

    Raises:
        EvaluationError: its last line is not one or two numbers.
    """
    lines = [line for line in output.splitlines() if line.strip()]
    words = lines[-1].split() if lines else []
    try:
        value = float(words[0])
        examples = int(words[1]) if len(words) > 1 else None
        if len(words) <= 2 and (examples is None or examples > 0):
            return Score(value if math.isfinite(value) else -math.inf, examples)
    except (ValueError, IndexError):
        pass
    ended = f"ended with {lines[-1][:80]!r}" if lines else "printed nothing"
    raise EvaluationError(
        f"the evaluation {ended}",
        hint="its last line must be the score (higher is better) and the number of examples, such "
        "as: 0.87 500",
    )


@dataclass(frozen=True, slots=True)
class Contest:
    """What is to be merged: the versions by label, the ancestor's not among them, and how.

    `make` gives the merge by a strategy; `path` is the checkpoint's: the evaluation sees its name.
    `measured` names the strategies (`regmean`, `fisher`) whose statistics all sides have. `left`
    says how many parts a merge that was made left open, by its strategy.
    """

    path: str
    base: Manifest | None
    sides: Mapping[str, Manifest]
    make: Callable[[Choice], Manifest]
    measured: tuple[str, ...] = ()
    left: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        pair: Pair,
        blocks: Blocks,
        statistics: Statistics | None = None,
        measured: tuple[str, ...] = (),
        scalings: Scalings | None = None,
    ) -> Contest:
        """The contest of two sides.

        Args:
            pair: the checkpoint: its path, base and two sides.
            blocks: where its objects are, and the results' go.
            statistics: what Fisher and RegMean need.
            measured: the strategies whose statistics both sides have.
            scalings: what the configuration beside an adapter says; None: there is none.
        """

        left: dict[str, int] = {}

        def make(choice: Choice) -> Manifest:
            merged = merge(
                pair.base, pair.ours, pair.theirs, blocks, lambda _: choice,
                statistics=statistics, scalings=scalings,
            )  # fmt: skip
            left[str(choice)] = len(merged.open)
            return merged.manifest

        sides = {"ours": pair.ours, "theirs": pair.theirs}
        return cls(pair.path, pair.base, sides, make, measured, left)


def tune(
    contest: Contest, blocks: Blocks, evaluate: Evaluate, memory: Memory | None = None
) -> Iterator[Trial]:
    """Evaluate the versions that there are, then merges of them, each as soon as it is done.

    Args:
        contest: the versions.
        blocks: where their objects are; what is merged is stored there too.
        evaluate: gives the score of a checkpoint in a temporary folder.
        memory: what an interrupted run has evaluated is taken from it, and each score kept in it.
    """
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        place = Path(folder) / PurePosixPath(contest.path).name

        def trial(label: str, choice: Choice | None, make: Callable[[], Manifest]) -> Trial:
            known = memory.get(label) if memory else None
            if known is not None:
                return Trial(label, choice, known, remembered=True)
            made = make()
            write_file(place, Smudger(made, blocks))
            left = contest.left.get(label, 0)
            found = Trial(label, choice, evaluate(place), left=left, manifest=made)
            if memory is not None:
                memory.put(label, found.score)
            return found

        found: list[Trial] = []
        versions = {"base": contest.base, **contest.sides}
        for label, manifest in versions.items():
            if manifest is not None:
                found.append(trial(label, None, lambda one=manifest: one))  # type: ignore[misc]
                yield found[-1]
        for choice in candidates(contest, found):
            found.append(trial(str(choice), choice, lambda one=choice: contest.make(one)))  # type: ignore[misc]
            yield found[-1]
    if memory is not None:
        memory.forget()


class Memory:
    """The scores of a run that is under way, in a file, so that an interrupted one goes on."""

    def __init__(self, path: Path) -> None:
        """`path` need not exist; a file that cannot be read is as none."""
        self._path = path
        self._known: dict[str, Score] = {}
        with suppress(OSError, ValueError, TypeError, AttributeError):
            for label, (value, examples) in json.loads(path.read_text("utf-8")).items():
                self._known[label] = Score(float(value), examples and int(examples))

    @classmethod
    def of(cls, folder: Path, contest: Contest, words: Sequence[str]) -> Memory:
        """The memory of these versions, merged for this command, in a folder."""
        digest = hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape"))
        for manifest in (contest.base, *contest.sides.values()):
            digest.update(b"\0" + (manifest_bytes(manifest) if manifest else b""))
        return cls(folder / f"tune-{digest.hexdigest()}.json")

    def get(self, label: str) -> Score | None:
        """The score of a candidate, if it was evaluated."""
        return self._known.get(label)

    def put(self, label: str, score: Score) -> None:
        """Keep a score.

        Raises:
            StoreError: the file cannot be written.
        """
        self._known[label] = score
        rows = {name: (one.value, one.examples) for name, one in self._known.items()}
        try:
            self._path.parent.mkdir(exist_ok=True)
            files.replace_file(self._path, json.dumps(rows).encode())
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror or error}") from error

    def forget(self) -> None:
        """Remove the file: the run is complete."""
        with suppress(OSError):
            self._path.unlink()


def candidates(contest: Contest, trials: Sequence[Trial]) -> Iterator[Choice]:
    """Lengths of the merged update, the sphere, statistics, unequal weights, TIES.

    What comes later depends on the trials so far: one more length beside the best, and weights
    that favour the best side; or, where both sides forgot so much that the base is still the
    best, a merge that stays close to it.
    """
    sides = [one for one in trials if one.choice is None and one.label != "base"]
    best_side = max(range(len(sides)), key=lambda number: sides[number].score.value)
    yield from (Choice(name) for name in contest.measured)
    yield Choice("karcher")
    if contest.base is None:
        yield Choice("average")
        for number in range(len(sides)):
            yield Choice("average", (("weights", _favour(number, len(sides))),))
        return
    for length in (0.5, 0.7, 1.0):
        yield _sum(length)
    lengths = [one for one in trials if one.choice and one.choice.strategy == "task-arithmetic"]
    best = max(lengths, key=lambda trial: trial.score.value)
    yield _sum(0.3 if best.choice == _sum(0.5) else 0.85)
    if max(trials, key=lambda trial: trial.score.value).label == "base":
        yield _sum(0.15)
    else:
        yield Choice("task-arithmetic", (("weights", _favour(best_side, len(sides))),))
    yield Choice("ties", (("density", 0.5),))


def _favour(one: int, count: int) -> tuple[float, ...]:
    """Weights of which one side's is twice the others'."""
    return tuple(1.0 if number == one else 0.5 for number in range(count))


def _sum(length: float) -> Choice:
    return Choice("task-arithmetic", (("lambda", length),))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The best merge, the best version without one, and what to say of the two."""

    best: Trial
    without: Trial
    remarks: tuple[str, ...]

    @property
    def worth_it(self) -> bool:
        """Whether the merge scored higher than each version by itself."""
        return self.best.score.value > self.without.score.value


def judge(trials: Sequence[Trial]) -> Verdict:
    """Compare what was evaluated; of equal scores the first counts."""
    best = max((one for one in trials if one.choice), key=lambda one: one.score.value)
    sides = [one for one in trials if one.choice is None and one.label != "base"]
    without = max(sides, key=lambda one: one.score.value)
    remarks = []
    errors = [one.score.error for one in (best, without)]
    examples = best.score.examples
    if examples is None:
        remarks.append("print the number of examples after the score to see how sure this is")
    elif examples < ENOUGH:
        remarks.append(f"{examples} examples say little; take at least {ENOUGH}")
    if all(error is not None for error in errors):
        margin = math.hypot(*(error or 0.0 for error in errors))
        if 0 < best.score.value - without.score.value < margin:
            remarks.append("the merge is better by less than one standard error")
    if best.score.value <= without.score.value:
        remarks.insert(0, f"no merge beats {without.label}")
    base = next((one for one in trials if one.label == "base"), None)
    if base is not None and base.score.value > max(best.score.value, without.score.value):
        remarks.append("the base is better than every side and every merge")
    return Verdict(best, without, tuple(remarks))
