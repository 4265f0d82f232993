"""The failures of git-theta 0.2 as a line of the table: one test each (test_losses.py)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.reliability.rows import Row

_ROOT = Path(__file__).parents[2]


def measure(scale: float) -> list[Row]:
    """Run all of them, whatever the scale."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         "tests/reliability/test_losses.py"],
        cwd=_ROOT, capture_output=True, check=False, text=True,
    )  # fmt: skip
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)
    }
    passed = counts.pop("passed", 0)
    return [
        Row(
            "ways in which git-theta 0.2 was seen to lose data or to fail",
            f"a test for each: {passed + sum(counts.values())} in all",
            f"{passed} passed, {sum(counts.values())} failed",
        )
    ]
