"""A process killed at every system call by which a command changes something.

    python -m tests.reliability --only kills

See `tracing.py` for how, and for what must hold afterwards.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.reliability.rows import Row
from tests.reliability.tracing import COMMANDS, Laboratory, Point

FAULT = "signal=KILL"


def choose(points: list[Point], scale: float) -> list[Point]:
    """A share of the points, evenly spread, at least one."""
    count = max(1, round(len(points) * scale))
    return [points[number * len(points) // count] for number in range(count)]


def measure(scale: float) -> list[Row]:
    """Kill at a share of the points of every command."""
    with tempfile.TemporaryDirectory(prefix="theta-kills-") as folder:
        laboratory = Laboratory(Path(folder))
        tried, wrong = 0, []
        for command in COMMANDS:
            for point in choose(list(laboratory.points(command)), scale):
                tried += 1
                found = laboratory.meet(point, FAULT)
                if found is not None:
                    wrong.append(found)
                    print(found, file=sys.stderr, flush=True)
    names = ", ".join(command.name for command in COMMANDS)
    return [
        Row(
            "kill points tried / versions lost or wrong afterwards",
            f"strace kills the process at every call that may change a file, in {names}",
            f"{tried} / {len(wrong)}" + (f": {wrong[0]}" if wrong else ""),
        )
    ]
