"""A few of the failing system calls of `errors.py` in every test run."""

from __future__ import annotations

from pathlib import Path

from tests.reliability.errors import ERRORS, SIGNALS
from tests.reliability.faults import SCENARIOS, Bench, sweep


def test_a_call_that_fails_loses_nothing(tmp_path: Path) -> None:
    chosen = [scenario for scenario in SCENARIOS if scenario.name in ("add", "theta push")]
    tally = sweep(Bench(tmp_path / "bench"), chosen, [*ERRORS, *SIGNALS], 1 / 280)
    assert tally.tried >= len(chosen)
    assert tally.wrong == []
