#!/usr/bin/env python3
"""Whole Git commands on a large checkpoint, side by side with git-lfs, in one run.

    python benchmarks/workflows.py [--megabytes 1000] [--runs 3] [--peers] [--steps add,status]

Each step is run on fresh copies of the same repositories, git-theta-ext and git-lfs in turn; the
table shows the median of wall seconds, the peak resident memory of any process that Git started,
and the megabytes that the step added to `.git`. `--peers` adds git-theta, where it is installed
(`pip install git-theta`) and on PATH as `git-theta`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NAME = "model.safetensors"


def write_model(path: Path, megabytes: int) -> None:
    """A float32 checkpoint with BERT-like names and normally distributed values."""
    random = np.random.default_rng(0)
    width = 1024
    shapes: dict[str, tuple[int, ...]] = {"embeddings.word_embeddings.weight": (30522, width)}
    layer = 0
    while sum(4 * int(np.prod(shape)) for shape in shapes.values()) < megabytes * 1_000_000:
        prefix = f"encoder.layer.{layer}"
        for name in ("query", "key", "value", "output"):
            shapes[f"{prefix}.attention.{name}.weight"] = (width, width)
            shapes[f"{prefix}.attention.{name}.bias"] = (width,)
        shapes[f"{prefix}.intermediate.weight"] = (4 * width, width)
        shapes[f"{prefix}.intermediate.bias"] = (4 * width,)
        shapes[f"{prefix}.output.weight"] = (width, 4 * width)
        shapes[f"{prefix}.output.bias"] = (width,)
        layer += 1
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            file.write((random.standard_normal(shape, np.float32) * 0.02).tobytes())


def spans(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and length of each tensor."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: (
            8 + length + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def change(path: Path, names: list[str], scale: float = 1e-4) -> None:
    """Move every entry of some tensors a little, in place."""
    random = np.random.default_rng(1)
    where = spans(path)
    with path.open("r+b") as file:
        for name in names:
            offset, size = where[name]
            file.seek(offset)
            values = np.frombuffer(file.read(size), np.float32)
            moved = values + random.standard_normal(values.shape, np.float32) * np.float32(scale)
            file.seek(offset)
            file.write(moved.astype(np.float32).tobytes())


@dataclass
class Side:
    """One way to keep a checkpoint in Git."""

    label: str
    setup: Callable[[Path], None]


def git(folder: Path, *arguments: str, **environment: str) -> None:
    """Run git quietly; raises CalledProcessError on failure."""
    subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def track(folder: Path) -> None:
    """Have a repository's safetensors files kept by git-theta-ext."""
    for command in (["install", "--local"], ["track", "*.safetensors"]):
        subprocess.run(
            [sys.executable, "-m", "git_theta_ext.cli.main", *command],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip


def _lfs(folder: Path) -> None:
    git(folder, "lfs", "install", "--local")
    git(folder, "lfs", "track", "*.safetensors")


def _peer(folder: Path) -> None:
    subprocess.run(["git-theta", "install"], cwd=folder, check=True, capture_output=True)
    subprocess.run(["git-theta", "track", NAME], cwd=folder, check=True, capture_output=True)


@dataclass
class Cell:
    """What one step took: median seconds, peak memory of a process in MB, MB added to `.git`."""

    seconds: float
    memory: float
    added: float


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def timed(folder: Path, command: list[str], before: Callable[[], None], runs: int) -> Cell:
    """Run a command `runs` times, each after `before`; measured from outside."""
    seconds, memory, added = [], 0.0, 0.0
    for _ in range(runs):
        before()
        os.sync()
        size = folder_bytes(folder / ".git")
        start = time.perf_counter()
        # A child of its own, so that its children's peak memory is not mixed with earlier ones.
        code = (
            "import resource,subprocess,sys;"
            "r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);sys.exit(r.returncode)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *command], cwd=folder, capture_output=True, check=False
        )
        seconds.append(time.perf_counter() - start - _START)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed in {folder}")
        memory = max(memory, int(done.stdout) / 1024)
        added = (folder_bytes(folder / ".git") - size) / 1e6
    return Cell(statistics.median(seconds), memory, added)


def _startup() -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", "import resource,subprocess,sys;subprocess.run(['true'])"],
            check=True,
        )
        times.append(time.perf_counter() - start)
    return statistics.median(times)


_START = _startup()


