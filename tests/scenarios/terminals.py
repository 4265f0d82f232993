"""Commands that run on a terminal of their own."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path


def on_terminal(
    cwd: Path,
    *command: str,
    answers: bytes = b"",
    env: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> bytes:
    """What a command writes to a terminal on which `answers` are typed at once."""
    import pty  # Windows has none

    ours, its = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        command, cwd=cwd, stdin=its, stdout=its, stderr=its,
        env={**plain, "TERM": "xterm", "GIT_PAGER": "cat", "PAGER": "cat", **(env or {})},
    )  # fmt: skip
    os.close(its)
    os.write(ours, answers)
    written, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        ready, _, _ = select.select([ours], [], [], 0.5)
        if not ready:
            continue
        try:
            piece = os.read(ours, 65_536)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait(10) is not None
    return written
