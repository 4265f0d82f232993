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
    if scenario.name in ("add", "add many", "push", "push many", "theta push", "merge", "blend"):
        assert recorded.given > 0
        assert recorded.needed
    if scenario.name not in ("checkout", "merge", "resolve"):  # these store nothing new
        assert disk.states > 5


@pytest.fixture(scope="module", params=["add", "add many", "push", "push many"])
def written(bench: Bench, request: pytest.FixtureRequest) -> Recorded:
    """A recorded command that writes objects."""
    return record(bench, TRIED[request.param])


@pytest.mark.parametrize("forgotten", ["file", "folder"])
def test_a_sync_left_out_is_noticed(written: Recorded, forgotten: str) -> None:
    whole = [number for number, call in enumerate(written.calls) if call[0] == "syncfs"]
    left_out = whole[:1] if forgotten == "file" else whole[-1:]
    kept = [
        ("none", rest, result)
        if number in left_out
        or (call == "fsync" and bool(WRITING.search(rest)) == (forgotten == "file"))
        else (call, rest, result)
        for number, (call, rest, result) in enumerate(written.calls)
    ]
    assert replay(replace(written, calls=kept)).wrong != []


@pytest.mark.parametrize("name", ["add many", "push many"])
def test_many_objects_are_flushed_together(bench: Bench, name: str) -> None:
    calls = [call for call, _, _ in record(bench, TRIED[name]).calls]
    assert calls.count("syncfs") == 2, "this file system is one that can be flushed as a whole"
