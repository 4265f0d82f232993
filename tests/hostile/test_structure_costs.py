"""The worst structure of each kind at the limits: what reading it costs, and that it is told."""

from __future__ import annotations

import pickle
import struct
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from git_theta_ext import formats, limits
from git_theta_ext.formats.source import BytesSource
from tests.conftest import Repo


def proto(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def listed(item: bytes, count: int) -> bytes:
    """A pickle of a list of many items, and an array so that it is worth splitting."""
    array = pickle.dumps(np.arange(40, dtype=np.float32), 4)[2:-1]
    return proto(b"](" + item * count + array + b"e")


def safetensors(count: int) -> bytes:
    names = ",".join(
        f'"w{n}":{{"dtype":"U8","shape":[1],"data_offsets":[{n},{n + 1}]}}' for n in range(count)
    )
    header = ("{" + names + "}").encode()
    return struct.pack("<Q", len(header)) + header + bytes(count)


def gguf(count: int) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, count)
    pairs = (struct.pack("<Q", 7) + b"k%06d" % n + struct.pack("<IB", 0, 1) for n in range(count))
    return head + b"".join(pairs)


def msgpack(count: int) -> bytes:
    keys = (b"\xa7k%06d\x90" % n for n in range(count))
    return b"\xdf" + struct.pack(">I", count) + b"".join(keys)


WORST: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "dictionaries": (lambda: listed(b"}", 4_000_000), "memory"),
    "lists": (lambda: listed(b"]", 4_000_000), "memory"),
    "memoized": (lambda: listed(b"}\x94", 2_000_000), "memory"),
    "calls": (lambda: listed(b"cos\nsystem\n)R", 1_300_000), "memory"),
    "globals": (lambda: listed(b"cos\nsystem\n", 3_900_000), "memory"),
    "strings": (lambda: listed(b"\x8c\x05abcde", 4_000_000), "memory"),
    "integers": (lambda: listed(b"J\0\0\0\1", 4_100_000), None),
    "opcodes": (lambda: listed(b"K\0", 4_300_000), "opcodes"),
    "safetensors": (lambda: safetensors(150_000), None),
    "gguf": (lambda: gguf(500_000), None),
    "msgpack": (lambda: msgpack(400_000), None),
}
"""How to make each file, and what its remark names where it is past a limit."""


@pytest.mark.parametrize("kind", WORST)
def test_the_worst_structure_takes_seconds_and_little_memory(kind: str) -> None:
    make, limit = WORST[kind]
    data = make()
    start = time.thread_time()
    layout = formats.read_layout(BytesSource(data))
    assert time.thread_time() - start < 20
    assert (layout.remark != "") == (limit is not None), layout.remark
    assert (limit or "") in layout.remark


@pytest.mark.parametrize("kind", ["memoized"])
def test_memory_stays_near_its_estimate(kind: str) -> None:
    source = BytesSource(WORST[kind][0]())
    tracemalloc.start()
    try:
        assert "memory" in formats.read_layout(source).remark
        assert tracemalloc.get_traced_memory()[1] < 1.5 * limits.PICKLE_MEMORY
    finally:
        tracemalloc.stop()


def test_a_real_pickle_of_many_values_stays_split() -> None:
    """As large as the largest seen: six megabytes, 1.6 million opcodes."""
    values = {
        f"key{n}": {"id": n, "smirks": f"[#6X4:1]-[#{n}]", "length": n * 0.5, "t": (n, f"p{n}")}
        for n in range(85_000)
    }
    data = pickle.dumps({"values": values, "array": np.arange(99, dtype=np.float32)}, 4)
    assert len(data) > 5_000_000
    layout = formats.read_layout(BytesSource(data))
    assert (layout.format, layout.remark) == ("pickle", "")


def test_git_add_says_that_a_pickle_is_past_a_limit(repo: Repo) -> None:
    repo.theta("track", "*.pkl")
    repo.write("m.pkl", listed(b"}", 2_000_000))
    done = repo.run("git", "add", "m.pkl")
    said = done.stderr.decode()
    assert said.count("m.pkl: stored as opaque bytes") == 1
    assert f"more than {limits.PICKLE_MEMORY:,} bytes of memory" in said
    assert b"format opaque" in repo.blob(":m.pkl")
