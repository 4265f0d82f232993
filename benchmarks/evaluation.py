#!/usr/bin/env python3
"""What results of evaluations cost: showing the scores of many versions, keeping outcomes.

    python benchmarks/evaluation.py [--versions 1000] [--only TEXT]

Each figure is the median of three runs, in seconds of the processor of `git theta` as a whole.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.evaluation.content import content_of
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.results import Examples, Result, Score
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.manifest.text import manifest_bytes

PATH = "model.safetensors"
THETA = [sys.executable, "-m", "git_theta_ext.cli.main"]


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Run git without the machine's configuration."""
    environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, input=stdin, check=True,
        capture_output=True,
    ).stdout  # fmt: skip


def seconds(command: list[str], folder: Path, runs: int = 3) -> float:
    """Seconds of the processor that a command and its children take: the median of some runs."""
    found = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(found)


def digest(*words: object) -> str:
    """A made-up SHA-256."""
    return np.random.default_rng(abs(hash(words)) % 2**32).bytes(32).hex()


def manifest(version: int, tensors: int, changed: int) -> Manifest:
    """A version in which `changed` of all tensors differ from the one before."""
    entries = []
    groups = -(-tensors // changed)
    for number in range(tensors):
        last = version - (version - number // changed) % groups
        last = max(0, last)
        info = TensorInfo(f"layer.{number}.weight", DTYPES["F32"], (64, 64))
        chain = (UpdateRef("dense", digest("d", number), 9000), *(
            (UpdateRef("delta", digest("u", number, last), 4000),) if last else ()
        ))  # fmt: skip
        entries.append(Entry(info, (Block(64 * 64 * 4, digest("b", number, last), chain),)))
    skeleton = Block(900, digest("s"), (UpdateRef("dense", digest("t"), 300),))
    return Manifest("safetensors", skeleton, tuple(entries))


def history(folder: Path, versions: int, tensors: int, changed: int) -> None:
    """A repository with so many versions, each of which has three scores."""
    git(folder, "init", "-q", "-b", "main", ".")
    stream = [b"blob\nmark :1\ndata 0\n\n"]
    results = []
    for number in range(versions):
        made = manifest(number, tensors, changed)
        text = manifest_bytes(made)
        stream.append(
            b"commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata 5\nstep\n"
            b"M 100644 inline %s\ndata %d\n%s\n"
            % (1_700_000_000 + 60 * number, PATH.encode(), len(text), text)
        )
        value = 0.5 + 0.4 * number / versions
        scores = tuple(
            Score(task, "acc", value, 0.01, True, 1000) for task in ("cola", "rte", "sst2")
        )
        results.append(
            Result(content_of([made]), "glue", "d" * 64, None, None, "measured",
                   "A <a@example.org>", 1_700_000_000 + 60 * number, "c" * 40, PATH, "CSV", scores)
        )  # fmt: skip
    git(folder, "fast-import", "--quiet", stdin=b"".join(stream))
    Kept(Repository.discover(folder)).add(results)


def scores(versions: int) -> None:
    """`git theta scores` over many versions: for the first time, and then in each shape."""
    for tensors, changed in ((30, 3), (200, 20), (200, 200)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            history(folder, versions, tensors, changed)
            what = f"{versions} versions, {changed} of {tensors} tensors change"
            print(f"{what}: first {seconds([*THETA, 'scores', PATH], folder, 1):.2f} s", end="")
            for shape in ("text", "csv", "json", "html"):
                command = [*THETA, "scores", PATH, "--format", shape]
                print(f", {shape} {seconds(command, folder):.2f} s", end="", flush=True)
            print()


def kept(_: int) -> None:
    """What 20 tasks of 10,000 examples take in Git's store, right or wrong at random."""
    random = np.random.default_rng(5)
    for share in (0.5, 0.8, 0.95):
        with tempfile.TemporaryDirectory() as name:
            git(Path(name), "init", "-q", ".")
            repository = Repository.discover(Path(name))
            found = []
            for task in range(20):
                right = {f"q{number}": float(random.random() < share) for number in range(10_000)}
                examples = Examples.of(right, "right")
                found.append(Score(f"t{task}", "acc", share, ids_hash=examples.ids_hash,
                                   examples=examples))  # fmt: skip
            Kept(repository).add([
                Result("a" * 64, "glue", "d" * 64, None, None, "measured", "A", 0, "", PATH, "CSV",
                       tuple(found))
            ])  # fmt: skip
            listed = git(Path(name), "cat-file", "--batch-all-objects",
                         "--batch-check=%(objectsize:disk)")  # fmt: skip
            print(f"20 x 10,000 outcomes, {share:.0%} right: {sum(map(int, listed.split())):,} B")


PARTS: dict[str, Callable[[int], None]] = {"scores": scores, "kept": kept}


def main() -> None:
    """Measure every part whose name contains the text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--only", default="", metavar="TEXT")
    arguments = parser.parse_args()
    for name, part in PARTS.items():
        if arguments.only in name:
            part(arguments.versions)


if __name__ == "__main__":
    main()
