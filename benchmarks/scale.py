#!/usr/bin/env python3
"""What models of 70 and 671 billion parameters cost: slopes that are measured here, and the rest.

    python benchmarks/scale.py [--write docs/scale.md]

Runs the commands that a user types on checkpoints of two sizes, takes from them what each byte and
each tensor costs in CPU seconds of all processes, and multiplies. Prints the tables of
docs/scale.md, or writes them into it. Takes less than two minutes; run it on a quiet machine.
POSIX only.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from growth import THETA, Repo, commit, new_repo, touch
from numpy.typing import NDArray
from projection import (
    BF16,
    FP8,
    GB,
    NAMES,
    Kind,
    Run,
    Step,
    deepseek,
    llama,
    measured,
    projected,
    sizes,
    slope,
)

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP))

from git_theta_ext.core.parallel import BUDGET_BYTES
from git_theta_ext.merge.combine import jobs
from git_theta_ext.merge.combine.tensor import copies_of
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.cluster import client
from git_theta_ext.objects.store.store import Store
from tests.scenarios.clusters import own_id

BEGIN, END = "<!-- figures: begin (benchmarks/scale.py) -->", "<!-- figures: end -->"
MEGABYTES = (32, 128)
COUNTS = (300, 1800)
BLOCK = 8 << 20
"""Values of a large tensor here: one block."""
SMALL = 1024
"""Values of a tensor of those that are many: a table of scales, a norm."""

Values = NDArray[np.generic]
Tensors = dict[str, Values]


def values(seed: int, count: int, kind: Kind) -> Values:
    """Weights as a training gives them."""
    random = np.random.default_rng(seed)
    return (random.standard_normal(count, np.float32) * np.float32(0.05)).astype(kind.dtype)


def trained(old: Values, seed: int, kind: Kind) -> Values:
    """The same weights after some steps; a part of them moves."""
    random = np.random.default_rng([seed, 1])  # not what the values were drawn from
    floats = old.astype(np.float32)
    return (
        floats + random.standard_normal(floats.size, np.float32) * np.float32(kind.step)
    ).astype(kind.dtype)


def write(path: Path, tensors: Tensors, kind: Kind, columns: int) -> None:
    """A safetensors file, some minutes old, so that Git need not read it twice."""
    header: dict[str, object] = {}
    offset = 0
    for name, array in tensors.items():
        shape = [array.size // columns, columns]
        header[name] = {"dtype": kind.name, "shape": shape,
                        "data_offsets": [offset, offset + array.nbytes]}  # fmt: skip
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(array.view(np.uint8))
    touch(path)


def objects(repo: Repo) -> list[int]:
    """The lengths of all objects."""
    files = (repo.path / ".git/theta/objects").rglob("*")
    return [one.stat().st_size for one in files if one.is_file()]


def run(folder: Path, kind: Kind, sizes: list[int], *, merges: bool) -> Run:
    """All steps on one checkpoint of tensors of these numbers of values."""
    repo = new_repo("git-theta-ext", folder, "*.safetensors", frozenset())
    path, columns = repo.path / "m.safetensors", 1024
    first = {f"layers.{n}.weight": values(n, size, kind) for n, size in enumerate(sizes)}
    found = Run(sum(one.nbytes for one in first.values()), len(first))

    def step(name: str, *command: str) -> None:
        cost = repo.run(*command)
        found.seconds[name], found.megabytes[name] = cost.seconds, cost.megabytes

    write(path, first, kind, columns)
    step("add", "git", "add", "-A")
    found.stored["add"], found.objects = sum(objects(repo)), len(objects(repo))
    repo.run("git", "commit", "-q", "-m", "one")
    show = subprocess.run(["git", "cat-file", "-s", "HEAD:m.safetensors"], cwd=repo.path,
                          capture_output=True, check=True)  # fmt: skip
    found.manifest = int(show.stdout)
    again = []
    for _ in range(3):
        touch(path)
        step("status", "git", "status", "--short")
        again.append(found.seconds["status"])
    found.seconds["status"] = sorted(again)[1]
    repo.run("git", "branch", "side")
    write(path, {name: trained(old, n, kind) for n, (name, old) in enumerate(first.items())},
          kind, columns)  # fmt: skip
    step("add, all changed", "git", "add", "-A")
    found.stored["add, all changed"] = sum(objects(repo)) - found.stored["add"]
    repo.run("git", "commit", "-q", "-m", "two")
    step("checkout", "git", "checkout", "-q", "side")
    step("fsck", *THETA, "fsck")
    if merges:
        theirs = {name: trained(old, 9 + n, kind) for n, (name, old) in enumerate(first.items())}
        write(path, theirs, kind, columns)
        commit(repo, "three")
        before = sum(objects(repo))
        skip = repo.environment
        repo.environment = lambda: {**skip(), "GIT_THETA_SKIP_SMUDGE": "1"}  # type: ignore[method-assign]
        step("merge", *THETA, "merge", "main", "--strategy", "average")
        repo.environment = skip  # type: ignore[method-assign]
        found.stored["merge"] = sum(objects(repo)) - before
        step("pull", *THETA, "pull")
    shutil.rmtree(folder)
    return found


@contextmanager
def cluster() -> Iterator[tuple[str, Callable[..., float]]]:
    """Two workers here; where they are, and what they and the scheduler have taken until now.

    The scheduler's own part with `alone=True`.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.scenarios.clusters"],
        cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None

    def taken(*, alone: bool = False) -> float:
        top = psutil.Process(process.pid)
        found = [top] if alone else [top, *top.children(recursive=True)]
        times = [one.cpu_times() for one in found]
        return sum(one.user + one.system for one in times)

    try:
        yield process.stdout.readline().strip().replace("tcp://", "dask://"), taken
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def far(folder: Path, kind: Kind) -> tuple[float, float]:
    """CPU seconds for each further byte of a first add by a cluster, and see `tasks`."""
    found = []
    with cluster() as (address, taken):
        for size in MEGABYTES:
            repo = new_repo("git-theta-ext", folder / str(size), "*.safetensors", frozenset())
            # So that the workers have their imports behind them.
            repo.run(*THETA, "fsck", "--on", address)
            count = (size << 20) // (BLOCK * kind.dtype.itemsize)
            first = {f"w{n}": values(n, BLOCK, kind) for n in range(count)}
            write(repo.path / "m.safetensors", first, kind, 1024)
            before = taken()
            cost = repo.run(*THETA, "add", "m.safetensors", "--on", address)
            found.append(cost.seconds + taken() - before)
        each = tasks(address, folder / "store", taken)
    shutil.rmtree(folder)
    return (found[1] - found[0]) / ((MEGABYTES[1] - MEGABYTES[0]) << 20), each


