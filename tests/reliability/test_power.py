"""The power-loss model on each command that writes, and on stores that forget to sync."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.reliability.faults import Bench, Scenario
from tests.reliability.power import Recorded, record, replay, scenarios

WRITING = re.compile(r"/(theta|lfs)/tmp/")
TRIED = {scenario.name: scenario for scenario in scenarios(1)}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Where the commands are run."""
    return Bench(tmp_path_factory.mktemp("power") / "bench")


@pytest.mark.parametrize("scenario", TRIED.values(), ids=list(TRIED))
def test_no_state_has_a_name_without_its_object(bench: Bench, scenario: Scenario) -> None:
    recorded = record(bench, scenario)
    disk = replay(recorded)
    assert disk.wrong == []
    if scenario.name in ("add", "push", "theta push", "merge", "blend"):
        assert recorded.given > 0
        assert recorded.needed
    if scenario.name not in ("checkout", "merge"):  # these store nothing new
        assert disk.states > 5


@pytest.fixture(scope="module", params=["add", "push"])
def written(bench: Bench, request: pytest.FixtureRequest) -> Recorded:
    """A recorded command that writes objects."""
    return record(bench, TRIED[request.param])


@pytest.mark.parametrize("forgotten", ["file", "folder"])
def test_a_sync_left_out_is_noticed(written: Recorded, forgotten: str) -> None:
    kept = [
        ("none", rest, result)
        if call == "fsync" and bool(WRITING.search(rest)) == (forgotten == "file")
        else (call, rest, result)
        for call, rest, result in written.calls
    ]
    assert replay(replace(written, calls=kept)).wrong != []
