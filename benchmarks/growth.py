#!/usr/bin/env python3
"""How costs grow with the number of files, tensors, versions and bytes, beside git-lfs.

    python benchmarks/growth.py files|models|tensors|experts|versions|bytes [--sizes N N]

Every step is one command that a user types, in a new repository of each size, with this package and
with git-lfs. The figures are CPU seconds of the whole tree of processes (user and system), which
the load of the machine changes little, and the peak memory of its largest process. The slope is the
exponent with which the figure grows from the smallest size to the largest: 1 is linear. `objects`
is a number of files in the store, not of seconds.

POSIX only, for Windows does not tell what the children of a process took.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

THETA = [sys.executable, "-m", "git_theta_ext.cli.main"]
TOOLS = ("git-theta-ext", "git-lfs")
SIZES = {"files": (200, 3200), "models": (75, 300), "tensors": (3000, 30000),
         "experts": (250, 1000), "versions": (5, 40),
         "bytes": (256, 1024)}  # fmt: skip
Tensors = dict[str, NDArray[np.uint8]]
_START = """
import json, os, subprocess, sys
for line in sys.stdin:
    command, folder, environment = json.loads(line)
    said = os.path.join(environment["HOME"], "said")
    with open(said, "wb") as file:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=file)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    with open(said, encoding="utf-8", errors="replace") as file:
        text = file.read()
    seconds = usage.ru_utime + usage.ru_stime
    print(json.dumps([child.returncode, seconds, usage.ru_maxrss, text]), flush=True)
"""
START = time.time() - 100_000
TOUCHED = itertools.count()
STARTER = subprocess.Popen(
    [sys.executable, "-I", "-S", "-c", _START],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
)  # fmt: skip
"""A small process that starts the others: what one takes counts from what its parent had."""


@dataclass(frozen=True)
class Cost:
    """What a command took: CPU seconds, and megabytes of its largest process."""

    seconds: float
    megabytes: float


@dataclass
class Repo:
    """A repository that one of the tools is set up in."""

    tool: str
    path: Path
    home: Path
    costs: dict[str, Cost] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()

    @property
    def is_theta(self) -> bool:
        """Whether it is this package's."""
        return self.tool == TOOLS[0]

    def environment(self) -> dict[str, str]:
        """Nothing of the user's settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        return {**kept, "HOME": str(self.home), "GIT_CONFIG_NOSYSTEM": "1", "PATH": programs}

    def run(self, *command: str, cwd: Path | None = None) -> Cost:
        """Run a command to its end.

        Raises:
            SystemExit: it failed.
        """
        request = [list(command), str(cwd or self.path), self.environment()]
        assert STARTER.stdin is not None
        assert STARTER.stdout is not None
        STARTER.stdin.write(json.dumps(request) + "\n")
        STARTER.stdin.flush()
        status, seconds, most, said = json.loads(STARTER.stdout.readline())
        if status:
            raise SystemExit(f"{' '.join(command)}:\n{said}")
        return Cost(seconds, most / (1 << 20 if sys.platform == "darwin" else 1 << 10))

    def step(self, name: str, *command: str, cwd: Path | None = None) -> None:
        """Run a command, and keep what it took under a name."""
        cost = self.run(*command, cwd=cwd)
        if not self.wanted or name in self.wanted:
            self.costs[name] = cost

    def theta(self, name: str, *arguments: str) -> None:
        """A step of this package's own commands, where it is that and was asked for."""
        if self.is_theta and (not self.wanted or name in self.wanted):
            self.step(name, *THETA, *arguments)


def new_repo(tool: str, folder: Path, patterns: str, wanted: frozenset[str]) -> Repo:
    """An empty repository with a HOME of its own beside it."""
    home, path = folder / "home", folder / "work"
    for one in (home, path):
        one.mkdir(parents=True)
    repo = Repo(tool, path, home, wanted=wanted)
    settings = (
        ("user.name", "benchmark"), ("user.email", "benchmark@localhost"), ("gc.auto", "0"),
        ("init.defaultBranch", "main"), ("protocol.file.allow", "always"),
    )  # fmt: skip
    for name, value in settings:
        repo.run("git", "config", "--global", name, value)
    repo.run("git", "init", "-q")
    setup = [*THETA, "install"] if repo.is_theta else ["git", "lfs", "install"]
    track = [*THETA, "track", patterns] if repo.is_theta else ["git", "lfs", "track", patterns]
    repo.run(*setup)
    repo.run(*track)
    commit(repo, "track")
    return repo


def commit(repo: Repo, message: str) -> None:
    """Add all and commit."""
    repo.run("git", "add", "-A")
    repo.run("git", "commit", "-q", "-m", message)


