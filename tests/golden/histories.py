"""Histories that have manifests of version 2: packs, recipes, and version 1 beside them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tests.reliability.sealed import Repository
from tests.scenarios.adapters import SHAPE as SIDES
from tests.scenarios.adapters import fill
from tests.scenarios.adapters import structured as structured_adapters
from tests.scenarios.checkpoints import NAME, Tensors, safetensors
from tests.scenarios.golden import unpacked

QUANTISED = Path(__file__).parent / "quantised"
Version = dict[str, bytes]
PATTERNS = (".safetensors", ".pt", ".npy", ".npz", ".gguf", ".h5", ".keras", ".tflite", ".onnx",
            ".msgpack", ".mlweights", ".bin", ".distcp", ".pkl", ".data-00000-of-00001",
            ".index", ".pt2", ".metadata")  # fmt: skip


class History:
    """A repository whose versions are tagged v0, v1, ..., with the hashes of the files of each."""

    def __init__(self, folder: Path) -> None:
        """Make the repository in this folder."""
        self.repository = Repository(folder, *(f"*{suffix}" for suffix in PATTERNS))
        self.hashes: list[dict[str, str]] = []

    def version(self, files: Version) -> None:
        """Commit these files, and tag them."""
        for name, data in files.items():
            self.repository.write(name, data)
        self.repository.commit(f"version {len(self.hashes)}")
        self.tag()

    def tag(self) -> None:
        """Tag what HEAD is, and the work tree with it."""
        self.repository.git("tag", f"v{len(self.hashes)}")
        files = sorted(path for path in self.repository.path.iterdir() if path.is_file())
        self.hashes.append({
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.name != ".gitattributes"
        })  # fmt: skip


def packs(history: History) -> None:
    """Small tensors that share objects, and change by turns; at last they are packed again."""
    random = np.random.default_rng(19)
    tensors: dict[str, NDArray[np.generic]] = {}
    tensors["wide"] = random.normal(0, 1, (300, 301)).astype(np.float32)
    tensors["codes"] = random.integers(0, 3, 9000).astype(np.int8)
    for number in range(40):
        tensors[f"layer.{number}.norm"] = random.normal(1, 0.1, 300).astype(np.float32)
    for number in range(4):
        for at in range(number, 40, 7):
            tensors[f"layer.{at}.norm"] = random.normal(1, 0.1, 300).astype(np.float32)
        history.version({NAME: safetensors(tensors), "m.bin": bytes(range(251)) * (700 + number)})
    history.repository.theta("repack", "--yes")
    history.repository.git("commit", "-q", "-m", "repacked")
    history.tag()


def adapters(history: History) -> None:
    """A DoRA that is supplied, to weights of two types; then of other weights, by columns."""
    random = np.random.default_rng(22)

    def normal(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.05, shape).astype(np.float32)

    wide: dict[str, NDArray[np.generic]] = {
        "a.weight": normal(96, 128),
        "b.weight": normal(80, 64).astype(ml_dtypes.bfloat16),
        "wte.weight": normal(72, 48),
    }
    history.version({NAME: safetensors(wide)})
    factors = {}
    for module, down, up, norms in (
        ("a", (3, 128), (96, 3), 96), ("b", (3, 64), (80, 3), 80), ("wte", (3, 72), (48, 3), 48)
    ):  # fmt: skip
        stem = f"base_model.model.{module}.lora_"
        kinds = ("embedding_A", "embedding_B") if module == "wte" else ("A.weight", "B.weight")
        for kind, shape in zip(kinds, (down, up), strict=True):
            factors[f"{stem}{kind}"] = normal(*shape)
        factors[f"{stem}magnitude_vector"] = 0.5 + 0.1 * np.abs(normal(norms))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "adapter_model.safetensors").write_bytes(safetensors(factors))
        Path(folder, "adapter_config.json").write_text(
            '{"peft_type": "LORA", "r": 3, "lora_alpha": 5, "use_dora": true}'
        )
        history.repository.theta("add", NAME, "--update", folder)
    history.repository.git("commit", "-q", "-m", "DoRA")
    history.tag()


def structured(history: History) -> None:
    """Products and rotations that are supplied, one after the other, to weights of two types."""
    random = np.random.default_rng(31)
    first: dict[str, NDArray[np.generic]] = {}
    for module, kind in (("wide", np.float32), ("half", ml_dtypes.bfloat16)):
        first[f"{module}.weight"] = random.normal(0, 0.3, SIDES).astype(kind)
    history.version({NAME: safetensors(first)})
    for kind, (settings, tensors) in structured_adapters(("wide", "half")).items():
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), tensors, settings)
            history.repository.theta("add", NAME, "--update", folder)
        history.repository.git("commit", "-q", "-m", kind)
        history.tag()


def quantised(history: History) -> None:
    """Floats of three types, then what gguf-py made of them: beside them, and in their place."""
    floats, codes = ((QUANTISED / name).read_bytes() for name in ("floats.gguf", "codes.gguf"))
    history.version({"floats.gguf": floats, "model.gguf": floats})
    history.version({"codes.gguf": codes})
    changed = bytearray(codes)
    changed[-40] ^= 9
    history.version({"model.gguf": bytes(changed)})


RECIPES = {
    "entries": "strategy = 'theirs'",
    "average": "strategy = 'average'",
    "weighted": "strategy = 'average'\nweights = [{weights}]",
    "reapply": "strategy = 'reapply'\nlambda = 0.5",
    "task": "strategy = 'task-arithmetic'\nlambda = 0.4",
    "ties": "strategy = 'ties'\ndensity = 0.3",
    "breadcrumbs": "strategy = 'breadcrumbs'\ndensity = 0.5",
    "dare-linear": "strategy = 'dare-linear'\ndensity = 0.5",
    "dare-ties": "strategy = 'dare-ties'\ndensity = 0.7",
}
"""Tensors, and what `.theta.toml` says of each."""
SHAPE = (32, 40)


def recipes(history: History) -> None:
    """Every recipe, of two sides (v3) and of three (v5), and updates on top of both (v4, v6)."""
    random = np.random.default_rng(20)
    base: dict[str, NDArray[np.generic]] = {}
    for name in RECIPES:
        base[name] = random.normal(0, 0.02, SHAPE).astype(np.float32)
        base[f"{name}.half"] = base[name].astype(ml_dtypes.bfloat16)
    repository = history.repository
    history.version({NAME: safetensors(base), ".theta.toml": _rules("0.7, 0.3")})
    for branch in ("math", "code"):
        repository.git("checkout", "-q", "-b", branch, "v0")
        history.version({NAME: safetensors(_tuned(base, random))})
    repository.git("checkout", "-q", "-b", "two", "v1")
    repository.git("merge", "-q", "v2", "-m", "two sides")
    history.tag()
    history.version({NAME: safetensors(_tuned(base, random))})
    repository.git("checkout", "-q", "-b", "three", "v0")
    repository.write(NAME, safetensors(_tuned(base, random)))
    repository.write(".theta.toml", _rules("0.5, 0.3, 0.2"))
    repository.commit("chat")
    repository.theta("merge", "math", "code", "-m", "three sides")
    history.tag()
    history.version({NAME: safetensors(_tuned(base, random))})


def _rules(weights: str) -> bytes:
    rules = (f"[[merge.tensor]]\npattern = '{name}*'\n{rule}\n" for name, rule in RECIPES.items())
    return "\n".join(rules).replace("{weights}", weights).encode()


def _tuned(base: Tensors, random: np.random.Generator) -> Tensors:
    """The same tensors with most of their entries moved."""
    tuned = {}
    for name, value in base.items():
        moved = value.astype(np.float64) + random.normal(0, 1e-3, SHAPE)
        tuned[name] = np.where(random.random(SHAPE) < 0.6, moved.astype(value.dtype), value)
    return tuned


def mixed(history: History) -> None:
    """A history of version 1 goes on: as it was, changed in part, merged, moved to version 2."""
    repository = history.repository
    with tempfile.TemporaryDirectory() as folder:
        bare, _ = unpacked("more", Path(folder))
        shutil.copytree(
            bare / "theta/objects", repository.path / ".git/theta/objects", dirs_exist_ok=True
        )
        repository.git("fetch", "-q", str(bare), "refs/tags/v1")
        tip = repository.git("rev-parse", "FETCH_HEAD").strip()
        for commit in (f"{tip}~1", tip):
            repository.git("reset", "-q", "--hard", commit)
            history.tag()
    rows = np.random.default_rng(9).normal(0, 0.02, (64, 48)).astype(np.float32)
    history.version({"a.safetensors": safetensors({"rows": rows, "größe\n": rows[2:4]})})
    repository.git("checkout", "-q", "-b", "side", "v1")
    chunks = np.arange(700_000, dtype=np.uint32) // 64
    repository.write("e.bin", chunks[::-1].tobytes())
    repository.commit("side")
    repository.git("merge", "-q", "v2", "-m", "merged")
    history.tag()
    repository.theta("migrate", "--to-manifest", "2")
    repository.git("commit", "-q", "-m", "Write manifests in version 2")
    history.tag()
