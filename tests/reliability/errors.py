"""Full disks, broken disks, used-up quotas and read-only folders at every call that writes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.reliability.faults import SCENARIOS, Bench, sweep
from tests.reliability.rows import Row

ERRORS = ("error=ENOSPC", "error=EIO", "error=EDQUOT", "error=EROFS", "error=EACCES")
SIGNALS = ("signal=SIGINT", "signal=SIGTERM")


def measure(scale: float) -> list[Row]:
    """Let a share of the calls of each command fail or be interrupted; `scale` 1 tries all."""
    rows = []
    for what, faults in (("failing", ERRORS), ("interrupted", SIGNALS)):
        with tempfile.TemporaryDirectory(prefix="theta-errors-") as folder:
            tally = sweep(Bench(Path(folder).resolve() / "bench"), SCENARIOS, faults, scale)
        names = ", ".join(fault.partition("=")[2] for fault in faults)
        rows.append(
            Row(
                f"system calls {what}",
                f"{names}, injected by strace at each call that writes; then status, the same"
                " command again, fsck, every version read back",
                f"{tally.tried} tried, {len(tally.wrong)} with something lost, wrong or left"
                " behind",
            )
        )
    return rows
