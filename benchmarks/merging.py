#!/usr/bin/env python3
"""Whole merges of large checkpoints: seconds and peak memory, beside a plain checkout and peers.

    python benchmarks/merging.py [--megabytes 1000] [--runs 1] [--mergekit PYTHON]

Two branches of one float32 checkpoint are merged by `git merge`, with everything that Git does:
starting the driver, writing the work tree, committing. *Disjoint*: they changed different tensors;
beside it stands `git checkout` of the merged file. *All colliding*: both changed every entry of
every tensor. Peak memory is that of the largest process but git. git-theta 0.2 is run where its
`git-theta` is on PATH as `git-theta-original`; mergekit where `--mergekit` names a Python that has
it. What is not there is said to be not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from workflows import NAME, git, spans, track, write_model

LEAST = 130
"""Megabytes: the first tensor of `write_model` alone has 125."""

WRAPPER = """
import glob, resource, subprocess, sys, threading, time
peak = 0
def watch():
    global peak
    while True:
        for name in glob.glob("/proc/[0-9]*/status"):
            try:
                text = open(name).read()
            except OSError:
                continue
            fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            if "VmHWM" in fields and fields["Name"].strip() != "git" and int(fields["Pid"]) > own:
                peak = max(peak, int(fields["VmHWM"].split()[0]))
        time.sleep(0.05)
