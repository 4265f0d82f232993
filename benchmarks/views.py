#!/usr/bin/env python3
"""How long it takes to see what changed, and how much memory.

    python benchmarks/views.py [--megabytes 1000] [--runs 3] [--dtype F32|BF16] [--large 10000]
                               [--folder DIR]

Two questions, each asked of `git diff HEAD~1 HEAD` (the driver) and of `git theta diff` with the
same revisions:

- one: what a commit did that moved one matrix of a checkpoint, first of `--megabytes`, then of
  `--large` megabytes in 3,000 tensors (`--large 0` leaves that out);
- all: what a commit did that moved every entry of every tensor.

Prints the median and the longest of `--runs` in wall seconds, and the peak resident memory of any
process that was started. The large checkpoint repeats a few megabytes of random values, each
tensor of it multiplied by another power of two: every tensor is another object, and the diff reads
the one that changed. Nothing is dropped from the disk's cache between runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

NAME = "model.safetensors"
DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16)}
Shapes = dict[str, tuple[int, ...]]


# -- checkpoints -----------------------------------------------------------------------------------


def bert(megabytes: int, itemsize: int) -> Shapes:
    """Names and shapes of a BERT-like model, 1024 wide, of about so many megabytes."""
    width = 1024
    shapes: Shapes = {"embeddings.word_embeddings.weight": (30522, width)}
    layer = 0
    while sum(itemsize * int(np.prod(shape)) for shape in shapes.values()) < megabytes * 1_000_000:
        prefix = f"encoder.layer.{layer}"
        for name in ("query", "key", "value", "output"):
            shapes[f"{prefix}.attention.{name}.weight"] = (width, width)
            shapes[f"{prefix}.attention.{name}.bias"] = (width,)
        shapes[f"{prefix}.intermediate.weight"] = (4 * width, width)
        shapes[f"{prefix}.intermediate.bias"] = (4 * width,)
        shapes[f"{prefix}.output.weight"] = (width, 4 * width)
        shapes[f"{prefix}.output.bias"] = (width,)
        layer += 1
    return shapes


def many(megabytes: int, itemsize: int, count: int = 3000) -> Shapes:
    """So many square matrices that hold about so many megabytes together."""
    side = int((megabytes * 1_000_000 / itemsize / count) ** 0.5)
    return {
        f"layers.{number // 6}.{'qkvoud'[number % 6]}.weight": (side, side)
        for number in range(count)
    }


def write(path: Path, shapes: Shapes, dtype: str, values: Iterator[np.ndarray]) -> None:
    """Write a safetensors file; `values` gives each tensor in turn."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = DTYPES[dtype].itemsize * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in values:
            file.write(array.tobytes())


def normal(shapes: Shapes, dtype: str, moved: str | None = None) -> Iterator[np.ndarray]:
    """Normally distributed values; moved a little where `moved` is a tensor's name, or `*`."""
    random, other = np.random.default_rng(0), np.random.default_rng(1)
    for name, shape in shapes.items():
        values = random.standard_normal(shape, np.float32) * np.float32(0.02)
        if moved in (name, "*"):
            values += other.standard_normal(shape, np.float32) * np.float32(1e-4)
        yield values.astype(DTYPES[dtype])


def repeated(shapes: Shapes, dtype: str, moved: str | None = None) -> Iterator[np.ndarray]:
    """One random matrix over and over; each tensor begins with its number, so none is equal."""
    random = np.random.default_rng(0)
    first = next(iter(shapes.values()))
    values = (random.standard_normal(first, np.float32) * 0.02).astype(DTYPES[dtype])
    for number, name in enumerate(shapes):
        one = values.copy()
        one.flat[0] = number
        one.flat[1] = number / 4096
        if name == moved:
            one = (one.astype(np.float32) * np.float32(1.01)).astype(DTYPES[dtype])
        yield one


# -- measuring -------------------------------------------------------------------------------------


def run(folder: Path, *command: str, quiet: bool = True) -> str:
    """Run a command; raises CalledProcessError if it fails."""
    done = subprocess.run(command, cwd=folder, check=True, capture_output=quiet, text=True)
    return done.stdout


def theta(*arguments: str) -> list[str]:
    """The command line of `git theta ...` of the package that is being measured."""
    return [sys.executable, "-m", "git_theta_ext.cli.main", *arguments]


def prepare(folder: Path, shapes: Shapes, dtype: str, fill: object, moved: str) -> Path:
    """A repository whose last commit moved `moved` (a tensor's name, or `*`)."""
    folder.mkdir(parents=True)
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.name", "benchmark")
    run(folder, "git", "config", "user.email", "benchmark@localhost")
    run(folder, *theta("install", "--local"))
    run(folder, *theta("track", "*.safetensors"))
    for message, which in (("one", None), ("two", moved)):
        write(folder / NAME, shapes, dtype, fill(shapes, dtype, which))  # type: ignore[operator]
        run(folder, "git", "add", "-A")
        run(folder, "git", "commit", "-q", "-m", message)
    return folder


def measure(folder: Path, command: list[str], runs: int) -> tuple[float, float, float]:
    """Median and longest wall seconds, and the peak megabytes of any process under it.

    Each run is a child of a process of its own, whose record of its children's peak begins at zero.
    """
    script = (
        "import resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "seconds = time.perf_counter() - start\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(seconds, peak)\n"
    )
    seconds, peaks = [], []
    for _ in range(runs):
        taken, peak = run(folder, sys.executable, "-c", script, *command).split()
        seconds.append(float(taken))
        peaks.append(float(peak) / (1e6 if sys.platform == "darwin" else 1e3))
    return statistics.median(seconds), max(seconds), max(peaks)


def report(label: str, folder: Path, runs: int) -> None:
    """Measure both commands and print a line for each."""
    for title, command in (
        ("git diff", ["git", "--no-pager", "diff", "HEAD~1", "HEAD"]),
        ("git theta diff", theta("diff", "HEAD~1", "HEAD")),
    ):
        middle, longest, peak = measure(folder, command, runs)
        print(f"{label:34} {title:16} {middle:8.2f} {longest:8.2f} {peak:8.0f}", flush=True)


def main() -> None:
    """Make the repositories, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--large", type=int, default=10_000, help="megabytes in 3,000 tensors")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", choices=list(DTYPES), default="F32")
    parser.add_argument("--folder", type=Path, help="where to work; kept, and used again")
    args = parser.parse_args()
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ["GIT_TERMINAL_PROMPT"] = "0"
    with tempfile.TemporaryDirectory() as temporary:
        top = args.folder or Path(temporary)
        shapes = bert(args.megabytes, DTYPES[args.dtype].itemsize)
        plans = [
            (f"one matrix of {args.megabytes:,} MB", "one", shapes, normal,
             "encoder.layer.0.attention.query.weight"),
            (f"every tensor of {args.megabytes:,} MB", "all", shapes, normal, "*"),
        ]  # fmt: skip
        if args.large:
            shapes = many(args.large, DTYPES[args.dtype].itemsize)
            plans.append(
                (f"one of 3,000 tensors, {args.large:,} MB", f"large-{args.large}", shapes,
                 repeated, "layers.250.q.weight")
            )  # fmt: skip
        print(f"{'':34} {'':16} {'median s':>8} {'max s':>8} {'peak MB':>8}")
        for label, name, shapes, fill, moved in plans:
            folder = top / name
            if not (folder / ".git").exists():
                prepare(folder, shapes, args.dtype, fill, moved)
            report(label, folder, args.runs)


if __name__ == "__main__":
    main()
