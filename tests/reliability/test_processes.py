"""Several processes at once, in every test run; ten rounds of ten: see `processes.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reliability.processes import NAME, Scenes, Tally
from tests.servers.site import Client, Site, site

SCENES = (
    "adds_and_checkouts_in_worktrees",
    "fetches_in_worktrees",
    "clones_that_share_a_store",
    "two_merges",
    "two_pushes",
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site("dulwich", tmp_path_factory.mktemp("processes")) as running:
        yield running


@pytest.mark.parametrize("number", range(len(SCENES)))
def test_at_once(host: Site, number: int) -> None:
    scenes = Scenes(host, people=3, seed=number, first=10 * number)
    getattr(scenes, SCENES[number])()
    assert scenes.tally.problems() == []
    assert scenes.tally.commands > 1
    if number == 0:
        notices_what_must_not_be(host.client("scene-1/first"))


def notices_what_must_not_be(first: Client) -> None:
    """The checks themselves, on a store from which one object is taken and another is damaged."""
    store = first.path / ".git/theta"
    gone, damaged = sorted((store / "objects").glob("??/??/*"))[:2]
    gone.unlink()
    damaged.chmod(0o644)
    damaged.write_bytes(b"")
    (store / "tmp/left").write_bytes(b"")
    (first.path / NAME).write_bytes(b"")
    tally = Tally()
    tally.look([store], [first])
    tally.compare([first], [b"something"])
    assert tally.lost == [f"damaged: {damaged}", f"not in the store: {gone.name}"]
    assert tally.doubled == [f"left over: {store / 'tmp/left'}"]
    assert len(tally.wrong) == 2
