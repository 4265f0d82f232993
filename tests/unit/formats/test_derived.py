"""Derived fields: whatever a file or a skeleton says, bytes come back and time is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from git_theta_ext.core.errors import ManifestError
from git_theta_ext.formats import read_layout
from git_theta_ext.formats.base import Crc32, SerializationId
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.source import BytesSource
from tests.scenarios.examples import rebuilt
from tests.scenarios.torchzip import Storage, save, state_dict, tensor


def archive() -> bytes:
    value = state_dict({"w": tensor(Storage("0", "FloatStorage", 6), (2, 3))})
    return save(value, {"0": bytes(range(24))})


def test_an_archive_has_both_kinds() -> None:
    kinds = {type(segment) for segment in read_layout(BytesSource(archive())).segments}
    assert {Crc32, SerializationId} <= kinds


def test_a_wrong_id_under_a_checksum_of_the_right_one_comes_back() -> None:
    """The CRC-32 of the entry that holds the id fits the id computed, not the one stored."""
    data = bytearray(archive())
    at = data.index(b"01234567890123456789") + 25
    data[at] = ord("0") + (data[at] - ord("0") + 1) % 10
    case = bytes(data)
    layout = read_layout(BytesSource(case))
    assert layout.format == "torch-zip"
    assert rebuilt(case, layout) == case


def test_every_byte_of_an_archive_may_be_wrong() -> None:
    whole = archive()
    for at in range(len(whole)):
        case = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert rebuilt(case, read_layout(BytesSource(case))) == case, at


def text(lines: list[str]) -> bytes:
    return b"git-theta skeleton v1\n" + "".join(f"{line}\n" for line in lines).encode() + b"\n"


BOMBS: dict[str, Callable[[], list[str]]] = {
    "two that cover each other": lambda: ["crc32 1 2", "crc32 0 1"],
    "a ladder": lambda: ["crc32 1 2", "crc32 2 3", "crc32 3 4", "literal 0"],
    "each covers all before it": lambda: ["literal 0", *(f"crc32 0 {n}" for n in range(1, 40))],
    "an id of an id of an id": lambda: [
        "serialization-id 1:2", "serialization-id 2:3", "serialization-id 3:4", "literal 0",
    ],
    "many that cover much": lambda: [
        *["literal 0"] * 50_000, *(f"crc32 0 {50_000 - n % 3}" for n in range(50_000)),
    ],
    "one that covers much often": lambda: [
        *["literal 0"] * 50_000, "serialization-id " + " ".join(["0:50000"] * 50_000),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_skeletons_that_would_compute_for_ever_are_refused(name: str) -> None:
    data = text(BOMBS[name]())
    start = time.thread_time()
    with pytest.raises(ManifestError, match=r"cover too much|depends on a derived field"):
        skeleton.decode(data)
    assert time.thread_time() - start < 2


def test_what_archives_need_is_allowed() -> None:
    found = skeleton.decode(text(["literal 0", "crc32 0 1", "serialization-id 0:1", "crc32 2 3"]))
    assert len(found.segments) == 4
