"""What a gate says of an update: one row for each score or property that it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from git_theta_ext.evaluation.config import Gate
from git_theta_ext.evaluation.gates.compare import Difference

Verdict = Literal["accepted", "refused", "unmeasured", "incomparable"]

CODES: dict[Verdict, int] = {"accepted": 0, "refused": 1, "unmeasured": 3, "incomparable": 3}
"""Exit codes of `git theta check`."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one gate says of one checkpoint, of a score or of the checkpoint itself.

    Attributes:
        gate: the rule.
        path: of the checkpoint.
        subject: what was looked at: `rte/acc`, `stored`, `new NaN`, `frozen`.
        verdict: whether the update is accepted.
        reasons: sentences that say why; of an accepted row, what a reader may want to know.
        against: what it was compared with: `base`, `best (1a2b3c4)`, `v1.0`, `parent 2`; or "".
        before, after: the two scores; None where they are not known, or there is none.
        difference: of the two, with its test; None where nothing was compared.
        limits: the lower and the upper limit of the difference, each with the gate's confidence;
            None where they are not known.
        p: the p-value of a drop beyond what is allowed, corrected for the other gates; None where
            none was tested.
        higher_is_better: the direction of the metric.
    """

    gate: Gate
    path: str
    subject: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    against: str = ""
    before: float | None = None
    after: float | None = None
    difference: Difference | None = None
    limits: tuple[float, float] | None = None
    p: float | None = None
    higher_is_better: bool = True

    @property
    def name(self) -> str:
        """The gate, and what it looked at, where its name does not say so."""
        plain = self.gate.name
        return plain if plain.endswith(self.subject) else f"{plain}: {self.subject}"


def code_of(rows: Sequence[Row]) -> int:
    """The exit code: 1 where one is refused, else 3 where one could not be judged, else 0.

    What was refused stays refused, whatever else is measured.
    """
    codes = {CODES[row.verdict] for row in rows}
    return 1 if 1 in codes else max(codes, default=0)
