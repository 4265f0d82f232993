#!/usr/bin/env python3
"""What a merge stores and costs as a recipe, beside the same merge stored as values.

    python benchmarks/recipes.py [--megabytes 1000] [--runs 1] [--turns 10]

Two branches changed every entry of a float32 checkpoint. They are merged by `git merge` with each
strategy, once with `theta.mergeStorage` recipe and once with values: seconds, processor seconds,
and what is stored and sent besides: new objects and the text of the manifest. Then: the checkout
of a parent, of the merge, and of a fine-tune of the merge. `--turns`: so many merges and
fine-tunes in turn, and the checkout of the last.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from merging import LEAST, branches, measured, moved
from workflows import NAME, git, spans, write_model

STRATEGIES = ("average", "ties", "task-arithmetic,lambda=0.5")


def stored(folder: Path) -> int:
    """Bytes of all objects."""
    top = folder / ".git" / "theta" / "objects"
    return sum(path.stat().st_size for path in top.rglob("*") if path.is_file())


def text_bytes(folder: Path, commit: str) -> int:
    """Length of a manifest as Git packs it: its own, for the others have other hashes."""
    name = subprocess.run(
        ["git", "rev-parse", f"{commit}:{NAME}"], cwd=folder, capture_output=True, check=True
    ).stdout.decode()
    found = subprocess.run(
        ["git", "cat-file", "--batch-check=%(objectsize:disk)"], cwd=folder, capture_output=True,
        input=name.encode(), check=True,
    )  # fmt: skip
    return int(found.stdout)


def line(what: str, took: tuple[float, float, float], more: str = "") -> None:
    """A row of the table."""
    print(f"{what:58} {took[0]:7.2f} s {took[1]:7.2f} CPU s {took[2]:6.0f} MB  {more}", flush=True)


def merges(work: Path, source: Path, runs: int) -> None:
    """Every strategy, stored both ways."""
    folder = branches(work, source, collide=True)
    raw = source.stat().st_size

    def again(commit: str = "refs/tags/start") -> Callable[[], None]:
        return lambda: git(folder, "reset", "-q", "--hard", commit)

    def checkout(what: str, commit: str) -> None:
        took = measured(
            folder, ["git", "checkout", "-q", "--detach", commit],
            lambda: git(folder, "checkout", "-q", "--detach", "refs/tags/start~1"), runs,
        )  # fmt: skip
        line(what, took)

    for strategy in STRATEGIES:
        for storage in ("recipe", "values"):
            again()()
            before = stored(folder)
            merge = ["git", "-c", f"theta.mergeStorage={storage}", "merge", "-q", "--no-edit",
                     "side"]  # fmt: skip
            took = measured(folder, merge, again(), runs, GIT_THETA_MERGE=strategy)
            new, text = stored(folder) - before, text_bytes(folder, "HEAD")
            share = (new + text) / raw
            line(f"git merge, {strategy}, {storage}", took,
                 f"stores {new:,} + {text:,} bytes, {share:.5f} of the model")  # fmt: skip
            if strategy == "average":
                git(folder, "tag", f"merged-{storage}")
    checkout("git checkout of a parent", "refs/tags/start")
    checkout("git checkout of the merge, recipe", "merged-recipe")
    checkout("git checkout of the merge, values", "merged-values")
    git(folder, "checkout", "-q", "--detach", "merged-recipe")
    moved(folder / NAME, list(spans(folder / NAME)), 7)
    git(folder, "commit", "-qam", "tuned")
    git(folder, "tag", "tuned")
    checkout("git checkout of a fine-tune of the merge", "tuned")
    shutil.rmtree(folder)


def turns(work: Path, source: Path, count: int, runs: int) -> None:
    """Merges and fine-tunes in turn."""
    folder = branches(work, source, collide=True)
    names = list(spans(source))
    os.environ["GIT_THETA_MERGE"] = "average"
    git(folder, "branch", "-f", "first", "main")
    for turn in range(count):
        git(folder, "merge", "-q", "--no-edit", "side")
        git(folder, "checkout", "-q", "side")
        git(folder, "reset", "-q", "--hard", "main")
        for seed, branch in enumerate(("side", "main")):
            git(folder, "checkout", "-q", branch)
            moved(folder / NAME, names, 100 + 2 * turn + seed)
            git(folder, "commit", "-qam", f"{branch} {turn}")
    del os.environ["GIT_THETA_MERGE"]
    for what, commit in (("first", "first"), ("last", "main")):
        took = measured(
            folder, ["git", "checkout", "-q", "--detach", commit],
            lambda: git(folder, "checkout", "-q", "--detach", "refs/tags/start~1"), runs,
        )  # fmt: skip
        line(f"{count} merges and fine-tunes in turn: checkout of the {what}", took)
    print(f"all of it stores {stored(folder) / source.stat().st_size:.2f} models", flush=True)
    shutil.rmtree(folder)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--turns", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = work / "model.safetensors"
        write_model(source, max(args.megabytes, LEAST))
        merges(work, source, args.runs)
        if args.turns:
            turns(work, source, args.turns, args.runs)


if __name__ == "__main__":
    main()
