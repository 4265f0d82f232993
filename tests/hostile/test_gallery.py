"""A gallery of attacks, each with what it must come to: an error, or opaque bytes, soon.

Files for single containers are in test_hostile_checkpoints.py, damaged manifests and parameter
files beside it; fuzzing of every parser in tests/reliability/fuzz.py.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import zstandard

from git_theta_ext import formats
from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.adapters import peft
from git_theta_ext.checkpoints.adapters.files import TensorFile
from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core import limits
from git_theta_ext.core.errors import (
    CorruptObjectError,
    FormatError,
    ManifestError,
    MissingObjectError,
    UsageError,
)
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo, cut
from git_theta_ext.formats.base import Layout
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.skeleton import Skeleton, SpanRef
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.formats.pickles.contents import contents
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.merge.combine import pickles
from git_theta_ext.merge.strategies.policy import parse_file
from git_theta_ext.objects.blocks import Blocks, sha256
from git_theta_ext.objects.store.store import Store
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.dense import Dense
from git_theta_ext.updates.parameter_file import build, parse
from tests.scenarios.array_files import frame, leaf
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.containers import gguf, keras, npy, onnx, tagged, tflite
from tests.scenarios.examples import fasttext, stack, tarred
from tests.scenarios.repositories import Repo
from tests.scenarios.torchzip import Storage, dumps, save, tensor

little = pytest.mark.usefixtures("little_time_and_memory")


def read(data: bytes) -> Layout:
    """The layout of a file; what is not recognised is opaque."""
    return formats.read_layout(BytesSource(data))


# -- decompression bombs ---------------------------------------------------------------------------


def zipped(name: str, length: int) -> bytes:
    """An archive whose only entry, deflated, stands for many zeros."""
    stream = BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w") as f,
    ):
        for _ in range(length >> 20):
            f.write(bytes(1 << 20))
    return stream.getvalue()


@little
@pytest.mark.parametrize("name", ["w.npy", "m/data.pkl", "model.weights.h5"])
def test_nothing_in_an_archive_is_decompressed(name: str) -> None:
    data = zipped(name, 300 << 20)
    layout = read(data)
    assert sum(
        getattr(segment, "tensor", TensorInfo("", DTYPES["U8"], ())).nbytes
        for segment in layout.segments
    ) <= len(data)


SPEC = BlockSpec(DTYPES["F32"], (1000,))
VALUES = np.arange(1000, dtype=np.uint32)


def dense() -> bytes:
    """A good parameter file."""
    return b"".join(Dense().encode(SPEC, VALUES).pieces)


def zeros_frame(length: int, window: int = 27) -> bytes:
    """A zstd frame of many zeros."""
    parameters = zstandard.ZstdCompressionParameters(window_log=window, write_content_size=True)
    made = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=length)
    pieces = [made.compress(bytes(1 << 20)) for _ in range(length >> 20)]
    return b"".join([*pieces, made.flush()])


@little
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("dense", {"coder": "zstd"}),
        ("dense", {"coder": "planes", "planes": [0, 0, 0, 0]}),
        ("delta", {"coder": "zstd"}),
        ("delta", {"coder": "pco"}),
        ("patch", {"coder": "zstd", "size": 4000}),
        ("patch", {"coder": "zstd", "size": 1 << 40}),
        ("sparse", {"coder": "list", "count": 1 << 40, "split": 8, "unit": 1, "width": 4}),
        ("low-rank", {"coder": "exact", "rank": 1 << 40, "exponent": 0, "order": "sum"}),
        ("scale", {"coder": "exact", "axis": 0, "shape": [1 << 40, 1 << 40]}),
        ("resize", {"coder": "exact", "extents": [1 << 20, 1 << 20, 1 << 20, 1]}),
        ("cast", {"coder": "exact", "base": {"dtype": "F64", "shape": [1 << 40]}}),
        (
            "hadamard",
            {
                "coder": "exact",
                "scaling": 1.0,
                "first": {"shape": [1 << 20, 1 << 20], "rank": 1},
                "second": {"shape": [1 << 20, 1 << 20], "rank": 1},
            },
        ),
        (
            "kronecker",
            {
                "coder": "exact",
                "scaling": 1.0,
                "start": 0,
                "first": {"shape": [1, 1000]},
                "second": {"shape": [1 << 40, 1], "rank": 1},
            },
        ),
        (
            "orthogonal",
            {
                "coder": "exact",
                "form": "blocks",
                "columns": 1000,
                "size": 1000,
                "blocks": 1,
                "matrices": 1,
            },
        ),
        ("orthogonal", {"coder": "exact", "form": "reflections", "columns": 1, "vectors": 1 << 40}),
    ],
)
def test_a_parameter_file_never_stands_for_more_than_its_block(
    kind: str, settings: dict[str, object]
) -> None:
    bomb = zeros_frame(300 << 20)
    assert len(bomb) < 100_000
    lengths = np.array([len(bomb)], np.uint32)
    parts = dict.fromkeys(
        (
            "data",
            "list",
            "table",
            "factors",
            "left",
            "right",
            "added",
            "skew",
            "vectors",
            *(
                f"{side}.{part}"
                for side in ("first", "second")
                for part in ("left", "right", "core")
            ),
        ),
        bomb,
    )
    file = parse(b"".join(build(kind, settings, {**parts, "lengths": lengths})))
    with pytest.raises(CorruptObjectError):
        decode_chain(SPEC, [parse(dense()), file] if kind != "dense" else [file])


@little
def test_a_frame_that_asks_for_a_window_of_gigabytes() -> None:
    # A frame header by hand: no single segment, a window of 2^41 bytes, no content size.
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, 0xF8]) + b"\x01\x00\x00"
    file = parse(b"".join(build("dense", {"coder": "zstd"}, {"data": frame})))
    with pytest.raises(CorruptObjectError):
        decode_chain(SPEC, [file])


# -- shapes and counts -----------------------------------------------------------------------------

HUGE = 1 << 62


def claimed(header: object) -> bytes:
    """A safetensors file of this header and sixteen bytes."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16)


