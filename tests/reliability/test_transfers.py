"""A share of the transfer faults in every test run; all of them: see `transfers.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reliability.transfers import (
    COMMANDS,
    NAME,
    TROUBLES,
    Command,
    Laboratory,
    Trouble,
    pairs,
)
from tests.servers.site import site

SHARE = (
    ("batch 401", "push", False),
    ("object 500", "push", False),
    ("object cut", "theta push", False),
    ("acknowledged, lost", "push", False),
    ("half of the objects", "push", True),
    ("no git-lfs", "pull", False),
    ("corrupted", "pull", False),
    ("truncated", "clone", False),
    ("batch 503", "checkout", False),
    ("half of the objects", "theta pull", False),
    ("object 429 once", "theta fetch", True),
)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with site("giftless", tmp_path_factory.mktemp("faults")) as host:
        yield Laboratory(host)


def find(trouble: str, command: str) -> tuple[Trouble, Command]:
    return (
        next(item for item in TROUBLES if item.name == trouble),
        next(item for item in COMMANDS if item.name == command),
    )


@pytest.mark.parametrize(("trouble", "command", "succeeds"), SHARE)
def test_a_fault_loses_nothing(
    laboratory: Laboratory, trouble: str, command: str, succeeds: bool
) -> None:
    outcome = laboratory.run(*find(trouble, command))
    assert outcome.problems() == []
    assert (outcome.status == 0) is succeeds


def test_what_must_not_be_is_noticed(laboratory: Laboratory) -> None:
    """The checks themselves: a ref without its object, a wrong file, an object that is damaged."""
    host = laboratory.site
    clone = host.client("behind")
    (clone.path / NAME).write_bytes(b"something else")
    assert laboratory._wrong(COMMANDS[3], clone, 1)
    place = host.backend.place("new/model", laboratory.fresh[0])
    whole = place.read_bytes()
    place.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert host.unbacked("new/model") == {"refs/heads/main": {laboratory.fresh[0]}}
    place.write_bytes(whole)
    assert host.unbacked("new/model") == {}


def test_every_pair_is_tried_once() -> None:
    everything = [(trouble.name, command.name) for trouble, command in pairs(1)]
    assert len(everything) == len(set(everything)) == len(TROUBLES) * len(COMMANDS)
    share = pairs(0.25)
    assert {trouble.name for trouble, _ in share} == {trouble.name for trouble in TROUBLES}
    assert len(pairs(0)) == 1
