"""The worst structure of each kind at the limits: what reading it costs, and that it is told."""

from __future__ import annotations

import io
import json
import pickle
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from git_theta_ext import formats
from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats import distcp
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.torch import zipped as torch_zip_format
from tests.scenarios.array_files import leaf
from tests.scenarios.containers import npy as npy_file
from tests.scenarios.examples import tarred
from tests.scenarios.hdf5_files import Hdf5
from tests.scenarios.repositories import Repo

ARRAY = pickle.dumps(np.arange(40, dtype=np.float32), 4)[2:-1]


def proto(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def listed(item: bytes, count: int) -> bytes:
    """A pickle of a list of many items, and an array so that it is worth splitting."""
    return proto(b"](" + item * count + ARRAY + b"e")


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


def fasttext(count: int, there: int | None = None) -> bytes:
    """A model without vectors for `count` words, of which so many are there."""
    head = struct.pack("<2i12id", 793712314, 12, 1, *[0] * 11, 0.0)
    head += struct.pack("<3i2q", count, count, 0, count, -1) + bytes(10) * (there or count)
    return head + struct.pack("<b2q", 0, 0, 1) + struct.pack("<b2qf", 0, 1, 1, 1.0)


def tar(count: int) -> bytes:
    """An archive of one array, again and again."""
    return tarred({"w": npy_file(np.arange(9, dtype=np.float32))})[:1024] * count


def field(number: int, data: bytes) -> bytes:
    """A field of a protocol buffer."""
    size = bytes([len(data)]) if len(data) < 128 else leb(len(data))
    return bytes([number << 3 | 2]) + size + data


def leb(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def onnx(graph: bytes) -> bytes:
    tensor = field(5, b"\x08\x01\x10\x01" + field(8, b"w") + field(9, b"abcd"))
    return b"\x08\x08" + field(2, b"x") + field(7, graph + tensor)


def onnx_tensors(count: int) -> bytes:
    one = (b"\x08\x01\x10\x01" + field(8, b"w%07d" % n) + field(9, b"abcd") for n in range(count))
    return onnx(b"".join(field(5, data) for data in one))


def archive(count: int, name: Callable[[int], str], content: Callable[[int], bytes]) -> bytes:
    """A zip archive with stored entries."""
    body, records = bytearray(), []
    for number in range(count):
        label, data = name(number).encode(), content(number)
        sums = struct.pack("<3I2H", zlib.crc32(data), len(data), len(data), len(label), 0)
        records.append((label, sums, len(body)))
        body += struct.pack("<4s5H", b"PK\3\4", 20, 0, 0, 0, 0) + sums + label + data
    start = len(body)
    for label, sums, at in records:
        head = struct.pack("<4s6H", b"PK\1\2", 20, 20, 0, 0, 0, 0)
        body += head + sums + struct.pack("<3H2I", 0, 0, 0, 0, at) + label
    at, size = len(body), len(body) - start
    many = min(count, 0xFFFF)
    if count > 0xFFFF:
        body += struct.pack(
            "<4sQ2H2I4Q4sIQI", b"PK\6\6", 44, 20, 20, 0, 0, count, count, size, start,
            b"PK\6\7", 0, at, 1,
        )  # fmt: skip
    return bytes(body + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, many, many, size, start, 0))


def npz(count: int) -> bytes:
    out = io.BytesIO()
    np.save(out, np.arange(4, dtype=np.float32))
    return archive(count, lambda n: f"a{n:07d}.npy", lambda n: out.getvalue())


_PICKLED = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000"
    b"X\x03\0\0\0cpuK\x04tQK\0K\x04\x85K\x01\x85\x89NtR"
)


def torch_zip(pickled: bytes, count: int) -> bytes:
    return archive(
        count + 1,
        lambda n: f"a/data/{n - 1}" if n else "a/data.pkl",
        lambda n: bytes(16) if n else b"\x80\x02" + pickled + b".",
    )


def coreml(count: int) -> bytes:
    out = bytearray(struct.pack("<2I", count, 2) + bytes(56))
    for _ in range(count):
        out += struct.pack("<2I2Q", 0xDEADBEEF, 1, 64, len(out) + 64) + bytes(40 + 64)
    return bytes(out)


def hdf5(names: int, deep: int = 0) -> bytes:
    """A group of names of one dataset, below groups with long names."""
    file = Hdf5()
    data = file.dataset(64)
    group = file.group((b"n%06d" % n, data) for n in range(names))
    for _ in range(deep):
        group = file.group([(b"x" * 60_000, group)])
    return file.finish(group)


def npy(axes: int) -> bytes:
    head = ("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "0," * axes + ")}").encode()
    return b"\x93NUMPY\2\0" + struct.pack("<I", len(head)) + head