def tasks(address: str, root: Path, taken: Callable[..., float], count: int = 2000) -> float:
    """CPU seconds from task to task, of the scheduler or the caller, whoever needs more.

    Args:
        address: the scheduler's.
        root: of a store.
        taken: what the cluster has taken until now.
        count: of tasks that do nothing.
    """
    client.AHEAD = count  # as with many workers: not a way there and back for each
    executor = client.Dask(address.replace("dask", "tcp"), store := Store(root))
    blocks = Blocks(store, executor=executor)
    try:
        executor.check()
        ours, theirs = time.process_time(), taken(alone=True)
        for _ in blocks.map(own_id, range(count), lambda item: client.BATCH_BYTES):
            pass
        return max(time.process_time() - ours, taken(alone=True) - theirs) / count
    finally:
        executor.close()


def hashing() -> float:
    """CPU seconds to hash one byte."""
    data = bytes(96 << 10)
    start = time.process_time()
    for _ in range(2000):
        hashlib.sha256(data).digest()
    return (time.process_time() - start) / (2000 * len(data))


def steps(large: list[Run], small: list[Run], pipe: float) -> dict[str, Step]:
    """The steps of one element type, with what each byte and each tensor takes."""
    one, two = small
    found = {}
    for key in NAMES:
        if key in large[0].seconds:
            byte = slope(large, key)
            further = two.seconds[key] - one.seconds[key] - byte * (two.nbytes - one.nbytes)
            tensor = max(0.0, further / (two.tensors - one.tensors))
            serial = 0.0 if key in ("fsck", "merge") else min(pipe, byte)
            room = (jobs.BUDGET_BYTES, copies_of(2)) if key == "merge" else (BUDGET_BYTES, 1)
            found[key] = Step(key, byte, tensor, serial, *room)
    return found


def page() -> str:
    """All that is measured, and what follows, as it stands in the page."""
    top = Path(tempfile.mkdtemp(prefix="theta-scale-")).resolve()
    start = time.perf_counter()
    try:
        small = [run(top / f"small-{n}", BF16, [SMALL] * n, merges=True) for n in COUNTS]
        large = {}
        for kind in (BF16, FP8):
            counts = [(size << 20) // (BLOCK * kind.dtype.itemsize) for size in MEGABYTES]
            large[kind.name] = [
                run(top / f"{kind.name}-{n}", kind, [BLOCK] * n, merges=kind is BF16)
                for n in counts
            ]
        bytewise, each = far(top / "far", BF16)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    took = time.perf_counter() - start
    # A touched file goes through the pipe, and is hashed; whatever its elements are.
    read = sum(slope(runs, "status") for runs in large.values()) / len(large)
    pipe = max(0.0, read - hashing())
    by_kind = {name: steps(runs, small, pipe) for name, runs in large.items()}
    ratio = bytewise / by_kind["BF16"]["add"].byte
    models = (llama(), deepseek())
    found = {one.name: (one, large[one.kind.name], by_kind[one.kind.name]) for one in models}
    return "\n\n".join([
        f"Measured in {took:.0f} s on {os.cpu_count()} cores at a load of "
        f"{os.getloadavg()[0]:.0f} (a quiet machine has at most 2 here), with NumPy "
        f"{np.__version__}:",
        measured(found, small),
        f"Git's pipe takes {GB * pipe:.2f} s a GB of these, in one "
        "process at each end. A first add by a cluster of two processes took "
        f"{ratio:.2f} times the CPU seconds a GB of one without, and a task takes "
        f"{1000 * each:.2f} ms of the scheduler or of the caller, whoever needs more.",
        "Multiplied:",
        projected(found, ratio, each),
        sizes(found, small),
    ])  # fmt: skip


def main() -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the tables of a page")
    args = parser.parse_args()
    text = page()
    if args.write is None:
        print(text)
        return
    before, _, rest = args.write.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    args.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
