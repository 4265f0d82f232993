"""Which checkpoints of a run stay: `best:3,last:5,every:1000`. Pure: no Git and no files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from git_theta_ext.core.errors import UsageError

Mode = Literal["min", "max"]

_KINDS = ("best", "last", "every")
_RULE = re.compile(r"([a-z]+):([0-9]{1,9})")
_FORM = "write it as best:3,last:5,every:1000, or some of these"


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint of a run: the step that it is of, its path from the top, and its metrics."""

    step: int
    path: str
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """What stays of the checkpoints of a run.

    Attributes:
        best, last: how many of the best by `metric`, and of the last ones.
        every: those of steps that this divides; 0 for none.
        metric: what the best are chosen by.
        mode: whether less of it is better.
    """

    best: int = 0
    last: int = 0
    every: int = 0
    metric: str | None = None
    mode: Mode = "min"

    def kept(self, saves: Sequence[Saved]) -> list[Saved]:
        """Those that stay, in the order in which they are given, the oldest first.

        The newest always stays: the training goes on from there. What has no number for the metric,
        or none that is finite, is not among the best; while nothing has one, all stay.
        """
        chosen = {one.path for one in saves[-max(self.last, 1) :]}
        if self.every:
            chosen |= {one.path for one in saves if one.step % self.every == 0}
        if self.best:
            chosen |= {one.path for one in self._best(saves)}
        return [one for one in saves if one.path in chosen]

    def _best(self, saves: Sequence[Saved]) -> Iterable[Saved]:
        """The best; of equals the earlier one."""
        name = self.metric or ""
        judged = [one for one in saves if math.isfinite(one.metrics.get(name, math.nan))]
        if not judged:
            return saves
        sign = 1.0 if self.mode == "min" else -1.0
        return sorted(judged, key=lambda one: sign * one.metrics[name])[: self.best]


def parse(text: str, metric: str | None, mode: str) -> Policy:
    """The policy that a user wrote.

    Args:
        text: rules with commas between them, each kind once: `best:3,last:5,every:1000`.
        metric: what the best are chosen by.
        mode: `min` or `max`.

    Raises:
        UsageError: it cannot be read, or names the best of no metric.
    """
    if mode not in ("min", "max"):
        raise UsageError(f"mode is min or max, not {mode!r}")
    found: dict[str, int] = {}
    for word in text.split(","):
        match = _RULE.fullmatch(word.strip())
        if match is None or match[1] not in _KINDS or match[1] in found or int(match[2]) < 1:
            raise UsageError(f"keep={text!r} cannot be read at {word.strip()!r}", hint=_FORM)
        found[match[1]] = int(match[2])
    if "best" in found and metric is None:
        raise UsageError(f"keep={text!r} does not say the best by what", hint="metric='eval_loss'")
    return Policy(**found, metric=metric, mode="min" if mode == "min" else "max")
