"""A gallery of files made to harm whoever reads them; each must cost little and do nothing."""

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest

from git_theta_ext import formats
from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.base import Layout
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.pickles import machine
from git_theta_ext.formats.torch.names import find_views
from tests.scenarios.torchzip import Record, Storage, archive, save, tensor

pytestmark = pytest.mark.usefixtures("little_time_and_memory")


def read(data: bytes) -> Layout:
    return formats.read_layout(BytesSource(data))


def read_pickle(data: bytes) -> Layout:
    return read(save(data, {"0": bytes(16)}))


class Shell:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_pickle_that_runs_a_command(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    bomb = pickle.dumps({"w": Shell(f"echo > '{victim}'")}, 2)
    assert read_pickle(bomb).format == "torch-zip"
    assert not victim.exists()


def nested_tuples(depth: int) -> bytes:
    return b"\x80\x02)" + b"\x85" * depth + b"."


def doubling(depth: int) -> bytes:
    """A tuple of two equal halves, all the way down: 2^depth leaves for whoever walks it."""
    steps = b"".join(b"q%ch%c\x86" % (index % 250, index % 250) for index in range(depth))
    return b"\x80\x02)" + steps + b"."


SLOTS_DEFAULTS = b"\x80\x02c__main__\nload\n(N}X\x08\x00\x00\x00__code__K\x01stb."

PICKLES = {
    "memo index of 2^28": b"r\x00\x00\x00\x10.",
    "memo index of 2^28 on a value": b"Nr\x00\x00\x00\x10.",
    "nested lists": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "nested tuples": nested_tuples(300_000),
    "nested tuple as key": b"\x80\x02}" + nested_tuples(300_000)[2:-1] + b"Ns.",
    "doubling tuples": doubling(5000),
    "doubling tuple as key": b"\x80\x02}" + doubling(60)[2:-1] + b"Ns.",
    "colliding keys": pickle.dumps([index * (2**61 - 1) for index in range(20_000)], 2)[:-1] + b".",
    "state on a function": SLOTS_DEFAULTS,
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a dictionary in itself": b"\x80\x02}q\x00K\x01h\x00s.",
    "a string of 2 GiB": b"\x80\x02X\xff\xff\xff\x7f.",
    "bytes of 2^63": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "an integer of 2 GiB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "an integer of many digits": b"L" + b"9" * 60_000 + b"L\n.",
    "marks": b"(" * 200_000 + b".",
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickle_bombs(name: str) -> None:
    layout = read_pickle(PICKLES[name])
    assert layout.format == "torch-zip"


def test_too_many_opcodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PICKLE_OPCODES", 1000)
    with pytest.raises(FormatError, match="1000 opcodes"):
        machine.load(b"N0" * 600 + b"N.")


def test_names_do_not_multiply() -> None:
    """A long key above many tensors, and one list reached by many ways."""
    views = find_views(machine.load(doubling(400)))
    assert views == []
    key = "k" * 5000
    assert list(read(save({key: tensor(Storage("0"), (4,))}, {"0": bytes(16)}).__getitem__(
        slice(None))).aliases) == []  # fmt: skip
    with pytest.raises(FormatError, match="key of 5000"):
        find_views(machine.load(pickle.dumps({key: 1}, 2)))


def header(text: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: list[int]) -> dict[str, object]:
    return {"dtype": "U8", "shape": shape, "data_offsets": [begin, end]}


SAFETENSORS = {
    "overlap": header(
        json.dumps({"a": entry(0, 4, [4]), "b": entry(2, 6, [4])}).encode(), bytes(6)
    ),
    "one inside another": header(
        json.dumps({"a": entry(0, 6, [6]), "b": entry(2, 4, [2])}).encode(), bytes(6)
    ),
    "a header longer than the file": header(b"{}", length=1 << 40),
    "a header of 2^64 - 1": header(b"{}", length=(1 << 64) - 1),
    "a shape that overflows": header(json.dumps({"a": entry(0, 0, [1 << 62] * 60)}).encode()),
    "a tensor larger than the file": header(
        json.dumps({"a": entry(0, 1 << 50, [1 << 50])}).encode()
    ),
    "nested arrays": header(b'{"a":' + b"[" * 1_000_000),
    "nested objects": header(b'{"a":' * 300_000),
    "many empty arrays": header(b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"),
    "a number of many digits": header(b'{"a":' + b"9" * 1_000_000 + b"}"),
    "a number of a large exponent": header(b'{"a":1e999999999}'),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_bombs(name: str) -> None:
    assert read(SAFETENSORS[name]).format == "opaque"


PICKLE = Record("m/data.pkl", b"\x80\x02}.")


def patched(data: bytes, magic: bytes, at: int, value: bytes) -> bytes:
    start = data.rindex(magic) + at
    return data[:start] + value + data[start + len(value) :]


def zips() -> dict[str, bytes]:
    two = archive([PICKLE, Record("m/data/0", bytes(16))], zip64_end=False)
    return {
        "prefix": archive([PICKLE], prefix=b"MZ" + bytes(100)),
        "bytes put before": b"PK\x03\x04" + bytes(60) + two,
        "encrypted": archive([PICKLE, Record("m/data/0", bytes(16), flags=0x809)]),
        "overlapping entries": patched(two, b"PK\x01\x02", 42, bytes(4)),
        "an entry past the directory": patched(two, b"PK\x01\x02", 20, b"\xf0\xff\x00\x00" * 2),
        "an entry of 4 GiB": patched(two, b"PK\x01\x02", 20, b"\xfe\xff\xff\xff" * 2),
        "65535 entries": patched(two, b"PK\x05\x06", 8, b"\xff\xff\xff\xff"),
        "a directory of 4 GiB": patched(two, b"PK\x05\x06", 12, b"\xff\xff\xff\xff"),
        "a second disk": patched(two, b"PK\x05\x06", 4, b"\x01\x00"),
        "zip64 locator to nowhere": patched(archive([PICKLE]), b"PK\x06\x07", 8, b"\xff" * 8),
        "zip64 directory of 2^64": patched(archive([PICKLE]), b"PK\x06\x06", 40, b"\xff" * 8),
        "many ends": b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" * 16_000,
    }


@pytest.mark.parametrize("name", zips())
def test_zip_bombs(name: str) -> None:
    assert read(zips()[name]).format == "opaque"
