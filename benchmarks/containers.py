#!/usr/bin/env python3
"""What containers cost: splitting, dedup between them, shards, and one tensor through the API.

    python benchmarks/containers.py [--weights FOLDER] [--megabytes 64] [--runs 3]

Every figure comes from real repositories and `git add`. *Cost* is what a file adds to the store, as
a share of its size. With `--weights`, every checkpoint below that folder is also split: how much of
it lies in named tensors, and what is left as structure, compressed (zlib, level 6), as a share of
the file. Times are processor seconds of git and its filter, the least of the runs.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from git_theta_ext.checkpoints import companions
from git_theta_ext.checkpoints.write import ArraysSource
from git_theta_ext.formats.base import Span
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.source import FileSource
from tests.scenarios.containers import hdf5, keras

Arrays = Mapping[str, NDArray[Any]]
_PATTERNS = ("*.safetensors", "*.pt", "*.npz", "*.gguf", "*.h5", "*.keras", "*.onnx", "*.jit")


class Folder:
    """A repository in which checkpoints are tracked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.run("git", "init", "-q")
        self.run("git", "config", "user.name", "Benchmark")
        self.run("git", "config", "user.email", "benchmark@example.org")
        self.run("git-theta", "install", "--local")
        self.run("git-theta", "track", *_PATTERNS)

    def run(self, *command: str) -> None:
        """Run a command quietly; raises CalledProcessError on failure."""
        subprocess.run(command, cwd=self.path, check=True, capture_output=True)

    def stored(self) -> int:
        """Bytes of all objects in the store."""
        root = self.path / ".git/theta/objects"
        return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())

    def add(self) -> tuple[int, float]:
        """Add and commit everything; bytes that the store grew by, processor seconds of the add."""
        before, start = self.stored(), processor_seconds()
        self.run("git", "add", "-A")
        seconds = processor_seconds() - start
        self.run("git", "commit", "-q", "-m", "add")
        return self.stored() - before, seconds


def processor_seconds() -> float:
    """What all finished child processes took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def model(megabytes: int) -> dict[str, NDArray[np.float32]]:
    """Layers of 4 MB."""
    random = np.random.default_rng(0)
    return {
        f"layers.{number}.weight": random.standard_normal((1024, 1024), np.float32)
        for number in range(max(1, megabytes // 4))
    }


def write(path: Path, tensors: Arrays) -> None:
    """A file of the container that its name stands for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".h5", ".keras"):
        path.write_bytes(hdf5(tensors) if path.suffix == ".h5" else keras(tensors))
        return
    source = ArraysSource(tensors, {}, path.suffix[1:])
    with path.open("wb") as file:
        for start in range(0, source.size, 1 << 24):
            file.write(source.read(start, min(1 << 24, source.size - start)))


def line(what: str, figure: str, target: str = "") -> None:
    """A row of the table."""
    print(f"| {what} | {figure} | {target} |", flush=True)


def dedup(scratch: Path, tensors: Arrays) -> None:
    """The same weights in one container after the other."""
    here = Folder(scratch / "dedup")
    write(here.path / "model.safetensors", tensors)
    here.add()
    for suffix in (".pt", ".npz", ".gguf", ".h5", ".keras"):
        path = here.path / f"model{suffix}"
        write(path, tensors)
        grown, _ = here.add()
        line(f"safetensors, then {suffix}: cost", f"{grown / path.stat().st_size:.5f}", "0.02")


