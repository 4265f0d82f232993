"""The law of every format: the segments of a layout, one after the other, are the file."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.formats import check, names, read_layout
from git_theta_ext.formats.base import Literal, Span
from git_theta_ext.formats.layout.chunks import chunk_lengths
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.manifest.rules import CHUNK_BYTES
from tests.scenarios.checkpoints import awkward, model, safetensors
from tests.scenarios.examples import EXAMPLES, distcp, rebuilt


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_layout_is_the_file(name: str) -> None:
    data = EXAMPLES[name]()
    layout = read_layout(BytesSource(data))
    assert layout.format == name
    assert rebuilt(data, layout) == data


@pytest.mark.parametrize("name", EXAMPLES)
def test_truncations_and_mutations_still_come_back(name: str) -> None:
    data = EXAMPLES[name]()
    random = np.random.default_rng(0)
    cases = [data[: int(n)] for n in random.integers(0, len(data), 60)]
    for _ in range(300):
        changed = bytearray(data)
        changed[int(random.integers(0, min(len(data), 3000)))] = int(random.integers(0, 256))
        cases.append(bytes(changed))
    for case in cases:
        layout = read_layout(BytesSource(case))
        check(layout, len(case))
        assert rebuilt(case, layout) == case


@settings(deadline=None, max_examples=120)
@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_flips_cuts_and_insertions_anywhere_come_back(name: str, draw: st.DataObject) -> None:
    data = bytearray(_example(name))
    for _ in range(draw.draw(st.integers(1, 6))):
        place = draw.draw(st.integers(0, len(data) - 1))
        data[place] ^= 1 << draw.draw(st.integers(0, 7))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place:place] = draw.draw(st.sampled_from([b"", b"\0", b"\xff" * 8, bytes(64)]))
    del data[draw.draw(st.integers(len(data) // 2, len(data))) :]
    case = bytes(data)
    layout = read_layout(BytesSource(case))
    check(layout, len(case))
    assert rebuilt(case, layout) == case


@cache
def _example(name: str) -> bytes:
    return EXAMPLES[name]()


def test_every_format_has_an_example() -> None:
    assert set(EXAMPLES) == set(names())


def test_tensors_have_their_names_dtypes_and_shapes() -> None:
    tensors = awkward()
    layout = read_layout(BytesSource(safetensors(tensors)))
    spans = {s.tensor.name: s.tensor for s in layout.segments if isinstance(s, Span)}
    assert {name: span.shape for name, span in spans.items()} == {
        name: value.shape for name, value in tensors.items()
    }
    assert spans["all.bf16"].dtype.name == "BF16"


def _header(entries: dict[str, object], data: bytes = b"\0" * 16) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def _entry(start: int, stop: int, dtype: str = "U8", shape: object = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape or [stop - start], "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "data",
    [
        _header({"a": _entry(0, 12), "b": _entry(8, 16)}),
        _header({"a": _entry(0, 8), "b": _entry(9, 16)}),
        _header({"a": _entry(0, 8)}),
        _header({"a": _entry(0, 16, "F32", [5])}),
        _header({"a": _entry(0, 16, "F99")}),
        _header({"a": _entry(0, 16, "U8", [-16])}),
        _header({"a": _entry(0, 16, "U8", [2**62, 2**62])}),
        _header({"a": _entry(0, 99)}),
        _header({"a": {"dtype": "U8"}}),
        _header({"a": 3}),
        (1 << 62).to_bytes(8, "little") + b"{}",
        (200).to_bytes(8, "little") + b"{" * 200,
        (100_000).to_bytes(8, "little") + b'{"a":' + b"[" * 99_995,
        (4).to_bytes(8, "little") + b"{\xff\xfe}",
    ],
)
def test_lying_safetensors_are_opaque(data: bytes) -> None:
    layout = read_layout(BytesSource(data))
    assert layout.format == "opaque"
    assert rebuilt(data, layout) == data


def test_what_the_library_accepts_is_split() -> None:
    text = b'  {"a":{"dtype":"U8","shape":[3],"data_offsets":[4,7]},' + (
        b'"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
        b'"b":{"dtype":"F4","shape":[6],"data_offsets":[4,7]}}'
    )
    data = len(text).to_bytes(8, "little") + text + b"1234567"
    layout = read_layout(BytesSource(data))
    assert [s.tensor.name for s in layout.segments if isinstance(s, Span)] == ["a", "b"]
    assert rebuilt(data, layout) == data


@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000, 40_000_000])
def test_chunks_do_not_depend_on_the_reading_window(size: int) -> None:
    from pyfastcdc import FastCDC

    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    found = list(chunk_lengths(lambda start, length: data[start : start + length], size))
    whole = FastCDC(
        avg_size=512 << 10, min_size=128 << 10, max_size=2 << 20, normalized_chunking=1, seed=0
    )
    assert found == [chunk.length for chunk in whole.cut_buf(data)] if size else found == []
    assert sum(found) == size
    assert all(length <= CHUNK_BYTES for length in found)


def test_an_insertion_changes_few_chunks() -> None:
    data = np.random.default_rng(0).integers(0, 256, 20_000_000, dtype=np.uint8).tobytes()
    longer = data[:7_000_000] + b"hello world" + data[7_000_000:]

    def pieces(content: bytes) -> set[bytes]:
        found, start = set(), 0
        for length in chunk_lengths(lambda a, b: content[a : a + b], len(content)):
            found.add(content[start : start + length])
            start += length
        return found

    assert sum(map(len, pieces(longer) - pieces(data))) < 4_000_000


def test_a_model_is_mostly_tensors() -> None:
    data = safetensors(model())
    layout = read_layout(BytesSource(data))
    literal = sum(len(s.data) for s in layout.segments if isinstance(s, Literal))
    assert literal < 0.05 * len(data)


def test_items_of_a_distributed_checkpoint_are_called_by_position() -> None:
    layout = read_layout(BytesSource(distcp()))
    spans = [s.tensor for s in layout.segments if isinstance(s, Span)]
    assert [(span.name, span.shape) for span in spans] == [
        ("item.0", (20, 30)),
        ("item.1", (20, 30)),
    ]