def measure(side: Side, model: Path, work: Path, runs: int, steps: set[str]) -> dict[str, Cell]:
    """All steps for one side."""
    folder = work / side.label
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    side.setup(folder)
    git(folder, "add", ".gitattributes")
    git(folder, "commit", "-qm", "track")
    path, cells = folder / NAME, {}
    layer = "encoder.layer.3.intermediate.weight"
    original, one, every = work / "original", work / "one", work / "every"
    if not original.exists():
        shutil.copy(model, original)
        shutil.copy(model, one)
        change(one, [layer])
        shutil.copy(model, every)
        change(every, list(spans(every)))

    def forget() -> None:
        for name in ("theta/objects", "theta/memo", "lfs/objects"):
            shutil.rmtree(folder / ".git" / name, ignore_errors=True)
        git(folder, "reset", "-q")
        shutil.copy(original, path)

    def objects() -> set[Path]:
        stores = (folder / ".git" / name for name in ("theta/objects", "lfs/objects"))
        return {one for store in stores for one in store.rglob("*") if one.is_file()}

    def put(source: Path) -> Callable[[], None]:
        def run() -> None:
            git(folder, "reset", "-q", "--hard")
            for one in objects() - committed:
                one.unlink()
            shutil.rmtree(folder / ".git/theta/memo", ignore_errors=True)
            shutil.copy(source, path)
            time.sleep(0.1)

        return run

    cells["first git add"] = timed(folder, ["git", "add", NAME], forget, runs)
    git(folder, "commit", "-qm", "first")
    committed = objects()
    if "changed" in steps:
        cells["git add, all tensors changed"] = timed(
            folder, ["git", "add", NAME], put(every), runs
        )
    cells["git add, one tensor changed"] = timed(folder, ["git", "add", NAME], put(one), runs)
    cells["git status, one tensor changed"] = timed(folder, ["git", "status"], put(one), runs)
    cells["git status, the second time"] = timed(folder, ["git", "status"], lambda: None, runs)
    put(one)()
    git(folder, "commit", "-qam", "second")

    def other() -> None:
        git(folder, "checkout", "-q", "main")

    cells["git checkout of the other version"] = timed(
        folder, ["git", "checkout", "-q", "main~1"], other, runs
    )

    def just_checked_out() -> None:
        git(folder, "checkout", "-q", "main")
        git(folder, "checkout", "-q", "main~1")

    cells["git status just after it"] = timed(folder, ["git", "status"], just_checked_out, runs)
    git(folder, "checkout", "-q", "main")
    cells["git diff HEAD~1 HEAD"] = timed(
        folder, ["git", "diff", "HEAD~1", "HEAD"], lambda: None, runs
    )

    skip = {"GIT_LFS_SKIP_SMUDGE": "1", "GIT_THETA_SKIP_SMUDGE": "1"}

    def unsmudged() -> None:
        path.unlink()
        git(folder, "checkout", "--", NAME, **skip)

    pull = ["git", "lfs", "checkout"]
    if side.label == "git-theta-ext":
        pull = [sys.executable, "-m", "git_theta_ext.cli.main", "pull"]
    cells["write checkpoints after skip-smudge"] = timed(folder, pull, unsmudged, runs)

    return cells


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the checkpoint")
    parser.add_argument("--runs", type=int, default=3, help="runs of each step; the median counts")
    parser.add_argument("--peers", action="store_true", help="git-theta too")
    parser.add_argument("--all-changed", action="store_true", help="also a full fine-tune")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sides = [Side("git-theta-ext", track), Side("git-lfs", _lfs)]
    if args.peers:
        sides.append(Side("git-theta", _peer))
    results: dict[str, dict[str, Cell]] = {}
    with tempfile.TemporaryDirectory(prefix="theta-bench-") as name:
        work = Path(name)
        os.environ.update(
            HOME=name, GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL=str(work / ".gitconfig"),
            GIT_AUTHOR_NAME="Ada", GIT_AUTHOR_EMAIL="ada@example.org",
            GIT_COMMITTER_NAME="Ada", GIT_COMMITTER_EMAIL="ada@example.org",
        )  # fmt: skip
        write_model(work / "source", args.megabytes)
        steps = {"changed"} if args.all_changed else set()
        for side in sides:
            results[side.label] = measure(side, work / "source", work, args.runs, steps)
    if args.json:
        print(json.dumps({k: {s: vars(c) for s, c in v.items()} for k, v in results.items()}))
        return 0
    labels = list(results)
    print(f"{args.megabytes} MB, float32; seconds / peak MB of a process / MB added to .git; ")
    print("| step | " + " | ".join(labels) + " | ratio to git-lfs |")
    print("|---" * (len(labels) + 2) + "|")
    for step, ours in results["git-theta-ext"].items():
        cells = [results[label].get(step) for label in labels]
        text = [f"{c.seconds:.2f} / {c.memory:.0f} / {c.added:.1f}" if c else "-" for c in cells]
        ratio = ours.seconds / results["git-lfs"][step].seconds
        print(f"| {step} | {' | '.join(text)} | {ratio:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
