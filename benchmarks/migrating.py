#!/usr/bin/env python3
"""Moving a history of git-lfs in: what it costs beside adding the same versions, and git-lfs.

    python benchmarks/migrating.py [--versions 30] [--megabytes 500] [--changed 0.25] [--lfs]

A model of float32 matrices is trained on: in each version a share of the tensors gets small
changes in all of its values. The versions are committed by git-lfs. Then the sum of `git add` of
them all, one after the other, in a repository of git-theta; `git theta migrate import` of the
history; `git theta migrate export --to lfs` of what came out, which must be the commits of before;
and, with --lfs, `git lfs migrate export` of the same history. Processor seconds of all processes,
and the largest resident size of one. What a process is said to have taken begins with what the one
that started it had: so the versions are made in another one, and NumPy is not imported here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

NAME = "model.safetensors"
WIDTH = 1024
BIN = Path(sys.executable).parent
MODULE = [sys.executable, "-m", "git_theta_ext.cli.main"]


@dataclass
class Cost:
    """Seconds of the wall and of processors, and the largest resident size in bytes."""

    wall: float
    cpu: float
    peak: int

    def __str__(self) -> str:
        return f"{self.cpu:8.1f} s cpu {self.wall:8.1f} s {self.peak / 1e6:8.0f} MB"


def run(folder: Path, *command: str) -> Cost:
    """Run a command and everything that it starts."""
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    begun = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return Cost(time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


def size_of(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


def versions(count: int, megabytes: int, changed: float, folder: Path) -> list[Path]:
    """The files of all versions, one made of the other."""
    made = [folder / f"{number}.safetensors" for number in range(count)]
    process = multiprocessing.get_context("spawn").Process(
        target=write, args=(made, megabytes, changed)
    )
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("the versions could not be made")
    return made


def write(made: list[Path], megabytes: int, changed: float) -> None:
    """Write the files, in a process that does nothing else."""
    import numpy as np
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    tensors = {
        f"layer.{n}.weight": random.normal(0, 0.02, (WIDTH, WIDTH)).astype(np.float32)
        for n in range(max(1, megabytes * 10**6 // (WIDTH * WIDTH * 4)))
    }
    names = list(tensors)
    for path in made:
        for name in random.choice(names, max(1, round(changed * len(names))), replace=False):
            step = random.normal(0, 1e-4, (WIDTH, WIDTH)).astype(np.float32)
            tensors[str(name)] = tensors[str(name)] + step
        save_file(tensors, path)


def started(path: Path, *setup: str) -> Path:
    """A repository."""
    path.mkdir()
    for command in (["git", "init", "-q"], ["git", "config", "user.name", "a"],
                    ["git", "config", "user.email", "a@b"], ["git", "config", "gc.auto", "0"],
                    list(setup)):  # fmt: skip
        run(path, *command)
    return path


def history(repo: Path, made: list[Path]) -> Cost:
    """Commit all versions; what the adds cost."""
    total = Cost(0, 0, 0)
    for path in made:
        shutil.copyfile(path, repo / NAME)
        cost = run(repo, "git", "add", ".")
        total = Cost(total.wall + cost.wall, total.cpu + cost.cpu, max(total.peak, cost.peak))
        run(repo, "git", "commit", "-q", "-m", path.stem)
    return total


def head(repo: Path) -> str:
    """The commit of HEAD."""
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repo, capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--versions", type=int, default=30)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--changed", type=float, default=0.25, help="share of the tensors")
    parser.add_argument("--lfs", action="store_true", help="also git lfs migrate export")
    parser.add_argument("--folder", help="where to work (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        top = Path(name)
        made = versions(args.versions, args.megabytes, args.changed, top)
        raw = sum(path.stat().st_size for path in made)
        lfs = started(top / "lfs", "git", "lfs", "install", "--local")
        (lfs / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        print(f"{args.versions} versions, {raw / 1e6:,.0f} MB together")
        print(f"git add, git-lfs           {history(lfs, made)}")
        ours = started(top / "ours", *MODULE, "install", "--local")
        run(ours, *MODULE, "track", "*.safetensors")
        adds = history(ours, made)
        print(f"git add, git-theta         {adds}")
        before = head(lfs)
        if args.lfs:
            copy = top / "copy"
            shutil.copytree(lfs, copy)
            beside = ["git", "lfs", "migrate", "export", "--include", "*.safetensors", "--yes"]
            print(f"git lfs migrate export     {run(copy, *beside)}")
            shutil.rmtree(copy)
        cost = run(lfs, *MODULE, "migrate", "import")
        print(f"git theta migrate import   {cost}   {cost.cpu / adds.cpu:.2f} x the adds")
        stored = [size_of(repo / ".git/theta/objects") for repo in (ours, lfs)]
        print(f"stored                     {stored[0] / 1e6:,.1f} MB by adds, "
              f"{stored[1] / 1e6:,.1f} MB by the import")  # fmt: skip
        print(f"git theta migrate export   {run(lfs, *MODULE, 'migrate', 'export', '--to', 'lfs')}")
        print(f"the commits of before: {'yes' if head(lfs) == before else 'NO'}")


if __name__ == "__main__":
    main()