def shards(scratch: Path, tensors: Arrays) -> None:
    """Thirty shards made into twenty."""
    here = Folder(scratch / "shards")
    names = list(tensors)
    pieces = {
        f"{name}.{row}": tensors[name][row * 256 : row * 256 + 256]
        for name in names
        for row in range(4)
    }
    names = list(pieces)
    for count in (30, 20):
        for old in here.path.glob("model-*"):
            old.unlink()
        for number in range(count):
            part = names[number * len(names) // count : (number + 1) * len(names) // count]
            write(
                here.path / f"model-{number + 1:05}-of-{count:05}.safetensors",
                {name: pieces[name] for name in part},
            )
        grown, _ = here.add()
    size = sum(array.nbytes for array in pieces.values())
    line("30 shards made into 20: cost", f"{grown / size:.5f}", "0.002")


def splitting(scratch: Path, tensors: Arrays, runs: int) -> None:
    """The same tensors, added from each container to an empty repository."""
    seconds: dict[str, list[float]] = {}
    suffixes = [".safetensors", ".pt", ".npz", ".gguf", ".h5", ".keras"]
    for number in range(runs):
        turn = number % len(suffixes)  # nobody is always first
        for suffix in (*suffixes[turn:], *suffixes[:turn]):
            here = Folder(scratch / f"split{number}{suffix}")
            write(here.path / f"model{suffix}", tensors)
            seconds.setdefault(suffix, []).append(here.add()[1])
    base = min(seconds[".safetensors"])
    line("git add of .safetensors", f"{base:.2f} s")
    for suffix in suffixes[1:]:
        more = min(seconds[suffix]) / base - 1
        line(f"git add of {suffix}, over safetensors", f"{100 * more:+.1f} %", "+10 %")


_OPEN = """
import resource, time
from pathlib import Path
import git_theta_ext as theta
theta.open
start = time.perf_counter()
found = theta.open("HEAD:model.safetensors")["layers.3.weight"]
seconds = time.perf_counter() - start
status = Path("/proc/self/status")  # what getrusage says is inherited from this program's parent
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if status.exists():
    peak = int(status.read_text().split("VmHWM:")[1].split()[0])
print(seconds * 1e3, peak)
"""


def opening(scratch: Path) -> None:
    """One tensor of 4 MB out of a checkpoint of 1 GB."""
    here = Folder(scratch / "open")
    write(here.path / "model.safetensors", model(1024))
    here.add()
    rows = []
    for _ in range(5):
        answer = subprocess.check_output([sys.executable, "-c", _OPEN], cwd=here.path, text=True)
        rows.append([float(number) for number in answer.split()])
    milliseconds = statistics.median(row[0] for row in rows)
    memory = statistics.median(row[1] for row in rows) / 1024
    line("4 MB of 1 GB by API, after import", f"{milliseconds:.0f} ms", "60 ms")
    line("peak memory of that process", f"{memory:.0f} MB", "60 MB")


def silero(scratch: Path, weights: Path) -> None:
    """A TorchScript archive, then the same network as ONNX."""
    here = Folder(scratch / "silero")
    for name, target in (
        ("silero_vad.jit", ""),
        ("silero_vad.onnx", "0.01"),
        ("silero_vad_16k_sequence.onnx", "0.05"),
    ):
        found = next(iter(sorted(weights.rglob(name))), None)
        if found is None:
            continue
        (here.path / name).write_bytes(found.read_bytes())
        grown, _ = here.add()
        line(f"{name}: cost", f"{grown / found.stat().st_size:.5f}", target)


def checkpoints(weights: Path) -> Iterator[Path]:
    """Files that may be checkpoints: of 16 kB and more, and not text."""
    for path in sorted(weights.rglob("*")):
        if path.is_file() and path.stat().st_size >= 16 << 10 and path.suffix not in _TEXT:
            yield path


_TEXT = {".py", ".txt", ".json", ".md", ".pb", ".csv", ".so", ".model", ".wav"}


def real_files(weights: Path) -> None:
    """What of each real file lies in named tensors."""
    print("\n| file | container | MB | in tensors | structure, compressed |\n|---|---|---|---|---|")
    for path in checkpoints(weights):
        with FileSource(path) as source:
            layout = companions.read_layout(source, path.name, path.parent, (), None)
            named = sum(
                s.tensor.nbytes for s in layout.segments if isinstance(s, Span) and not s.opaque
            )
            rest = len(zlib.compress(skeleton.encode(layout), 6))
            size = source.size
        print(
            f"| {path.name} | {layout.format} | {size / 1e6:.2f} | {named / size:.4f} | "
            f"{rest / size:.4f} |"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, help="a folder of real checkpoints")
    parser.add_argument("--megabytes", type=int, default=64, help="size of the made model")
    parser.add_argument("--runs", type=int, default=6)
    options = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    tensors = model(options.megabytes)
    started = time.monotonic()
    print("| what | figure | target |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        dedup(scratch, tensors)
        shards(scratch, tensors)
        if options.weights:
            silero(scratch, options.weights)
        splitting(scratch, tensors, options.runs)
        opening(scratch)
    if options.weights:
        real_files(options.weights)
    print(f"\n{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