SHAPES = {
    "safetensors": lambda: claimed(
        {"a": {"dtype": "F4", "shape": [HUGE] * 64, "data_offsets": [0, 16]}}
    ),
    "safetensors, zero and huge": lambda: claimed(
        {
            "a": {"dtype": "U8", "shape": [0, HUGE, HUGE], "data_offsets": [0, 0]},
            "b": {"dtype": "U8", "shape": [16], "data_offsets": [0, 16]},
        }
    ),
    "npy": lambda: npy(np.zeros(4)).replace(b"(4,), }", b"(%d, %d)}" % (HUGE, 4)),
    "gguf": lambda: gguf({"w": (0, (HUGE, 4, HUGE), bytes(64))}),
    "gguf, many tensors": lambda: b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60) + bytes(64),
    "onnx": lambda: onnx({"w": (1, (HUGE, HUGE), bytes(64))}),
    "tflite": lambda: tflite({"w": (0, (2**31 - 1,) * 4, bytes(64), False)}),
    "torch": lambda: save(
        tensor(Storage("0", "FloatStorage", HUGE), (HUGE, HUGE)), {"0": bytes(64)}
    ),
    "torch, strides": lambda: save(
        tensor(Storage("0", "FloatStorage", 4), (HUGE, 2), (0, 0), HUGE), {"0": bytes(16)}
    ),
    "pickle": lambda: pickle.dumps(np.zeros(4), 4).replace(
        b"K\x04\x85", b"\x8a\x08" + b"\x7f" * 8 + b"\x85"
    ),
}


@little
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_overflow(name: str) -> None:
    data = SHAPES[name]()
    layout = read(data)
    formats.check(layout, len(data))


