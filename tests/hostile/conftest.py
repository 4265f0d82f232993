"""What a hostile file may cost."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import pytest

SECONDS = 20
BYTES = 256 << 20


@pytest.fixture
def little_time_and_memory() -> Iterator[None]:
    """Fails a test that takes more; times are the processor's, slowed by counting memory."""
    tracemalloc.start()
    start = time.process_time()
    yield
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < SECONDS
    assert peak < BYTES
