"""Three ways to change a file in the middle of a `git add`."""

from __future__ import annotations

import random
from pathlib import Path

from tests.reliability.changing import CHANGES, attempt
from tests.reliability.faults import Bench


def test_a_file_that_changes_while_it_is_added(tmp_path: Path) -> None:
    bench, moments = Bench(tmp_path / "bench"), random.Random(3)
    for change in CHANGES[:3]:
        assert attempt(bench, change, 0.05 + moments.random() * 0.5) == []
