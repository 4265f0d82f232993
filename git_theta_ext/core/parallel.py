"""Work on several cores, in order, within a budget of memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import TypeAlias, TypeVar

from git_theta_ext.core.blas import single_threaded

Item = TypeVar("Item")
Result = TypeVar("Result")
_Group: TypeAlias = tuple[list[Item], int]
"""Items that are worked on together, and what they hold."""


def _cores() -> int:
    """The cores that this process may use."""
    with suppress(AttributeError, OSError):  # macOS and Windows have no such call
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


WORKERS = _cores()
"""Threads at work: the coders and hashes release the interpreter's lock. How many of them have
something to do at a time is bounded by the budget of memory."""

BUDGET_BYTES = 96 << 20
"""Raw bytes of blocks under way at once; encoding a block needs about three times its size."""

_ALONE_BYTES = 1 << 20
"""Work up to this size in all is done at once: to start threads for it takes longer."""
_GROUP_BYTES = 512 << 10
_GROUP = 64
"""Items that a thread is given together: to hand over one takes as long as to hash 64 KB."""


def ordered_map(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    cost: Callable[[Item], int],
    budget: int = BUDGET_BYTES,
) -> Iterator[Result]:
    """Apply `work` to each item on a few threads; the results come in the order of the items.

    Args:
        work: called once per item, on any thread, also on the caller's.
        items: consumed lazily, only as fast as results are taken.
        cost: bytes that an item holds from when it is started until its result is taken.
        budget: bytes under way at once; a single item may exceed it, then it runs alone.

    When the caller stops early, or a call fails, what was not started is dropped. Linear algebra
    starts no threads of its own under ours.
    """
    priced = ((item, cost(item)) for item in items)
    small = 0
    for item, price in priced:
        small += price
        if small > _ALONE_BYTES:
            yield from _on_threads(work, _grouped(chain([(item, price)], priced)), budget)
            return
        with single_threaded():
            made = work(item)
        yield made


def _on_threads(
    work: Callable[[Item], Result], groups: Iterator[_Group[Item]], budget: int
) -> Iterator[Result]:
    """`ordered_map` on threads."""

    def each(items: list[Item]) -> tuple[list[Result], BaseException | None]:
        done: list[Result] = []
        try:
            with single_threaded():
                for item in items:
                    done.append(work(item))
        except BaseException as error:
            return done, error
        return done, None

    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="theta")
    waiting: deque[tuple[Future[tuple[list[Result], BaseException | None]], int]] = deque()
    held = 0
    try:
        for items, price in groups:
            while waiting and held + price > budget:
                future, returned = waiting.popleft()
                yield from _results(future)
                held -= returned
            waiting.append((pool.submit(each, items), price))
            held += price
        while waiting:
            yield from _results(waiting.popleft()[0])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _results(future: Future[tuple[list[Result], BaseException | None]]) -> Iterator[Result]:
    """What was made of a group; then the failure that ended it, if one did."""
    done, error = future.result()
    done.reverse()
    while done:
        yield done.pop()  # and hold it no longer
    if error is not None:
        raise error


def _grouped(priced: Iterable[tuple[Item, int]]) -> Iterator[_Group[Item]]:
    """Small items together, with what they hold; large ones each alone."""
    group: list[Item] = []
    weight = 0
    for item, price in priced:
        if group and weight + price > _GROUP_BYTES:
            yield group, weight
            group, weight = [], 0
        group.append(item)
        weight += price
        if weight >= _GROUP_BYTES or len(group) >= _GROUP:
            yield group, weight
            group, weight = [], 0
    if group:
        yield group, weight