@little
def test_a_million_empty_tensors() -> None:
    """Two hundred thousand are split; a header with more than that is kept as it is."""
    entry = '"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    for count, name in ((20_000, "safetensors"), (1_000_000, "opaque")):
        text = ("{" + ",".join(entry % number for number in range(count)) + "}").encode()
        assert read(struct.pack("<Q", len(text)) + text).format == name


@little
def test_a_manifest_of_many_empty_tensors_is_read() -> None:
    head = "git-theta manifest v1\nformat safetensors\nskeleton\n  U8 [0] inline:\n\n"
    body = "".join(f"tensor {number}\n  U8 [0] inline:\n\n" for number in range(60_000))
    assert len(parse_manifest((head + body + "end\n").encode()).entries) == 60_000


# -- sizes that lie --------------------------------------------------------------------------------


def _fasttext(at: int, form: str, *values: int) -> bytes:
    data = bytearray(fasttext(["the", "of"]))
    struct.pack_into(form, data, at % len(data), *values)
    return bytes(data)


NPY = npy(np.arange(9, dtype=np.float32))


def _tar(at: int, text: bytes) -> bytes:
    """An archive of an array, some bytes of whose header are others, with its checksum."""
    data = bytearray(tarred({"w.npy": NPY}))
    data[at : at + len(text)] = text
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


_INPUT = -(17 + 5 * 16 + 17 + 16)  # the head of a matrix of five rows, before one of one row
LYING = {
    "no words": _fasttext(64, "<3i", -1, -1, 0),
    "more words than bytes": _fasttext(64, "<3i", 4_000_000, 3_999_999, 1),
    "words and labels": _fasttext(64, "<3i", 3, 3, 3),
    "pruned": _fasttext(84, "<q", 1 << 60),
    "rows": _fasttext(_INPUT + 1, "<2q", 1 << 62, 1 << 62),
    "rows below zero": _fasttext(_INPUT + 1, "<2q", -6, -4),
    "quantised": _fasttext(_INPUT, "<b", 1),
    "no end of a word": fasttext(["the"])[:92] + b"x" * 3000,
    "tar size": _tar(124, b"77777777777"),
    "tar binary size": _tar(124, b"\x80" + b"\x7f" * 11),
    "tar kind": _tar(156, b"S"),
    "tar pax size": tarred({"w.npy": NPY}, 1.5).replace(b"mtime=1.5", b"size=9999"),
    "tar pax length": tarred({"w.npy": NPY}, 1.5).replace(b"13 mtime", b"99 mtime"),
    "mindspore length": stack("mindspore-first.ckpt").replace(b"\x08\6\x08\x08", b"\x08\7\x08\x08"),
    "mindspore axes": b"\x0a\x0d\x0a\x01w\x12\x08" + b"\x08\x04" * 4,
    "caffe shape": stack("caffe-first.caffemodel").replace(b"\x0a\2\6\x08", b"\x0a\2\x7f\x7f"),
    "msgpack rows": b"\x81\xa1a\x85\xc4\x02nd\xc3\xc4\x04type\xa3<f4\xc4\x04kind\xc4\0\xc4\x05shape"
    b"\x92\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\x02\xc4\x04data\xc4\x04abcd",
    "msgpack array of arrays": b"\x81\xa1a" + b"\x85\xc4\x02nd" * 100_000,
    "ocdbt node beyond the file": frame(b"\0\0\1")[:12] + b"\0" * 9,
    "ocdbt without its checksum": leaf({b"a": b"1"})[:-1] + b"\0",
    "ocdbt nodes and more": leaf({b"a": b"1"}) + b"more",
    "msgpack without bytes": b"\x81\xa1a\x85\xc4\x02nd\xc3\xc4\x04type\xa3<f4",
}


@little
@pytest.mark.parametrize("name", LYING)
def test_sizes_that_lie(name: str) -> None:
    assert read(LYING[name]).format == "opaque"


# -- nesting and cycles ----------------------------------------------------------------------------

