"""A system call that fails, for every call by which a command changes something.

    python -m tests.reliability --only errors

A full disk (ENOSPC), an exhausted quota (EDQUOT) and a failing disk (EIO) at each call, and a
folder that may only be read (EROFS) from the first call on. See `tracing.py` for how, and for what
must hold afterwards.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.reliability.kills import choose
from tests.reliability.rows import Row
from tests.reliability.tracing import COMMANDS, Laboratory

FAULTS = ("ENOSPC", "EDQUOT", "EIO", "EROFS")


def measure(scale: float) -> list[Row]:
    """Let a share of the calls of every command fail, each in every way."""
    with tempfile.TemporaryDirectory(prefix="theta-errors-") as folder:
        laboratory = Laboratory(Path(folder))
        tried, wrong = 0, []
        for command in COMMANDS:
            # Git's own handling of a failing disk is Git's; ours is under test.
            points = [one for one in laboratory.points(command) if one.process == "ours"]
            for point in choose(points, scale) if points else []:
                for fault in FAULTS:
                    tried += 1
                    found = laboratory.meet(point, f"error={fault}")
                    if found is not None:
                        wrong.append(f"{fault}: {found}")
                        print(wrong[-1], file=sys.stderr, flush=True)
    return [
        Row(
            "failing calls tried / versions lost or wrong afterwards",
            f"{', '.join(FAULTS)} at every call of this package that may change a file",
            f"{tried} / {len(wrong)}" + (f": {wrong[0]}" if wrong else ""),
        )
    ]