def texts(arrays: int, each: int) -> bytes:
    """A GGUF file of arrays of empty texts."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, arrays)
    one = struct.pack("<IIQ", 9, 8, each) + bytes(8 * each)
    return head + b"".join(struct.pack("<Q", 7) + b"k%06d" % n + one for n in range(arrays))


def torch_metadata(items: int) -> bytes:
    """A `.metadata` of as many items as a data file may have, all in one list."""
    kind = b"c%s\n%s\n)\x81"
    module = b"torch.distributed.checkpoint.metadata"
    one = kind % (module, b"MetadataIndex") + b"}X\3\0\0\0fqnX\1\0\0\0wsb"
    where = kind % (b"torch.distributed.checkpoint.filesystem", b"_StorageInfo") + b"}b"
    table = b"X\x0c\0\0\0storage_data}(" + (one + where) * items + b"u"
    return b"\x80\x02" + kind % (module, b"Metadata") + b"}(" + table + b"ub."


def exported(names: int) -> bytes:
    """A `.pt2` whose tensors are all of one entry."""
    meta = {
        "path_name": "weight_0", "use_pickle": False,
        "tensor_meta": {
            "dtype": 7, "layout": 7, "sizes": [{"as_int": 1}], "strides": [{"as_int": 1}],
            "storage_offset": {"as_int": 0},
        },
    }  # fmt: skip
    text = json.dumps(meta, separators=(",", ":"))
    config = '{"config":{' + ",".join(f'"{n}":{text}' for n in range(names)) + "}}"
    members = {
        "m/data/weights/weight_0": bytes(4), "m/archive_format": b"pt2",
        "m/data/weights/model_weights_config.json": config.encode(),
    }  # fmt: skip
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return made.getvalue()


WORST: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "dictionaries": (lambda: listed(b"}", 4_000_000), "memory"),
    "lists": (lambda: listed(b"]", 4_000_000), "memory"),
    "memoized": (lambda: listed(b"}\x94", 2_000_000), "memory"),
    "calls": (lambda: listed(b"cos\nsystem\n)R", 1_300_000), "memory"),
    "globals": (lambda: listed(b"cos\nsystem\n", 3_900_000), "memory"),
    "strings": (lambda: listed(b"\x8c\x05abcde", 4_000_000), "memory"),
    "integers": (lambda: listed(b"J\0\0\0\1", 4_100_000), None),
    "opcodes": (lambda: listed(b"K\0", 4_300_000), "opcodes"),
    "arrays": (lambda: listed(ARRAY, 110_000), "memory"),
    "onnx tensors": (lambda: onnx_tensors(340_000), "fields"),
    "onnx outputs": (lambda: onnx(field(1, field(2, b"") * 1_000_000)), None),
    "npz": (lambda: npz(10_000), None),
    "npz past it": (lambda: npz(140_000), "entries"),
    "torch-zip": (lambda: torch_zip(_PICKLED, 10_000), None),
    "torch-zip values": (lambda: torch_zip(b"](" + b"}" * 2_000_000 + b"e", 2), "memory"),
    "distcp": (lambda: torch_zip(_PICKLED, 1) * 2_000, None),
    "distcp metadata": (lambda: torch_metadata(60_000), None),
    "pt2": (lambda: exported(90_000), None),
    "pt2 past it": (lambda: exported(120_000), "bytes"),
    "coreml past it": (lambda: coreml(270_000), "records"),
    "hdf5": (lambda: hdf5(20_000), None),
    "hdf5 groups": (lambda: hdf5(20_000, 20), "steps"),
    "npy": (lambda: npy(500_000), None),
    "npy past it": (lambda: npy(600_000), "header"),
    "gguf texts": (lambda: texts(3, 2_000_000), "items"),
    "safetensors past it": (lambda: safetensors(320_000), "header"),
    "safetensors": (lambda: safetensors(150_000), None),
    "gguf": (lambda: gguf(500_000), None),
    "msgpack": (lambda: msgpack(400_000), None),
    "fasttext": (lambda: fasttext(800_000), None),
    "ocdbt": (lambda: leaf({b"a": b"1"}) * 20_000, None),
    "tar past it": (lambda: tar(70_000), "members"),
    "fasttext past it": (lambda: fasttext((1 << 22) + 1, 3), "entries"),
}
"""How to make each file, and what its remark names where it is past a limit."""


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", WORST)
def test_the_worst_structure_takes_seconds_and_little_memory(kind: str) -> None:
    make, limit = WORST[kind]
    data = make()
    start = time.thread_time()
    layout = formats.read_layout(BytesSource(data))
    assert time.thread_time() - start < 20
    assert (layout.remark != "") == (limit is not None), layout.remark
    assert (limit or "") in layout.remark


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", ["memoized", "hdf5 groups", "npz past it"])
def test_memory_stays_near_its_estimate(kind: str) -> None:
    source = BytesSource(WORST[kind][0]())
    tracemalloc.start()
    try:
        assert (WORST[kind][1] or "") in formats.read_layout(source).remark
        assert tracemalloc.get_traced_memory()[1] < 1.5 * limits.PICKLE_MEMORY
    finally:
        tracemalloc.stop()


def test_places_that_look_like_the_end_of_an_archive_are_tried_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is a directory of hundreds of entries that turns out to be none at its end."""
    entries = 500
    good = torch_zip(_PICKLED, entries)
    central, ends = good.index(b"PK\1\2"), 40
    data = bytearray(good[:-22])
    for number in range(ends):
        # A record of an entry that is nowhere; its comment holds the end of the directory before.
        data += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 4, 4, 1, 0, 22, 0, 0, 0, 0
        )
        data += b"x"
        count, size = entries + 2 + number, len(data) - central
        data += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, size, central, 0)
    tried = []
    real = torch_zip_format.layout
    monkeypatch.setattr(torch_zip_format, "layout", lambda s: tried.append(s.size) or real(s))  # type: ignore[func-returns-value]
    monkeypatch.setattr(limits, "DISTCP_ENTRIES_MISSED", 10 * entries)
    with pytest.raises(FormatError):
        distcp.layout(BytesSource(bytes(data)))
    assert 2 < len(tried) < 15


def test_tensors_without_names_are_told(repo: Repo) -> None:
    repo.theta("track", "*.pt")
    repo.write("m.pt", WORST["torch-zip values"][0]())
    done = repo.run("git", "add", "m.pt")
    assert "m.pt: stored without names, for its structure is past a limit" in done.stderr.decode()
    assert b"format torch-zip" in repo.blob(":m.pt")


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
