#!/usr/bin/env python3
"""`git push` and `git clone` of many objects, side by side with git-lfs moving the same objects.

    python benchmarks/transfers.py [--objects 300] [--kilobytes 1024] [--runs 3]

One repository holds a checkpoint of that many tensors. The other is tracked by git-lfs and holds
the parameter files of the first as files of its own, so both send the same objects: to a bare
repository by path, and to a Git LFS server on this machine. Seconds are medians of wall time; each
push goes to an empty remote.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.servers.lfs import LfsServer, lfs_server


def run(folder: Path, *command: str) -> None:
    """Run a command quietly; raises CalledProcessError on failure."""
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def write_checkpoint(path: Path, tensors: int, kilobytes: int) -> None:
    """A float32 checkpoint of equally large random tensors."""
    size = kilobytes << 10
    names = [f"layer.{number}.weight" for number in range(tensors)]
    header = {
        name: {
            "dtype": "F32",
            "shape": [size // 4],
            "data_offsets": [at * size, (at + 1) * size],
        }
        for at, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in names:
            file.write(random.standard_normal(size // 4, np.float32).tobytes())


def theta_repository(folder: Path, tensors: int, kilobytes: int) -> None:
    """A repository with one checkpoint."""
    run(folder, "git", "init", "-q", "-b", "main")
    for command in (["install", "--local"], ["track", "*.safetensors"]):
        run(folder, sys.executable, "-m", "git_theta_ext.cli.main", *command)
    write_checkpoint(folder / "model.safetensors", tensors, kilobytes)
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-qm", "model")


def lfs_repository(folder: Path, objects: Path) -> None:
    """A repository with a file for each of the other's parameter files."""
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "git", "lfs", "install", "--local")
    run(folder, "git", "lfs", "track", "*.object")
    for path in objects.rglob("*"):
        if path.is_file():
            shutil.copy(path, folder / f"{path.name}.object")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-qm", "objects")


@contextmanager
def path_remote(work: Path, _: LfsServer) -> Iterator[tuple[str, str | None]]:
    """An empty bare repository, named by path."""
    bare = work / "remote.git"
    run(work, "git", "init", "-q", "-b", "main", "--bare", str(bare))
    try:
        yield bare.as_uri(), None
    finally:
        shutil.rmtree(bare)


@contextmanager
def server_remote(work: Path, server: LfsServer) -> Iterator[tuple[str, str | None]]:
    """An empty bare repository whose objects go to the LFS server."""
    server.objects.clear()
    with path_remote(work, server) as (url, _):
        yield url, server.url


def timed(folder: Path, work: Path, remote: Callable, server: LfsServer, runs: int) -> list[float]:
    """Seconds of a push and of a clone (medians)."""
    pushes, clones = [], []
    for _ in range(runs):
        with remote(work, server) as (url, lfs_url):
            settings = ["-c", f"lfs.url={lfs_url}"] if lfs_url else []
            run(folder, "git", "remote", "add", "origin", url)
            os.sync()
            start = time.perf_counter()
            run(folder, "git", *settings, "push", "-q", "origin", "main")
            pushes.append(time.perf_counter() - start)
            start = time.perf_counter()
            run(work, "git", *settings, "clone", "-q", url, "clone")
            clones.append(time.perf_counter() - start)
            shutil.rmtree(work / "clone")
            run(folder, "git", "remote", "remove", "origin")
    return [statistics.median(pushes), statistics.median(clones)]


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--objects", type=int, default=300, help="tensors of the checkpoint")
    parser.add_argument("--kilobytes", type=int, default=1024, help="size of each tensor")
    parser.add_argument("--runs", type=int, default=3, help="runs of each step; the median counts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="theta-bench-") as name, lfs_server() as server:
        work = Path(name)
        os.environ.update(
            HOME=name, GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL=str(work / ".gitconfig"),
            GIT_AUTHOR_NAME="Ada", GIT_AUTHOR_EMAIL="ada@example.org",
            GIT_COMMITTER_NAME="Ada", GIT_COMMITTER_EMAIL="ada@example.org",
        )  # fmt: skip
        theta, lfs = work / "theta", work / "lfs"
        theta.mkdir()
        lfs.mkdir()
        theta_repository(theta, args.objects, args.kilobytes)
        lfs_repository(lfs, theta / ".git/theta/objects")
        # The clones find their filters in the user's configuration.
        run(work, sys.executable, "-m", "git_theta_ext.cli.main", "install")
        run(work, "git", "lfs", "install")
        print(f"{args.objects} objects of {args.kilobytes} KiB raw; seconds")
        print("| step | git-theta-ext | git-lfs | ratio |")
        print("|---|---|---|---|")
        for label, remote in (("path", path_remote), ("LFS server", server_remote)):
            ours = timed(theta, work, remote, server, args.runs)
            theirs = timed(lfs, work, remote, server, args.runs)
            for step, mine, other in zip(("push", "clone"), ours, theirs, strict=True):
                print(f"| git {step}, {label} | {mine:.2f} | {other:.2f} | {mine / other:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