def write(path: Path, tensors: Tensors) -> None:
    """A safetensors file, some minutes old, so that Git need not read it twice."""
    header: dict[str, object] = {}
    offset = 0
    for name, array in tensors.items():
        count = array.nbytes // 4
        shape = [count // 32, 32] if count % 32 == 0 else [count]
        ends = [offset, offset + array.nbytes]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": ends}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(array)
    touch(path)


def touch(path: Path) -> None:
    """Give a file another time than the index knows, some minutes ago."""
    moment = START + 2 * next(TOUCHED)
    os.utime(path, (moment, moment))


def values(seed: int, nbytes: int) -> NDArray[np.uint8]:
    """Bytes of weights as a training gives them."""
    random = np.random.default_rng(seed)
    return (random.standard_normal(nbytes // 4, np.float32) * np.float32(0.05)).view(np.uint8)


def trained(array: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """The same weights after some steps."""
    floats = array.view(np.float32)
    random = np.random.default_rng(seed)
    moved = floats + random.standard_normal(floats.size, np.float32) * np.float32(1e-4)
    return np.ascontiguousarray(moved).view(np.uint8)


def grow_files(repo: Repo, count: int) -> None:
    """Many files of a few kilobytes in one folder; a tenth of them changes."""
    grow_copies(repo, count, 1, 4096)


def grow_models(repo: Repo, count: int) -> None:
    """Many files of a megabyte."""
    grow_copies(repo, count, 16, 65536)


def grow_copies(repo: Repo, count: int, tensors: int, nbytes: int) -> None:
    """Files of some tensors of one size; of a tenth of them, every tensor changes."""
    paths = [repo.path / f"f{number}.safetensors" for number in range(count)]

    def weights(number: int) -> Tensors:
        return {f"t{n}": values(number * tensors + n, nbytes) for n in range(tensors)}

    for number, path in enumerate(paths):
        write(path, weights(number))
    repo.step("add", "git", "add", "-A")
    repo.step("commit", "git", "commit", "-q", "-m", "one")
    for turn in range(2):
        for path in paths:
            touch(path)
        repo.step(f"status, all touched{' again' * turn}", "git", "status", "--short")
    repo.step("status, nothing touched", "git", "status", "--short")
    repo.theta("theta status", "status")
    for number, path in enumerate(paths):
        if number % 10 == 0:
            write(path, {name: trained(old, number) for name, old in weights(number).items()})
    repo.step("status, a tenth changed", "git", "status", "--short")
    repo.step("add, a tenth changed", "git", "add", "-A")
    repo.run("git", "commit", "-q", "-m", "two")
    repo.step("switch", "git", "checkout", "-q", "HEAD~1")
    repo.run("git", "checkout", "-q", "main")
    travel(repo)


def grow_tensors(repo: Repo, count: int) -> None:
    """One checkpoint of many tensors of 8 to 64 KB; every tenth changes."""
    sizes = [8192 * (1 + number % 8) for number in range(count)]
    tensors = {f"layers.{n // 9}.part.{n % 9}.weight": values(n, sizes[n]) for n in range(count)}
    path = repo.path / "m.safetensors"
    write(path, tensors)
    repo.step("add", "git", "add", "-A")
    repo.step("commit", "git", "commit", "-q", "-m", "one")
    touch(path)
    repo.step("status, touched", "git", "status", "--short")
    for number, name in enumerate(tensors):
        if number % 10 == 0:
            tensors[name] = trained(tensors[name], number)
    write(path, tensors)
    del tensors
    repo.step("add, a tenth changed", "git", "add", "-A")
    repo.run("git", "commit", "-q", "-m", "two")
    repo.step("switch", "git", "checkout", "-q", "HEAD~1")
    repo.run("git", "checkout", "-q", "main")
    look(repo, "m.safetensors")
    travel(repo)


def grow_experts(repo: Repo, count: int) -> None:
    """Quantised experts: weights of 512 KB, a scale of 1 KB beside each; every tenth changes."""
    tensors: Tensors = {}
    for number in range(count):
        name = f"layers.{number // 64}.experts.{number % 64}.up_proj"
        tensors[f"{name}.weight"] = values(number, 512 << 10)
        tensors[f"{name}.weight_scale_inv"] = values(count + number, 1024)
    path = repo.path / "m.safetensors"
    write(path, tensors)
    repo.step("add", "git", "add", "-A")
    repo.run("git", "commit", "-q", "-m", "one")
    for number, name in enumerate(tensors):
        if number % 20 < 2:
            tensors[name] = trained(tensors[name], number)
    write(path, tensors)
    del tensors
    repo.step("add, a tenth changed", "git", "add", "-A")
    repo.run("git", "commit", "-q", "-m", "two")
    travel(repo)


def grow_versions(repo: Repo, count: int) -> None:
    """One checkpoint of 2,000 small tensors with a long history; each version changes ten."""
    tensors = {f"layers.{n // 9}.part.{n % 9}.weight": values(n, 1024) for n in range(2000)}
    path, names = repo.path / "m.safetensors", list(tensors)
    for version in range(count):
        for number in range(10):
            name = names[(version * 10 + number) % len(names)]
            tensors[name] = trained(tensors[name], version)
        write(path, tensors)
        if version + 1 < count:
            commit(repo, str(version))
    repo.step("add", "git", "add", "-A")
    repo.run("git", "commit", "-q", "-m", "last")
    repo.step("switch", "git", "checkout", "-q", "HEAD~1")
    repo.run("git", "checkout", "-q", "main")
    look(repo, "m.safetensors")
    travel(repo)


def grow_bytes(repo: Repo, megabytes: int) -> None:
    """One checkpoint of 32 MB tensors, of which one changes."""
    tensors = {f"t{n}": values(n, 32 << 20) for n in range(megabytes // 32)}
    path = repo.path / "m.safetensors"
    write(path, tensors)
    repo.step("add", "git", "add", "-A")
    repo.run("git", "commit", "-q", "-m", "one")
    tensors["t1"] = trained(tensors["t1"], 1)
    write(path, tensors)
    del tensors
    repo.step("add, one tensor changed", "git", "add", "-A")
    repo.run("git", "commit", "-q", "-m", "two")
    repo.step("checkout of the other version", "git", "checkout", "-q", "HEAD~1")
    touch(path)
    repo.step("status, touched", "git", "status", "--short")


def look(repo: Repo, name: str) -> None:
    """What reads a history."""
    repo.theta("log -n 1", "log", "-n", "1", name)
    repo.theta("log", "log", name)
    repo.theta("blame", "blame", name)
    repo.theta("du", "du")
    repo.theta("diff", "diff", "HEAD~1", "HEAD")
    repo.theta("theta status", "status")
    if repo.is_theta:
        repo.theta("fsck", "fsck")
    else:
        repo.step("fsck", "git", "lfs", "fsck")


def travel(repo: Repo) -> None:
    """What goes to a path remote and comes from it."""
    server = repo.path.parent / "server.git"
    repo.run("git", "init", "-q", "--bare", str(server))
    repo.run("git", "remote", "add", "origin", server.as_uri())
    repo.step("push", "git", "push", "-q", "origin", "main")
    repo.step("push again", "git", "push", "-q", "origin", "main:other")
    repo.step("clone", "git", "clone", "-q", server.as_uri(), "copy", cwd=repo.path.parent)
    if not repo.wanted or "objects" in repo.wanted:
        store = repo.path / ".git" / ("theta" if repo.is_theta else "lfs") / "objects"
        count = sum(1 for path in store.rglob("*") if path.is_file())
        repo.costs["objects"] = Cost(count, 0)


AXES: dict[str, Callable[[Repo, int], None]] = {
    "files": grow_files, "models": grow_models, "tensors": grow_tensors,
    "experts": grow_experts, "versions": grow_versions, "bytes": grow_bytes,
}  # fmt: skip


def rows(sizes: list[int], found: dict[tuple[str, int], dict[str, Cost]]) -> Iterator[list[str]]:
    """A row for each step: seconds of each tool at each size, slopes, and the ratio at the end."""
    heads = [f"{tool} {size:,}" for tool in TOOLS for size in sizes]
    yield ["step", *heads, *(f"slope {tool}" for tool in TOOLS), "ratio", "MB"]
    for step in dict.fromkeys(name for costs in found.values() for name in costs):
        seconds = {key: costs[step].seconds for key, costs in found.items() if step in costs}
        cells = [f"{seconds[key]:.2f}" if (key := (tool, size)) in seconds else ""
                 for tool in TOOLS for size in sizes]  # fmt: skip
        for tool in TOOLS:
            ends = [seconds.get((tool, size)) for size in (sizes[0], sizes[-1])]
            known = len(sizes) > 1 and None not in ends
            slope = math.log((ends[1] or 0.01) / (ends[0] or 0.01)) if known else 0.0
            cells.append(f"{slope / math.log(sizes[-1] / sizes[0]):.2f}" if known else "")
        both = [seconds.get((tool, sizes[-1])) for tool in TOOLS]
        cells.append(f"{both[0] / both[1]:.2f}" if both[0] and both[1] else "")
        own = found.get((TOOLS[0], sizes[-1]), {}).get(step)
        yield [step, *cells, f"{own.megabytes:.0f}" if own else ""]


def main() -> None:
    """Measure one axis and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("axis", choices=AXES)
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of it (bytes: megabytes)")
    parser.add_argument("--steps", default="", help="only these, with commas between them")
    parser.add_argument("--tool", choices=TOOLS, help="only one of the two")
    parser.add_argument("--folder", type=Path, help="where to work; kept afterwards")
    args = parser.parse_args()
    wanted = frozenset(filter(None, args.steps.split(",")))
    sizes = sorted(args.sizes or SIZES[args.axis])
    found: dict[tuple[str, int], dict[str, Cost]] = {}
    top = Path(args.folder or tempfile.mkdtemp(prefix="theta-growth-")).resolve()
    try:
        for size in sizes:
            for tool in [args.tool] if args.tool else TOOLS:
                folder = top / f"{tool}-{args.axis}-{size}"
                repo = new_repo(tool, folder, "*.safetensors", wanted)
                AXES[args.axis](repo, size)
                found[tool, size] = repo.costs
                if not args.folder:
                    shutil.rmtree(folder)
    finally:
        if not args.folder:
            shutil.rmtree(top, ignore_errors=True)
    table = list(rows(sizes, found))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    main()
