"""What a result of an evaluation is: its scores, and what became of each example.

A result belongs to the content of a checkpoint, not to a commit: `content` says which tensors were
measured, so that a rename, a rebase or another clone finds the result again. What is not known is
None, and None is equal to nothing: two results whose task hashes are both unknown may still be of
other tasks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError

Kind = Literal["right", "real"]
"""Of the outcomes of examples: right or wrong (one bit each), or numbers (64-bit floats)."""
Origin = Literal["measured", "imported"]
"""Whether our own run of the command gave a result, or somebody brought it."""

Floats = npt.NDArray[np.float64]
Ids = Sequence[str] | npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Examples:
    """What became of each example of a task, in the order of the examples' ids.

    Two of them with the same `ids_hash` are about the same examples in the same order, so that
    their outcomes can be paired by position. Not otherwise.

    `outcomes` is the packed encoding: for `right` one bit an example, the first in the highest bit
    and the last byte filled with zeros; for `real` little-endian 64-bit floats, all finite.
    """

    ids_hash: str
    kind: Kind
    count: int
    outcomes: bytes

    def __post_init__(self) -> None:
        """Hold the length to the count.

        Raises:
            ValueError: there are more or fewer outcomes than examples.
        """
        if self.count < 1 or len(self.outcomes) != packed_bytes(self.kind, self.count):
            raise ValueError(f"{len(self.outcomes)} bytes of outcomes for {self.count} examples")

    @classmethod
    def of(cls, outcomes: Mapping[str, float], kind: Kind) -> Self:
        """Encode outcomes by the ids of their examples; for `right` each is 0 or 1.

        Raises:
            UsageError: there are none, or too many; or one is not finite, or neither 0 nor 1.
        """
        if not 0 < len(outcomes) <= limits.EXAMPLES:
            raise UsageError(
                f"{len(outcomes):,} examples of one task; from 1 to {limits.EXAMPLES:,} are kept"
            )
        ids = sorted(outcomes)
        return cls.pack(ids, np.array([outcomes[one] for one in ids], np.float64), kind)

    @classmethod
    def pack(cls, ids: Ids, values: Floats, kind: Kind | None = None) -> Self:
        """Encode outcomes in the order of their ids, which are sorted and of which none is twice.

        Args:
            ids: of the examples.
            values: float64 of shape (len(ids),).
            kind: None: right or wrong if every outcome is 0 or 1.

        Raises:
            UsageError: an outcome is not finite, or of another kind.
        """
        binary = np.isin(values, (0.0, 1.0))
        kind = kind or ("right" if binary.all() else "real")
        fine = binary if kind == "right" else np.isfinite(values)
        if not fine.all():
            wrong = int(np.flatnonzero(~fine)[0])
            wanted = "0 or 1" if kind == "right" else "a finite number"
            raise UsageError(f"example {ids[wrong]!r} is {values[wrong]}, not {wanted}")
        packed = np.packbits(values == 1.0) if kind == "right" else values.astype("<f8")
        return cls(hash_of_ids(ids), kind, len(ids), packed.tobytes())

    def values(self) -> Floats:
        """The outcomes as float64 of shape (count,); right is 1, wrong is 0."""
        if self.kind == "right":
            bits = np.unpackbits(np.frombuffer(self.outcomes, np.uint8), count=self.count)
            return bits.astype(np.float64)
        return np.frombuffer(self.outcomes, "<f8").astype(np.float64)


def packed_bytes(kind: Kind, count: int) -> int:
    """How many bytes the outcomes of `count` examples take, packed."""
    return (count + 7) // 8 if kind == "right" else 8 * count


def hash_of_ids(ids: Iterable[str]) -> str:
    """The SHA-256 of sorted ids, each with its length before it."""
    digest = hashlib.sha256()
    for one in ids:
        data = one.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Score:
    """One number that an evaluation gave: `value` of `metric` at `task`.

    A metric that a harness measured behind a filter has its name behind a comma, unless that is
    `none`: `exact_match,strict-match`.

    Attributes:
        task: as the harness names it.
        metric: the metric, with its filter.
        value: finite.
        stderr: the standard error that came with it.
        higher_is_better: None: nobody said.
        count: of examples.
        version: what the harness says of the task beside its hash: `1.0, 5-shot`.
        task_hash: of the examples as they were asked (lm-evaluation-harness: `task_hashes`).
        ids_hash: that of `examples`, also where the outcomes themselves were not loaded.
        examples: what became of each; None: not given, or not loaded.
    """

    task: str
    metric: str
    value: float
    stderr: float | None = None
    higher_is_better: bool | None = None
    count: int | None = None
    version: str | None = None
    task_hash: str | None = None
    ids_hash: str | None = None
    examples: Examples | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be compared.

        Raises:
            ValueError: the value or its error is not a number, or the ids are of other examples.
        """
        if not math.isfinite(self.value):
            raise ValueError(f"{self.task}, {self.metric}: {self.value} is no score")
        if self.stderr is not None and not (math.isfinite(self.stderr) and self.stderr >= 0):
            raise ValueError(f"{self.task}, {self.metric}: {self.stderr} is no standard error")
        if self.examples is not None and self.ids_hash != self.examples.ids_hash:
            raise ValueError(f"{self.task}, {self.metric}: the examples have other ids")

    @property
    def name(self) -> str:
        """What people call it: `rte/acc`."""
        return f"{self.task}/{self.metric}"

    @property
    def error(self) -> float | None:
        """Its standard error: as given, else from the examples, else that of a share of `count`."""
        if self.stderr is not None:
            return self.stderr
        if self.examples is not None and self.examples.count > 1:
            values = self.examples.values()
            return float(values.std(ddof=1) / math.sqrt(len(values)))
        if self.metric.partition(",")[0] in SHARES and self.count and 0 <= self.value <= 1:
            return math.sqrt(self.value * (1 - self.value) / self.count)
        return None


SHARES = ("acc", "accuracy", "exact_match", "correct")
"""Metrics that are the share of examples that are right."""


@dataclass(frozen=True, slots=True)
class Result:
    """All scores of one run of an evaluation over one checkpoint.

    Attributes:
        content: the identity of what was measured (`evaluation.content`).
        evaluation: its name in `.theta.toml`.
        definition: `Evaluation.definition` of what ran; None for what was imported.
        examples_hash: of the files that `examples` of `.theta.toml` named, as they were when it
            ran; None: none were named, or it is not known.
        beside: of the other files of the model's folder; None where the command did not get them.
        origin: `measured` or `imported`.
        by: who, as Git names committers: `Ada <ada@example.org>`.
        when: seconds since 1970, UTC.
        rev: the commit that it was measured at, or "": a file, or a merge that was only tried.
        path: of the checkpoint, then.
        source: what the scores were read from: `lm-evaluation-harness 0.4.9`.
        scores: by task and metric, in that order.
    """

    content: str
    evaluation: str
    definition: str | None
    examples_hash: str | None
    beside: str | None
    origin: Origin
    by: str
    when: int
    rev: str
    path: str
    source: str
    scores: tuple[Score, ...]

    def score(self, task: str, metric: str) -> Score | None:
        """The score of a task by a metric, if it was measured."""
        return next((one for one in self.scores if (one.task, one.metric) == (task, metric)), None)