NESTED = {
    "json header": lambda: struct.pack("<Q", 400_000) + b'{"a":' + b"[" * 399_995,
    "msgpack": lambda: b"\x91" * 500_000,
    "msgpack maps": lambda: b"\x81\xa1a" * 300_000,
    "onnx": lambda: _nested_graph(3000),
    "gguf arrays": lambda: gguf({}, [("a", 9, struct.pack("<IQ", 9, 1) * 50_000)]),
    "keras in keras": lambda: keras({}, weights=keras({}, weights=keras({"w": np.zeros(3)}))),
    "zip in zip": lambda: _wrapped(40),
    "tar in tar": lambda: functools.reduce(lambda data, _: tarred({"m": data}), range(40), NPY),
}


def _nested_graph(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = tagged(1, tagged(5, tagged(6, inner)))  # a graph, in an attribute, in a node
    return tagged(1, 8) + tagged(2, b"x") + tagged(7, inner) + tagged(8, tagged(2, 17))


def _wrapped(times: int) -> bytes:
    data = b"\x80\x02}."
    for _ in range(times):
        stream = BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("m/data.pkl", data)
        data = stream.getvalue()
    return data


@little
@pytest.mark.parametrize("name", NESTED)
def test_deep_nesting(name: str) -> None:
    data = NESTED[name]()
    formats.check(read(data), len(data))


@little
@pytest.mark.parametrize(
    "text", [b"a=" + b"[" * 200_000, b"a" + b".a" * 200_000 + b"=1", b"[" * 900_000]
)
def test_deeply_nested_settings(text: bytes) -> None:
    with pytest.raises(UsageError):
        parse_file(text)


@little
@pytest.mark.parametrize(
    "text",
    [
        b'{"weight_map":' + b"[" * 500_000,
        b'{"weight_map":{"a":["b"]}}',
        b'{"weight_map":' + b'{"a":' * 300_000,
        b"[" + b"[]," * 9_000_000,
    ],
)
def test_hostile_indexes_of_shards(text: bytes) -> None:
    with pytest.raises(UsageError, match="not an index of shards"):
        shards._listed("model.safetensors.index.json", text)


CYCLES = {
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a dictionary in itself": b"\x80\x02}q\x00K\x01h\x00s.",
    "an object whose state is itself": b"\x80\x02c__main__\nA\n)\x81q\x00h\x00b.",
    "two that hold each other": b"\x80\x02]q\x00]q\x01h\x00ah\x01a0h\x00.",
    "lists inside each other": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "halves that are one": b"".join(
        [b"\x80\x02)", *(b"q%ch%c\x86" % (i % 250, i % 250) for i in range(5000)), b"."]
    ),
}


@little
@pytest.mark.parametrize("name", CYCLES)
def test_cyclic_pickles_are_read_and_compared(name: str) -> None:
    """By who splits the archive, and by a merge, which follows every value."""
    data = save(CYCLES[name], {"0": bytes(16)})
    layout = read(data)
    assert layout.format == "torch-zip"
    found = skeleton.decode(skeleton.encode(layout))
    lengths = {
        segment.tensor.name: segment.tensor.nbytes
        for segment in layout.segments
        if hasattr(segment, "tensor")
    }
    if name in ("lists inside each other", "halves that are one"):
        with pytest.raises(FormatError, match="steps"):
            contents(found, lengths)
        return
    held = contents(found, lengths)
    assert pickles.judge(held, held, held).side == "ours"


# -- hashes that do not match ----------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Manifest, Blocks]:
    """A file of two tensors, one of them a dense block and an update, in a store."""
    blocks = Blocks(Store(tmp_path / "theta"))
    entries = []
    random = np.random.default_rng(3)
    for name in ("a", "b"):
        info = TensorInfo(name, DTYPES["F32"], (50, 40))
        (spec,) = cut(info)
        old = random.standard_normal(2000).astype(np.float32).view(np.uint32)
        block = blocks.write(spec, old)
        block = blocks.write(spec, old + np.uint32(3), predecessor=block)
        entries.append(Entry(info, (block,)))
    structure = skeleton.encode(Skeleton((formats.Literal(b"x" * 900), SpanRef("a"), SpanRef("b"))))
    return Manifest("npy", blocks.write_bytes(structure), tuple(entries)), blocks