import os
own = os.getpid()
threading.Thread(target=watch, daemon=True).start()
begun = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
took = time.perf_counter() - begun
sys.stderr.buffer.write(done.stderr)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(took, used.ru_utime + used.ru_stime, peak)
sys.exit(done.returncode)
"""
"""Runs a command and follows the memory of what it starts, but for git itself, which holds the
whole of every file that it writes through a filter. Linux only; elsewhere memory is given as 0."""


def measured(
    folder: Path, command: Sequence[str], before: Callable[[], None], runs: int, **environment: str
) -> tuple[float, float, float]:
    """Median seconds, processor seconds, and peak memory in MB of a process, of a command."""
    seconds, busy, memory = [], [], 0.0
    for _ in range(runs):
        before()
        os.sync()
        done = subprocess.run(
            [sys.executable, "-c", WRAPPER, *command], cwd=folder, capture_output=True, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr.decode()[-2000:]}")
        took, used, peak = done.stdout.split()
        seconds.append(float(took))
        busy.append(float(used))
        memory = max(memory, int(peak) / 1024)
    return statistics.median(seconds), statistics.median(busy), memory


def moved(path: Path, names: Sequence[str], seed: int) -> None:
    """Move every entry of some tensors by 0.5 % of their usual size, in place."""
    random = np.random.default_rng(seed)
    where = spans(path)
    with path.open("r+b") as file:
        for name in names:
            offset, size = where[name]
            file.seek(offset)
            values = np.frombuffer(file.read(size), np.float32)
            step = random.standard_normal(values.shape, np.float32) * np.float32(1e-4)
            file.seek(offset)
            file.write((values + step).tobytes())


def branches(work: Path, source: Path, collide: bool) -> Path:
    """A repository with `main` and `side`, which changed the same or different tensors."""
    folder = work / ("colliding" if collide else "disjoint")
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    track(folder)
    shutil.copy(source, folder / NAME)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "base")
    git(folder, "branch", "side")
    names = list(spans(source))
    halves = (names, names) if collide else (names[::2], names[1::2])
    for seed, (branch, changed) in enumerate(zip(("main", "side"), halves, strict=True), 1):
        git(folder, "checkout", "-q", branch)
        moved(folder / NAME, changed, seed)
        git(folder, "commit", "-qam", branch)
    git(folder, "checkout", "-q", "main")
    git(folder, "tag", "start")
    return folder


def rows_of(work: Path, source: Path, runs: int) -> dict[str, tuple[float, float, float]]:
    """Every step of git-theta-ext."""
    found = {}
    folder = branches(work, source, collide=False)
    start = "refs/tags/start"

    def again(place: Path, commit: str) -> Callable[[], None]:
        return lambda: git(place, "reset", "-q", "--hard", commit)

    merge = ["git", "merge", "-q", "--no-edit", "side"]
    found["disjoint: git merge"] = measured(folder, merge, again(folder, start), runs)
    git(folder, "branch", "merged")
    found["disjoint: git checkout of the merged file"] = measured(
        folder, ["git", "checkout", "-q", "merged"],
        lambda: git(folder, "checkout", "-q", "--detach", start), runs,
    )  # fmt: skip
    shutil.rmtree(folder)
    folder = branches(work, source, collide=True)
    for strategy in ("average", "ties"):
        found[f"all colliding: git merge, {strategy}"] = measured(
            folder, merge, again(folder, start), runs, GIT_THETA_MERGE=strategy
        )
    shutil.rmtree(folder)
    return found


# -- peers -----------------------------------------------------------------------------------------

_KIT = """
import json, sys
from mergekit.graph import Executor
from mergekit.options import MergeOptions
from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig, plan_flat_merge
config = RawPyTorchMergeConfig.model_validate(json.load(open(sys.argv[1])))
tasks = plan_flat_merge(config, sys.argv[2], False, False, MergeOptions(quiet=True))
Executor(tasks, math_device="cpu", storage_device="cpu").execute()
"""


def mergekit(work: Path, source: Path, python: str | None, runs: int) -> dict[str, object]:
    """The same merges by mergekit, or why not."""
    if python is None or not shutil.which(python):
        return {"mergekit": "not installed"}
    probe = subprocess.run([python, "-c", "import mergekit"], capture_output=True, check=False)
    if probe.returncode:
        return {"mergekit": "not installed"}
    names = {}
    for seed, side in enumerate(("base", "main", "side")):
        path = work / f"kit-{side}.safetensors"
        shutil.copy(source, path)
        if seed:
            moved(path, list(spans(source)), seed)
        names[side] = str(path)
    found: dict[str, object] = {}
    for method, text in (("average", "linear"), ("ties", "ties")):
        models = [
            {"model": names[side], "parameters": {"weight": 0.5 if text == "linear" else 1.0,
                                                  "density": 0.5}}
            for side in ("main", "side")
        ]  # fmt: skip
        config = {"merge_method": text, "dtype": "float32", "models": models}
        if text != "linear":
            config["base_model"] = names["base"]
        job, target = work / "kit.json", work / "kit-out"
        job.write_text(json.dumps(config))
        try:
            found[f"mergekit, {method}"] = measured(
                work, [python, "-c", _KIT, str(job), str(target)],
                lambda place=target: shutil.rmtree(place, ignore_errors=True), runs,  # type: ignore[misc]
            )  # fmt: skip
        except SystemExit as error:
            found[f"mergekit, {method}"] = f"failed: {str(error).strip().splitlines()[-1][:90]}"
    return found


def original(work: Path, source: Path) -> dict[str, object]:
    """The same merge by git-theta 0.2, or why not; it asks at the keyboard for each tensor."""
    program = shutil.which("git-theta-original")
    if program is None:
        return {"git-theta 0.2": "not installed"}
    folder = work / "original-theta"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for command in (["install"], ["track", NAME]):
        subprocess.run([program, *command], cwd=folder, check=True, capture_output=True)
    shutil.copy(source, folder / NAME)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "base")
    git(folder, "branch", "side")
    for seed, branch in enumerate(("main", "side"), 1):
        git(folder, "checkout", "-q", branch)
        moved(folder / NAME, list(spans(source)), seed)
        git(folder, "commit", "-qam", branch)
    git(folder, "checkout", "-q", "main")
    begun = time.perf_counter()
    done = subprocess.run(
        ["git", "merge", "--no-edit", "side"], cwd=folder, stdin=subprocess.DEVNULL,
        capture_output=True, check=False, timeout=1800,
    )  # fmt: skip
    took = time.perf_counter() - begun
    return {
        "git-theta 0.2": (took, 0.0, 0.0)
        if not done.returncode
        else "needs someone at the keyboard"
    }


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the checkpoint")
    parser.add_argument("--runs", type=int, default=1, help="runs of each step; the median counts")
    parser.add_argument("--mergekit", metavar="PYTHON", help="a Python with mergekit")
    args = parser.parse_args()
    if args.megabytes < LEAST:
        parser.error(f"--megabytes: at least {LEAST}, so that both sides have a tensor to change")
    with tempfile.TemporaryDirectory(prefix="theta-bench-") as name:
        work = Path(name)
        os.environ.update(
            HOME=name, GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL=str(work / ".gitconfig"),
            GIT_AUTHOR_NAME="Ada", GIT_AUTHOR_EMAIL="ada@example.org",
            GIT_COMMITTER_NAME="Ada", GIT_COMMITTER_EMAIL="ada@example.org",
        )  # fmt: skip
        source = work / "source"
        write_model(source, args.megabytes)
        rows: dict[str, object] = {**rows_of(work, source, args.runs)}
        rows.update(original(work, source))
        rows.update(mergekit(work, source, args.mergekit, args.runs))
    print(f"{args.megabytes} MB, float32\n")
    print("| merge | seconds | processor seconds | peak MB |\n|---|---|---|---|")
    for label, found in rows.items():
        cells = (
            " | ".join(f"{one:.1f}" for one in found)
            if isinstance(found, tuple)
            else f"{found} | |"
        )
        print(f"| {label} | {cells} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
