"""Kill -9 at every system call that writes, of the commands that write."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.reliability.faults import SCENARIOS, Bench, sweep
from tests.reliability.rows import Row

KILL = "signal=SIGKILL"


def measure(scale: float) -> list[Row]:
    """Kill each command at a share of its points; `scale` 1 tries all."""
    with tempfile.TemporaryDirectory(prefix="theta-kills-") as folder:
        tally = sweep(Bench(Path(folder).resolve() / "bench"), SCENARIOS, [KILL], scale)
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    return [
        Row(
            "killed at a system call",
            f"strace kills {names} at each call that writes, syncs, renames, links or removes; then"
            " status, the same command again, fsck, every version read back",
            f"{tally.tried} points, {len(tally.wrong)} with something lost, wrong or left behind",
        )
    ]
