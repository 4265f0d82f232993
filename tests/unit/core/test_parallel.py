"""Results come in order, failures in their place, and no more is held than was allowed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from git_theta_ext.core import parallel
from git_theta_ext.core.parallel import ordered_map

MEGABYTE = 1 << 20


@pytest.mark.parametrize("price", [0, 1, 4096, 300_000, MEGABYTE, 200 * MEGABYTE])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 300])
def test_the_results_come_in_the_order_of_the_items(price: int, count: int) -> None:
    assert list(ordered_map(lambda one: -one, range(count), lambda _: price)) == [
        -one for one in range(count)
    ]


@pytest.mark.parametrize("price", [1, 40_000, 2 * MEGABYTE])
def test_a_failure_comes_after_what_was_done_before_it(price: int) -> None:
    def work(one: int) -> int:
        if one == 100:
            raise ValueError(one)
        return one

    found = []
    with pytest.raises(ValueError, match="100"):
        found += ordered_map(work, iter(range(1000)), lambda _: price)
    found = []
    try:
        for one in ordered_map(work, iter(range(1000)), lambda _: price):
            found.append(one)
    except ValueError:
        pass
    assert found == list(range(100))


def test_little_work_starts_no_thread() -> None:
    here = threading.get_ident()
    ran = ordered_map(lambda _: threading.get_ident(), range(200), lambda _: 5000)
    assert set(ran) == {here}


@pytest.mark.parametrize("price", [100_000, 3 * MEGABYTE])
def test_no_more_is_under_way_than_the_budget(price: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WORKERS", 64)
    held, most, taken = 0, 0, 0
    lock = threading.Lock()

    def items() -> Iterator[int]:
        yield from range(200)

    def work(one: int) -> int:
        nonlocal held, most
        with lock:
            held += price
            most = max(most, held)
        return one

    for _ in ordered_map(work, items(), lambda _: price, budget=8 * MEGABYTE):
        taken += 1
        with lock:
            held -= price
    assert taken == 200
    assert most <= 8 * MEGABYTE + price


def test_who_stops_early_leaves_the_rest_undone() -> None:
    done: list[int] = []
    results = ordered_map(done.append, range(10_000), lambda _: MEGABYTE)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(done) < 300


def test_the_workers_follow_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: set(range(48)), raising=False)
    assert parallel._cores() == 48
