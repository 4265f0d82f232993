"""One file of each format, as the libraries that own the formats write it."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgpack
import numpy as np

from git_theta_ext.formats.base import Layout, Literal, Span
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.derived import Checksums, derived_length
from tests.scenarios.array_files import array_files
from tests.scenarios.checkpoints import awkward, safetensors
from tests.scenarios.containers import gguf, hdf5, keras, npy, npz, onnx, tflite
from tests.scenarios.torch_files import torch_files
from tests.scenarios.torchzip import Storage, legacy, save, state_dict, tensor

STACK = Path(__file__).parents[1] / "golden" / "stack"


def torch_archive() -> bytes:
    """What torch.save writes for a state dict of two tensors, one of them transposed."""
    first, second = Storage("0", "FloatStorage", 600), Storage("1", "BFloat16Storage", 12)
    value = state_dict({"weight": tensor(first, (20, 30)), "t": tensor(second, (3, 4), (1, 3))})
    return save(value, {"0": bytes(range(240)) * 10, "1": bytes(range(24))})


def torch_legacy() -> bytes:
    """What torch.save wrote before 1.6."""
    first, second = Storage("0", "FloatStorage", 600), Storage("1", "BFloat16Storage", 12)
    value = state_dict({"weight": tensor(first, (20, 30)), "t": tensor(second, (3, 4), (1, 3))})
    return legacy(value, {"0": (600, bytes(range(240)) * 10), "1": (12, bytes(range(24)))})


def distcp() -> bytes:
    """Two tensors as a distributed checkpoint's writer puts them, one archive after the other."""
    lone = tensor(Storage("0", "FloatStorage", 600), (20, 30))
    return save(lone, {"0": bytes(range(240)) * 10}) + save(lone, {"0": bytes(2400)})


def flax(tensors: dict[str, np.ndarray]) -> bytes:
    """What flax.serialization.msgpack_serialize writes for one module's arrays."""
    packed = {
        name: msgpack.ExtType(1, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))
        for name, value in tensors.items()
    }
    return bytes(msgpack.packb({"step": 3, "params": {"Dense_0": packed}}))


def coreml() -> bytes:
    """A weight.bin of two constants."""
    out = struct.pack("<2I", 2, 2) + bytes(56)
    for code, data in ((1, bytes(range(100))), (2, bytes(range(200)))):
        out += struct.pack("<2I2Q", 0xDEADBEEF, code, len(data), len(out) + 64) + bytes(40) + data
        out += bytes(-len(out) % 64)
    return out


def fasttext(words: list[str], columns: int = 4, bucket: int = 3) -> bytes:
    """What fastText saves for a model of these words and one label."""
    entries = [(word, 9, 0) for word in words] + [("__label__a", 5, 1)]
    out = struct.pack("<2i", 793712314, 12)
    out += struct.pack("<12id", columns, 5, 5, 1, 5, 2, 3, 3, bucket, 0, 0, 100, 1e-4)
    out += struct.pack("<3i2q", len(entries), len(words), 1, 90, -1)
    for word, count, kind in entries:
        out += word.encode() + b"\0" + struct.pack("<qb", count, kind)
    for rows in (len(words) + bucket, 1):
        values = np.arange(rows * columns, dtype=np.float32)
        out += struct.pack("<b2q", 0, rows, columns) + values.tobytes()
    return out


def tarred(files: Mapping[str, bytes], time: float = 1, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of these files, by tarfile, all of them written at one time."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), time
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these files, by zipfile."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def packed() -> dict[str, bytes]:
    """A text, and checkpoints of several containers, to be put into an archive."""
    return {
        "./config.yaml": b"a: 1\n", "./weights.ckpt": torch_archive(),
        "x" * 120 + "/w.npy": npy(np.arange(600, dtype=np.float32)),
        "é.keras": keras({"layers/dense/vars/0": np.arange(600.0).reshape(20, 30)}),
    }  # fmt: skip


def stack(name: str) -> bytes:
    """A file that `tests/golden/make_stack.py` wrote."""
    return (STACK / name).read_bytes()


EXAMPLES: dict[str, Callable[[], bytes]] = {
    "safetensors": lambda: safetensors(awkward(), {"a": "b"}),
    "torch-zip": torch_archive,
    "pt2": lambda: torch_files()["exported/one.pt2"],
    "npy": lambda: npy(np.arange(600, dtype=np.float32).reshape(20, 30)),
    "npz": lambda: npz({"w": np.arange(600, dtype=np.float32), "t": np.eye(9).T}),
    "gguf": lambda: gguf({"w": (0, (20, 30), bytes(2400)), "q": (2, (4, 64), bytes(144))}),
    "hdf5": lambda: hdf5({"dense/kernel": np.arange(600.0).reshape(20, 30), "bias": np.ones(30)}),
    "keras": lambda: keras({"layers/dense/vars/0": np.arange(600.0).reshape(20, 30)}),
    "tflite": lambda: tflite({"w": (0, (20, 30), bytes(range(240)) * 10, False)}),
    "onnx": lambda: onnx({"w": (1, (20, 30), bytes(range(240)) * 10)}),
    "distcp": distcp,
    "torch-legacy": torch_legacy,
    "distcp-metadata": lambda: torch_files()["fsdp/base/.metadata"],
    "pickle": lambda: pickle.dumps({"a": np.arange(600).reshape(20, 30), "b": [np.ones(9)]}, 4),
    "msgpack": lambda: flax({"kernel": np.arange(600.0).reshape(20, 30), "bias": np.ones(30)}),
    "coreml-weights": coreml,
    "fasttext": lambda: fasttext(["the", "of"]),
    "ocdbt": lambda: array_files()["orbax/base/manifest.ocdbt"],
    "mindspore": lambda: stack("mindspore-first.ckpt"),
    "caffe": lambda: stack("caffe-first.caffemodel"),
    "tar": lambda: tarred(packed()),
    "zip": lambda: zipped({"a.json": b"{}", "model.pt": torch_archive()}),
}


def rebuilt(data: bytes, layout: Layout) -> bytes:
    """The file as its layout says, derived fields computed, through the encoded skeleton."""
    segments = skeleton.decode(skeleton.encode(layout)).segments
    lengths = [
        len(s.data) if isinstance(s, Literal)
        else s.tensor.nbytes if isinstance(s, Span)
        else derived_length(s)
        for s in layout.segments
    ]  # fmt: skip
    checksums = Checksums(segments, lengths)
    starts = np.cumsum([0, *lengths]).tolist()
    for number, segment in enumerate(layout.segments):
        if isinstance(segment, Literal | Span) and checksums.covered(number):
            checksums.feed(number, data[starts[number] : starts[number + 1]])
    pieces = []
    for number, segment in enumerate(layout.segments):
        if isinstance(segment, Literal):
            pieces.append(segment.data)
        elif isinstance(segment, Span):
            pieces.append(data[starts[number] : starts[number + 1]])
        else:
            pieces.append(checksums.value(number))
    return b"".join(pieces)
