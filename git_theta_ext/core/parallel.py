"""Work on several cores, in order, within a budget of memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = min(os.cpu_count() or 1, 4)
"""Threads at work: the coders and hashes release the interpreter's lock; more only cost memory."""

BUDGET_BYTES = 96 << 20
"""Raw bytes of blocks under way at once; encoding a block needs about three times its size."""


def ordered_map(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    cost: Callable[[Item], int],
    budget: int = BUDGET_BYTES,
) -> Iterator[Result]:
    """Apply `work` to each item on a few threads; the results come in the order of the items.

    Args:
        work: called once per item, on any thread.
        items: consumed lazily, only as fast as results are taken.
        cost: bytes that an item holds from when it is started until its result is taken.
        budget: bytes under way at once; a single item may exceed it, then it runs alone.

    When the caller stops early, or a call fails, what was not started is dropped.
    """
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="theta")
    waiting: deque[tuple[Future[Result], int]] = deque()
    held = 0
    try:
        for item in items:
            price = cost(item)
            while waiting and held + price > budget:
                future, returned = waiting.popleft()
                yield future.result()
                held -= returned
            waiting.append((pool.submit(work, item), price))
            held += price
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
