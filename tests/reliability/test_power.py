"""The power-loss model on one `git add`, and on stores that forget to sync."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.reliability.faults import Bench
from tests.reliability.power import Recorded, replay, try_add


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorded, set[str], dict[str, int]]:
    """One recorded `git add`."""
    return try_add(Bench(tmp_path_factory.mktemp("power") / "bench"), 9)


def test_no_state_has_a_name_without_its_object(
    added: tuple[Recorded, set[str], dict[str, int]],
) -> None:
    recorded, needed, sizes = added
    assert recorded.answered > 0
    assert needed
    disk = replay(recorded, needed, sizes)
    assert disk.states > 5
    assert disk.wrong == []


@pytest.mark.parametrize("forgotten", ["file", "folder"])
def test_a_sync_left_out_is_noticed(
    added: tuple[Recorded, set[str], dict[str, int]], forgotten: str
) -> None:
    recorded, needed, sizes = added
    kept = [
        ("none", rest, result)
        if call == "fsync" and ("/theta/tmp/" in rest) == (forgotten == "file")
        else (call, rest, result)
        for call, rest, result in recorded.calls
    ]
    assert replay(replace(recorded, calls=kept), needed, sizes).wrong != []
