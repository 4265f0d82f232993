"""A few of the kill points of `kills.py` in every test run."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.reliability.faults import SCENARIOS, Bench, sweep
from tests.reliability.kills import KILL


def test_strace_is_here() -> None:
    assert shutil.which("strace"), "strace is not installed; .ci/run installs it"


def test_a_kill_at_any_write_loses_nothing(tmp_path: Path) -> None:
    chosen = [scenario for scenario in SCENARIOS if scenario.name in ("add", "checkout", "prune")]
    tally = sweep(Bench(tmp_path / "bench"), chosen, [KILL], 1 / 40)
    assert tally.tried >= len(chosen)
    assert tally.wrong == []


def test_what_is_lost_is_noticed(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench")
    repo = bench.copy(SCENARIOS[0])
    assert bench.lost(repo) == []
    for root in (repo / ".git/theta/objects", repo.parent / "remote.git/lfs/objects"):
        for path in root.glob("??/??/*"):
            data = path.read_bytes()
            path.chmod(0o644)
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert len(bench.lost(repo)) == len(bench.promised)
