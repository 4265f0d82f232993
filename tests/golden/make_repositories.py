"""Make `tests/golden/repositories`: history that every version must check out.

Each file is a tar of a bare repository (one pack) with the objects of its store under
`theta/objects`, and of what its commits hold. They are frozen: run this only to add one, never to
replace one. What is written depends on the version that writes, what is read must not: `updates`,
`containers` and `more` have manifests of version 1, the others of version 2.

    python -m tests.golden.make_repositories NAME
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from tests.golden import histories
from tests.golden.histories import History, Version
from tests.scenarios.array_files import array_files
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.containers import gguf, hdf5, keras, npy, npz, onnx, tensorflow, tflite
from tests.scenarios.examples import coreml, flax, torch_legacy
from tests.scenarios.examples import stack as stack_file
from tests.scenarios.golden import FOLDER
from tests.scenarios.torch_files import torch_files
from tests.scenarios.torchzip import Storage, save, state_dict, tensor


def updates() -> list[Version]:
    """One file whose tensors meet every kind of update, in a chain of five versions."""
    random = np.random.default_rng(8)
    wide = random.normal(0, 0.02, (128, 96)).astype(np.float32)
    bits = wide.view(np.uint32)
    left, right = random.normal(0, 0.05, (128, 2)), random.normal(0, 0.05, (2, 96))
    sparse = wide.copy()
    sparse.reshape(-1)[::97] += np.float32(0.5)
    decayed = (bits - np.where(bits & 0x400000, np.uint32(5), np.uint32(3))).view(np.float32)
    steps = {
        "delta": [wide, (wide + random.normal(0, 1e-4, wide.shape)).astype(np.float32)],
        "sparse": [wide, sparse],
        "step": [wide, decayed],
        "scale": [wide, (wide * np.float32(1.37)).astype(np.float32)],
        "low-rank": [wide, (wide + 0.05 * left @ right).astype(np.float32)],
        "cast": [wide, wide.astype(ml_dtypes.bfloat16)],
        "resize": [wide, np.concatenate([wide, wide[:5]])],
        "dense": [wide, random.normal(0, 1, (40, 40)).astype(np.float16)],
        "inline": [np.arange(6, dtype=np.int64), np.arange(7, dtype=np.int64)],
        "empty": [np.zeros((0, 3), np.float32), np.zeros((4, 0), np.float32)],
    }
    first = {name: pair[0] for name, pair in steps.items()}
    second = {name: pair[1] for name, pair in steps.items()}
    third = {**second, "delta": (second["delta"] + np.float32(1e-5)).astype(np.float32)}
    fourth = {**third, "delta": (third["delta"] * np.float32(1.0001)).astype(np.float32)}
    bits16 = np.arange(65536, dtype=np.uint16)
    odd = np.array([0x7FC00001, 0xFFC12345, 0x80000000], np.uint32)
    fifth = {
        "patterns.bf16": bits16.view(ml_dtypes.bfloat16),
        "patterns.f16": bits16.view(np.float16),
        "nan": odd.view(np.float32),
    }
    found = (first, second, third, fourth, {**fourth, **fifth})
    return [
        {"model.safetensors": safetensors(tensors, {"version": str(number)})}
        for number, tensors in enumerate(found)
    ]


def containers() -> list[Version]:
    """Every container, in two versions; of some, opaque bytes too."""
    made = []
    for number in (0, 1):
        values = np.arange(600, dtype=np.float32).reshape(20, 30) + number
        raw = values.tobytes()
        value = state_dict({"w": tensor(Storage("0", "FloatStorage", 600), (20, 30))})
        made.append({
            "a.safetensors": safetensors({"w": values}, {"n": str(number)}),
            "b.pt": save(value, {"0": raw}),
            "c.npy": npy(values), "d.npz": npz({"w": values, "t": np.asfortranarray(values)}),
            "e.gguf": gguf({"w": (0, (20, 30), raw)}), "f.h5": hdf5({"dense/kernel": values}),
            "g.keras": keras({"layers/dense/vars/0": values}),
            "h.tflite": tflite({"w": (0, (20, 30), raw, False)}),
            "i.onnx": onnx({"w": (1, (20, 30), raw)}), "j.pt": torch_legacy(),
            "k.msgpack": flax({"kernel": values}), "l.mlweights": coreml(),
            "m.bin": bytes(range(256)) * (40 + number), "n.bin": b"short",
        })  # fmt: skip
    return made


def more() -> list[Version]:
    """What the first two lack: containers of several files, rows that moved, chunks, odd names."""
    random = np.random.default_rng(9)
    rows = random.normal(0, 0.02, (64, 48)).astype(np.float32)
    order = random.permutation(64)
    lone = tensor(Storage("0", "FloatStorage", 600), (20, 30))
    made = []
    for number in (0, 1):
        values = rows[order] if number else rows
        data, index = tensorflow({"w": values, "b": np.arange(3) + number}, b"text")
        chunks = np.arange(700_000, dtype=np.uint32) // 64
        chunks[100_000 : 100_000 + 9 * number] = 7
        made.append({
            "a.safetensors": safetensors({"rows": values, "größe\n": values[:2]}),
            "b.distcp": save(lone, {"0": bytes(2400)}) + save(lone, {"0": values.tobytes()[:2400]}),
            "c.pkl": pickle.dumps({"a": values, "b": [np.ones(9) + number]}, 4),
            "d.data-00000-of-00001": data, "d.index": index,
            "e.bin": chunks.tobytes(),
        })  # fmt: skip
    return made


def torch() -> list[Version]:
    """What PyTorch writes besides `torch.save`, and complex numbers whose two parts are unlike."""
    random = np.random.default_rng(10)
    values = random.integers(1, 4, (256, 256)).astype(np.complex64)
    files = torch_files()
    return [
        {
            "a.metadata": files[f"fsdp/{side}/.metadata"],
            "b.pt2": files[f"exported/{name}.pt2"],
            "c.npy": npy(values + added),
        }
        for side, name, added in (
            ("base", "one", np.complex64(0)),
            ("ours", "two", random.integers(1, 4, values.shape).astype(np.complex64) / 64),
        )
    ]


def classic() -> list[Version]:
    """Models of thinc, fastText and scikit-learn, as these wrote them, and others at the end."""
    folder = Path(__file__).parent / "classic"
    names = {"a.msgpack": "thinc-{}.model", "b.bin": "fasttext-{}.bin", "c.pkl": "forest-{}.joblib"}
    return [
        {name: (folder / file.format(which)).read_bytes() for name, file in names.items()}
        for which in ("first", "second")
    ]


def stack() -> list[Version]:
    """Two versions of what other frameworks and packers of archives wrote."""
    names = ("caffe-{}.caffemodel", "mindspore-{}.ckpt", "nemo-{}.nemo", "torchserve-{}.mar")
    return [
        {f"{'abcd'[n]}.bin": stack_file(name.format(which)) for n, name in enumerate(names)}
        for which in ("first", "second")
    ]


def arrays() -> list[Version]:
    """The roots of two databases of Orbax, without the folders that they lead to."""
    return [{"a.bin": array_files()[f"orbax/{side}/manifest.ocdbt"]} for side in ("base", "ours")]


def _in_turn(versions: Callable[[], list[Version]]) -> Callable[[History], None]:
    """A history of these versions, one after the other."""

    def write(history: History) -> None:
        for version in versions():
            history.version(version)

    return write


REPOSITORIES: dict[str, Callable[[History], None]] = {
    "updates": _in_turn(updates),
    "containers": _in_turn(containers),
    "more": _in_turn(more),
    "torch": _in_turn(torch),
    "classic": _in_turn(classic),
    "stack": _in_turn(stack),
    "arrays": _in_turn(arrays),
    "packs": histories.packs,
    "recipes": histories.recipes,
    "mixed": histories.mixed,
    "adapters": histories.adapters,
    "structured": histories.structured,
    "quantised": histories.quantised,
}


def make(name: str) -> Path:
    """Write one archive.

    Raises:
        FileExistsError: it is there already.
    """
    path = FOLDER / f"{name}.tar"
    with tempfile.TemporaryDirectory() as folder, path.open("xb") as out:
        history = History(Path(folder))
        REPOSITORIES[name](history)
        repository, hashes = history.repository, history.hashes
        bare = Path(folder) / "bare.git"
        repository.git("clone", "-q", "--bare", str(repository.path), str(bare))
        repository.git("-C", str(bare), "repack", "-a", "-d", "-q")
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, "hashes.json", json.dumps(hashes, indent=1, sort_keys=True).encode())
            parts = [*bare.glob("HEAD"), *bare.glob("packed-refs"), *bare.glob("objects/**/*")]
            store = repository.path / ".git"
            for top, items in ((bare, parts), (store, store.glob("theta/objects/**/*"))):
                for item in sorted(path for path in items if path.is_file()):
                    _add(archive, f"bare.git/{item.relative_to(top).as_posix()}", item.read_bytes())
    return path


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(make(wanted))