def write(manifest: Manifest, blocks: Blocks) -> bytes:
    """The file that a manifest stands for."""
    out: list[bytes] = []
    Smudger(manifest, blocks).write(lambda data: out.append(bytes(data)))
    return b"".join(out)


def other(digest: str) -> str:
    """A hash that is not this one."""
    return hashlib.sha256(digest.encode()).hexdigest()


def swapped(manifest: Manifest) -> Manifest:
    a, b = manifest.entries
    return replace(manifest, entries=(replace(a, blocks=b.blocks), replace(b, blocks=a.blocks)))


def in_first(change: Callable[[Block], Block]) -> Callable[[Manifest], Manifest]:
    """A manifest in which one block is another."""

    def apply(manifest: Manifest) -> Manifest:
        first, *rest = manifest.entries
        return replace(manifest, entries=(replace(first, blocks=(change(first.blocks[0]),)), *rest))

    return apply


THIRD = TensorInfo("c", DTYPES["F32"], (50, 40))
MISMATCHES: dict[str, Callable[[Manifest], Manifest]] = {
    "the hash of a block": in_first(lambda block: replace(block, sha256=other(block.sha256))),
    "the hash of the skeleton": lambda m: replace(
        m, skeleton=replace(m.skeleton, sha256=other(m.skeleton.sha256))
    ),
    "a chain without its update": in_first(lambda block: replace(block, chain=block.chain[:1])),
    "a chain without its base": in_first(lambda block: replace(block, chain=block.chain[1:])),
    "a chain in the wrong order": in_first(lambda block: replace(block, chain=block.chain[::-1])),
    "an update applied twice": in_first(
        lambda block: replace(block, chain=(*block.chain, block.chain[-1]))
    ),
    "an object of another size": in_first(
        lambda block: replace(block, chain=(replace(block.chain[0], size=HUGE), *block.chain[1:]))
    ),
    "an object that is nowhere": in_first(
        lambda block: replace(block, chain=(UpdateRef("dense", "0" * 64, 9), *block.chain[1:]))
    ),
    "the skeleton of a tensor": lambda m: replace(m, skeleton=m.entries[0].blocks[0]),
    "a tensor that no structure has": lambda m: replace(
        m,
        entries=(*m.entries, replace(m.entries[0], tensor=THIRD)),
    ),
    "one tensor less": lambda m: replace(m, entries=m.entries[:1]),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_manifest_that_lies_is_refused(name: str, stored: tuple[Manifest, Blocks]) -> None:
    manifest, blocks = stored
    assert len(write(manifest, blocks)) == 900 + 2 * 8000
    with pytest.raises((CorruptObjectError, MissingObjectError, ManifestError)):
        write(MISMATCHES[name](manifest), blocks)


def test_each_object_may_lie_under_its_name(stored: tuple[Manifest, Blocks]) -> None:
    manifest, blocks = stored
    refs = {ref.oid: ref for ref in manifest.objects()}
    assert len(refs) == 5
    for oid in refs:
        path = blocks.store.path(oid)
        whole = path.read_bytes()
        path.chmod(0o644)
        for lie in (whole[:-1] + bytes([whole[-1] ^ 1]), bytes(len(whole)), whole[:-1], b""):
            path.write_bytes(lie)
            with pytest.raises((CorruptObjectError, MissingObjectError, ManifestError)):
                write(manifest, blocks)
        path.write_bytes(whole)
    assert len(write(manifest, blocks)) == 16_900


def test_tensors_that_exchange_their_blocks_are_their_blocks(
    stored: tuple[Manifest, Blocks],
) -> None:
    """Control: a manifest may say so, for a block is known by its content alone."""
    manifest, blocks = stored
    plain, turned = write(manifest, blocks), write(swapped(manifest), blocks)
    assert turned == plain[:900] + plain[8900:] + plain[900:8900]


# -- manifests that stand for more than there is ---------------------------------------------------


class _EnoughError(Exception):
    pass


@little
def test_a_header_of_other_tensors_is_refused(tmp_path: Path) -> None:
    """Its bytes are right by hash, the tensors' are too, and they do not belong together."""
    blocks = Blocks(Store(tmp_path / "theta"))
    values = np.arange(64, dtype=np.float32)
    there = [safetensors({"w": shaped}) for shaped in (values, values.reshape(8, 8), values[:32])]
    there += [safetensors({"w": values, "v": values}), safetensors({"w": values.view(np.int32)})]
    for number, file in enumerate(there):
        header = file[: 8 + int.from_bytes(file[:8], "little")]
        text = b'git-theta skeleton v1\nliteral %d\ntensor "w"\n\n' % len(header)
        info = TensorInfo("w", DTYPES["F32"], (64,))
        (spec,) = cut(info)
        entry = Entry(info, (blocks.write(spec, values.view(np.uint32)),))
        manifest = Manifest("safetensors", blocks.write_bytes(text + header), (entry,))
        if number == 0:
            assert Smudger(manifest, blocks).size == len(file)
            continue
        with pytest.raises(ManifestError, match="header does not belong"):
            Smudger(manifest, blocks)


def test_a_terabyte_of_zeros_is_written_block_by_block(tmp_path: Path) -> None:
    blocks = Blocks(Store(tmp_path / "theta"))
    info = TensorInfo("zeros", DTYPES["F32"], (1 << 38,))
    spec = next(cut(info))
    block = blocks.write(spec, np.zeros(spec.count, np.uint32))
    assert block.chain[0].size < 20_000
    entry = Entry(info, (block,) * (info.nbytes // spec.nbytes))
    structure = blocks.write_bytes(skeleton.encode(Skeleton((SpanRef("zeros"),))))
    smudger = Smudger(Manifest("npy", structure, (entry,)), blocks)
    assert smudger.size == 1 << 40
    written = 0

    def count(data: memoryview) -> None:
        nonlocal written
        written += len(data)
        if written >= 200 << 20:
            raise _EnoughError

    with pytest.raises(_EnoughError):
        smudger.write(count)


# -- names -----------------------------------------------------------------------------------------

EVIL = [
    "../../escaped", "/absolute", "a\x1b[31mred\x1b]0;title\x07", "line\nbreak", "to\u202eleft",
    "nul\0byte", "`$(touch pwned)`", "<script>alert(1)</script>", "C:\\windows", "| table |",
]  # fmt: skip


def test_names_of_tensors_touch_no_path_and_no_terminal(repo: Repo, tmp_path: Path) -> None:
    first = {name: np.full((20, 30), number, np.float32) for number, name in enumerate(EVIL)}
    second = {name: value + 1 for name, value in first.items()}
    repo.write("model.safetensors", safetensors(first, {"\x1b[2J": "\x1b]0;x\x07"}))
    repo.commit("first")
    repo.write("model.safetensors", safetensors(second, {"\x1b[2J": "\u202e"}))
    repo.commit("second")
    before = {path for path in tmp_path.rglob("*") if ".git" not in path.parts}
    for command in (
        ["diff", "HEAD~1", "HEAD"],
        ["show", "HEAD:model.safetensors"],
        ["log", "model.safetensors"],
        ["blame", "model.safetensors"],
        ["du", "HEAD:model.safetensors"],
        ["ls-files"],
        ["diff", "HEAD~1", "HEAD", "--format", "markdown"],
        ["diff", "HEAD~1", "HEAD", "--format", "json"],
        ["fsck"],
    ):
        said = repo.theta(*command)
        assert not {"\x1b", "\x07", "\0", "\u202e"} & set(said), command
    page = repo.theta("diff", "HEAD~1", "HEAD", "--format", "html")
    assert "<script>alert" not in page
    assert "\x1b" not in repo.git("diff", "HEAD~1", "HEAD")
    assert {path for path in tmp_path.rglob("*") if ".git" not in path.parts} == before
    assert not list(tmp_path.parent.rglob("escaped*"))
    repo.git("checkout", "-q", "HEAD~1")
    assert (repo.path / "model.safetensors").read_bytes() == safetensors(
        first, {"\x1b[2J": "\x1b]0;x\x07"}
    )


@pytest.mark.parametrize("driver", ["theta", "text"])
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_of_files_touch_no_terminal(repo: Repo, driver: str) -> None:
    name = "a\x1b[31mred\x1b]0;title\x07.safetensors"
    first = {"w": np.zeros((20, 30), np.float32)}
    repo.write(name, safetensors(first))
    repo.commit("first")
    for branch, number in (("side", 1), ("main", 2)):
        repo.git("checkout", "-q", "-B", branch)
        repo.write(name, safetensors({"w": first["w"] + number}))
        repo.commit(branch)
        repo.git("checkout", "-q", "HEAD~1")
    repo.git("checkout", "-q", "main")
    (repo.path / ".git/info").mkdir(exist_ok=True)
    (repo.path / ".git/info/attributes").write_text(f"*.safetensors merge={driver}\n")
    # Git's own lines, on stdout, hold the name as it is.
    said = repo.run("git", "merge", "side", ok=(1,)).stderr.decode()
    assert "a\\x1b[31mred\\x1b]0;title\\x07.safetensors" in said
    # Such a name cannot be pasted, so the command does not have it.
    assert "git theta resolve FILE" in said
    assert not {"\x1b", "\x07"} & set(said)
    for command in (["status"], ["ls-files"], ["resolve", name, "--strategy", "average"]):
        assert not {"\x1b", "\x07"} & set(repo.theta(*command)), command


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../x", "a\\..\\x", "\\\\host\\x", "n\0ul"])
def test_an_export_cannot_be_unpacked_elsewhere(name: str) -> None:
    info = TensorInfo(name, DTYPES["F32"], (2,))
    with pytest.raises(FormatError, match="no name for a member"):
        formats.build("npz", {name: info})


def test_an_index_of_shards_reads_no_file_outside_the_repository(
    repo: Repo, tmp_path: Path
) -> None:
    (tmp_path / "secret.safetensors").write_bytes(safetensors(model()))
    for name in ("../secret.safetensors", "/etc/passwd", "../../../../etc/passwd"):
        index = json.dumps({"weight_map": {"a": name}}).encode()
        repo.write("model.safetensors.index.json", index)
        repo.commit("index")
        done = repo.run(
            sys.executable,
            "-m",
            "git_theta_ext.cli.main",
            "du",
            "HEAD:model.safetensors.index.json",
            ok=(2,),
        )
        assert b"which is not in " in done.stderr


# -- adapters --------------------------------------------------------------------------------------

PATTERNS = [
    "(a+)+$",
    "(a|a)*$",
    "(a|a)" * 50 + "$",
    "(.*.*.*)*x",
    ".*" * 100 + "x",
    "a?" * 80 + "a" * 80,
    "(?=a)",
    "(a)\\1",
    "[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*!",
    "x" * 300,
    "((((a{1,99}){1,99}){1,99}){1,99}){1,99}b",
    "(",
    "[",
    "*",
    "\\",
]


REFUSED = {"(?=a)", "(a)\\1", "x" * 300, "(", "[", "*", "\\"}


@little
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_of_an_adapter_take_no_time(pattern: str, tmp_path: Path) -> None:
    name = "a" * 60
    factors = {
        f"base_model.model.{name}.lora_A.weight": np.ones((1, 4), np.float32),
        f"base_model.model.{name}.lora_B.weight": np.ones((4, 1), np.float32),
    }
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(safetensors(factors))
    base = {f"{name}.weight": TensorInfo(f"{name}.weight", DTYPES["F32"], (4, 4))}
    config = {"peft_type": "LORA", "lora_alpha": 2, "alpha_pattern": {pattern: 3}}
    with TensorFile(path) as file:
        if pattern in REFUSED:
            with pytest.raises(UsageError, match="alpha_pattern"):
                peft.bind(file, config, "lora", base)
        else:
            assert peft.bind(file, config, "lora", base).changes


# -- what a cloned repository brings ---------------------------------------------------------------


def test_a_clone_runs_nothing_of_what_it_brings(repo: Repo, tmp_path: Path) -> None:
    marker = tmp_path / "pwned"
    touch = f"open({str(marker)!r}, 'w').close()\n".encode()
    for name in (
        "git_theta_ext/__init__.py",
        "numpy.py",
        "json.py",
        "sitecustomize.py",
        "git.py",
        "usercustomize.py",
        "git_theta_ext/drivers/filter.py",
        "encodings.py",
    ):
        repo.write(name, touch)
    repo.write("__main__.py", touch)
    repo.write(
        ".theta.toml", f'[merge]\nevaluate = "touch {marker}"\nstrategy = "average"\n'.encode()
    )
    repo.write(
        ".lfsconfig",
        f"[core]\n\thooksPath = {tmp_path}\n[theta]\n\tmergeStrategy = x\n"
        f"[lfs]\n\tstandalonetransferagent = evil\n"
        f'[lfs "customtransfer.evil"]\n\tpath = touch\n\targs = {marker}\n'.encode(),
    )
    hook = b"#!/bin/sh\ntouch '%s'\n" % os.fsencode(marker)
    for name in ("hooks/post-checkout", ".githooks/pre-push", "post-checkout"):
        repo.write(name, hook).chmod(0o755)
    tensors = model()
    repo.write("model.safetensors", safetensors(tensors))
    repo.write("weights.pt", save(pickle.dumps(_Touch(marker), 2), {"0": bytes(16)}))
    repo.commit("everything")
    repo.git("branch", "side")
    for number, branch in enumerate(("main", "side")):
        repo.git("checkout", "-q", branch)
        moved = {
            name: np.asarray(value) + np.asarray(number + 1, value.dtype)
            for name, value in tensors.items()
        }
        repo.write("model.safetensors", safetensors(moved))
        repo.commit(branch)
    script = Path(sys.executable).with_name("git-theta")
    subprocess.run(["git", "clone", "-q", str(repo.path), str(tmp_path / "clone")], check=True)
    clone = Repo(tmp_path / "clone")
    clone.run(str(script), "install", "--local")
    clone.git("checkout", "-q", "-f", "HEAD", "--", ".")
    for command in (
        ["diff", "HEAD~1", "HEAD"],
        ["show", "--stat"],
        ["status"],
        ["log", "-p"],
        ["stash", "list"],
        ["merge", "origin/main"],
        ["push", "-q", "origin", "HEAD:new"],
    ):
        clone.run("git", *command, ok=(0, 1))
    for command in (["status"], ["diff", "HEAD~1", "HEAD"], ["fsck"], ["ls-files"], ["version"]):
        clone.run(str(script), *command, ok=(0, 1, 2))
    assert not marker.exists()
    name = "encoder.layer.0.attention.query.weight"
    assert parse_manifest(clone.blob("HEAD:model.safetensors")).entries
    assert name in clone.run(str(script), "show", "HEAD:model.safetensors").stdout.decode()


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return open, (str(self.path), "w")


def test_controls_of_the_gallery() -> None:
    """What the attacks are made of is what it is meant to be."""
    assert zlib.decompress(zlib.compress(bytes(9))) == bytes(9)
    assert len(zeros_frame(300 << 20)) < 100_000 < limits.STRUCTURE_BYTES
    assert sha256(decode_chain(SPEC, [parse(dense())])) == sha256(VALUES)
    assert pickle.loads(dumps({"a": 1})) == {"a": 1}
