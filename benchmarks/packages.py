#!/usr/bin/env python3
"""Models as packages: what it takes to get one, whole or in part, and to have several versions.

    python benchmarks/packages.py [--megabytes 1000] [--runs 3] [--parts get] [--folder DIR]

A model of `--megabytes` in tensors of 4 MB (fp32) is published in the versions v1, v2 and v3, of
which each moves every number of a third of the tensors a little, in a bare repository on this
machine: its objects in the repository itself (path), and at a Git LFS server in this process
(server). Seconds are medians of wall time of `--runs`, each with an empty cache unless the row says
otherwise. Moved are the bytes of objects that the server sent, or that lie in the cache afterwards,
and what Git fetched.

A part is a function that yields rows; others go into PARTS.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.servers.lfs import LfsServer, lfs_server

NAME = "model.safetensors"
TENSOR_BYTES = 4 << 20
TENSOR = "layer.1.weight"


@dataclass(frozen=True)
class Row:
    """A figure: what, how much, and what it is measured against."""

    what: str
    value: str
    beside: str = ""


@dataclass(frozen=True)
class Place:
    """Where a model is published, and the settings by which its objects are found."""

    label: str
    url: str
    server: LfsServer | None

    @property
    def settings(self) -> list[str]:
        """Options of git."""
        return [] if self.server is None else ["-c", f"lfs.url={self.server.url}"]


class Bench:
    """The model, the places where it is published, and how commands are run and timed."""

    def __init__(self, work: Path, megabytes: int, runs: int, server: LfsServer) -> None:
        self.work, self.runs, self.server = work, runs, server
        self.cache = work / "cache"
        self.model = work / "model"
        self._publish(max(3, megabytes * 1_000_000 // TENSOR_BYTES))
        bare = str(work / "hub.git")
        self.places = [Place("path", bare, None), Place("server", str(work / "lfs.git"), server)]

    def run(self, folder: Path, *command: str, env: dict[str, str] | None = None) -> str:
        """What a command prints; raises CalledProcessError on failure."""
        done = subprocess.run(
            command, cwd=folder, check=True, capture_output=True, env={**os.environ, **(env or {})}
        )
        return done.stdout.decode()

    def timed(self, what: Callable[[], object], before: Callable[[], object]) -> float:
        """Seconds of a step, the median; `before` each run comes what is not timed."""
        found = []
        for _ in range(self.runs):
            before()
            os.sync()
            start = time.perf_counter()
            what()
            found.append(time.perf_counter() - start)
        return statistics.median(found)

    def get(self, place: Place, *words: str) -> None:
        """Run `git theta get` in the folder of work."""
        self.run(self.work, "git", *place.settings, "theta", "get", "-q", *words)

    def forget(self) -> None:
        """Empty the cache and remove what was got."""
        for folder in (self.cache, *self.work.glob("got*")):
            if folder.is_dir():
                shutil.rmtree(folder)
            elif folder.exists():
                folder.unlink()
        self.server.requests.clear()

    def moved(self, place: Place) -> int:
        """Bytes that came since `forget`."""
        git = size_of(self.cache / "repositories")
        if place.server is None:
            return git + size_of(self.cache / "store" / "objects")
        got = [path.rsplit("/", 1)[1] for kind, path in self.server.requests if kind == "GET"]
        return git + sum(len(self.server.objects[oid]) for oid in got)

    def _publish(self, count: int) -> None:
        self.model.mkdir()
        self.run(self.model, "git", "init", "-q", "-b", "main")
        self.run(self.model, "git", "theta", "track", "*.safetensors")
        for name in ("hub", "lfs"):
            self.run(self.work, "git", "init", "-q", "--bare", "-b", "main", f"{name}.git")
            self.run(self.model, "git", "remote", "add", name, str(self.work / f"{name}.git"))
        for version in (1, 2, 3):
            write_version(self.model / NAME, count, version)
            self.run(self.model, "git", "add", ".")
            self.run(self.model, "git", "commit", "-qm", f"v{version}")
            self.run(self.model, "git", "tag", f"v{version}")
        self.run(self.model, "git", "push", "-q", "hub", "main", "--tags")
        lfs = ["-c", f"lfs.url={self.server.url}"]
        self.run(self.model, "git", *lfs, "push", "-q", "lfs", "main", "--tags")


def write_version(path: Path, count: int, version: int) -> None:
    """A model; each version moves a third of the tensors of the one before by a thousandth."""
    side = int((TENSOR_BYTES // 4) ** 0.5)
    header = {
        f"layer.{at}.weight": {
            "dtype": "F32",
            "shape": [side, side],
            "data_offsets": [at * TENSOR_BYTES, (at + 1) * TENSOR_BYTES],
        }
        for at in range(count)
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for at in range(count):
            values = np.random.default_rng([at, 0]).standard_normal((side, side), np.float32)
            for later in range(2, version + 1):
                if at % 3 == later % 3:
                    noise = np.random.default_rng([at, later]).standard_normal(
                        (side, side), np.float32
                    )
                    values *= 1 + np.float32(1e-3) * noise
            file.write(values.tobytes())


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


def megabytes(count: int) -> str:
    """A number of bytes, as the tables have it."""
    return f"{count / 1e6:.1f} MB"


def get(bench: Bench) -> Iterator[Row]:
    """`git theta get`, `theta.open` and the cache."""
    for place in bench.places:
        one = [f"{place.url}@v1:{NAME}", "--tensors", TENSOR, "-o", "got.safetensors"]
        seconds = bench.timed(lambda p=place, w=one: bench.get(p, *w), bench.forget)
        moved = bench.moved(place)
        yield Row(f"get of one 4 MB tensor, {place.label}", f"{seconds:.2f} s, {megabytes(moved)}")
    for place in bench.places:
        yield from whole(bench, place)
    place = bench.places[0]
    bench.forget()
    for version in ("v1", "v2", "v3"):
        bench.get(place, f"{place.url}@{version}", "-o", "got")
    store = size_of(bench.model / ".git/theta/objects")
    taken = size_of(bench.cache / "store/objects")
    git = size_of(bench.cache / "repositories")
    yield Row(
        "v1, v2 and v3 in the cache",
        f"{megabytes(taken)}, and {megabytes(git)} of Git",
        f"store of the repository: {megabytes(store)}",
    )
    text = f"import git_theta_ext as theta; theta.open({f'{place.url}@v1:{NAME}'!r})[{TENSOR!r}]"
    seconds = bench.timed(lambda: bench.run(bench.work, sys.executable, "-c", text), lambda: None)
    bare = bench.timed(
        lambda: bench.run(bench.work, sys.executable, "-c", "import numpy"), lambda: None
    )
    yield Row(
        "theta.open and one tensor, cached, new process", f"{seconds:.2f} s",
        f"import numpy alone: {bare:.2f} s",
    )  # fmt: skip


def whole(bench: Bench, place: Place) -> Iterator[Row]:
    """A whole model, beside a clone of it; and once more."""
    words = [f"{place.url}@v3", "-o", "got"]
    seconds = bench.timed(lambda: bench.get(place, *words), bench.forget)
    moved = bench.moved(place)
    again = bench.timed(lambda: bench.get(place, *words), lambda: None)

    def clone() -> None:
        skip = {"GIT_THETA_SKIP_SMUDGE": "1"}
        url = Path(place.url).as_uri()  # of a plain path Git takes all history
        options = ["-q", "--depth", "1", "--branch", "v3"]
        bench.run(bench.work, "git", *place.settings, "clone", *options, url, "got-clone", env=skip)
        bench.run(bench.work / "got-clone", "git", *place.settings, "theta", "pull")

    beside = bench.timed(clone, bench.forget)
    yield Row(
        f"get of the whole model, {place.label}", f"{seconds:.2f} s, {megabytes(moved)}",
        f"clone --depth 1 and pull: {beside:.2f} s ({seconds / beside:.2f})",
    )  # fmt: skip
    yield Row(f"the same a second time, {place.label}", f"{again:.2f} s")


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {"get": get}


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the model")
    parser.add_argument("--runs", type=int, default=3, help="runs of each step; the median counts")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--folder", help="where to work (default: the system's temporary folder)")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="theta-bench-", dir=args.folder) as name,
        lfs_server() as server,
    ):
        work = Path(name)
        os.environ.update(
            HOME=name, GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL=str(work / ".gitconfig"),
            GIT_AUTHOR_NAME="Ada", GIT_AUTHOR_EMAIL="ada@example.org",
            GIT_COMMITTER_NAME="Ada", GIT_COMMITTER_EMAIL="ada@example.org",
            GIT_THETA_CACHE=str(work / "cache"),
            PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        )  # fmt: skip
        subprocess.run(["git", "theta", "install"], cwd=work, check=True, capture_output=True)
        bench = Bench(work, args.megabytes, args.runs, server)
        print(f"{args.megabytes} MB; median of {args.runs}")
        print("| what | measured | beside |")
        print("|---|---|---|")
        for part in args.parts:
            for row in PARTS[part](bench):
                print(f"| {row.what} | {row.value} | {row.beside} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
