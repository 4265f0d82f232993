#!/usr/bin/env python3
"""Gates: how often they are wrong, what they find, and how long a check takes.

    python benchmarks/gates.py errors [--repetitions 2000]
    python benchmarks/gates.py check [--tasks 20] [--examples 10000] [--runs 5]

*errors* draws two versions that answer the same examples and are equally hard for both, with a
true difference that is known, and counts how often a gate refuses. Beside the paired test stands
what two standard errors say of the same draws. *check* times `git theta check` in a repository
where base and branch are measured on all examples of all tasks.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from git_theta_ext.evaluation.config import parse
from git_theta_ext.evaluation.gates.compare import Difference, compare, holm
from git_theta_ext.evaluation.results import Examples, Score

EXAMPLES = 500
ACCURACY = 0.8
DIFFER = 0.1
"""Share of the examples on which two versions differ by chance, as often one way as the other."""


def pair(rng: np.random.Generator, n: int, drop: float) -> tuple[Score, Score]:
    """Two versions, the second of which is worse by `drop`, on the same n examples."""
    lost, won = (DIFFER + drop) / 2, (DIFFER - drop) / 2
    kind = rng.choice(4, n, p=[ACCURACY - lost, lost, won, 1 - ACCURACY - won])
    outcomes = np.isin(kind, (0, 1)), np.isin(kind, (0, 2))
    return tuple(_score(one.astype(float)) for one in outcomes)  # type: ignore[return-value]


def scores(rng: np.random.Generator, n: int, drop: float) -> tuple[Score, Score]:
    """The same with real scores, such as a text's overlap with the right one; skewed."""
    base = rng.beta(4, 1, n)
    update = np.clip(base + rng.normal(0, 0.1, n), 0, None)
    update += base.mean() - drop - update.mean() + rng.normal(0, 0.1 / np.sqrt(n))
    return _score(base, real=True), _score(update, real=True)


def _score(values: np.ndarray, real: bool = False) -> Score:
    kind = "real" if real else "right"
    packed = values.astype("<f8") if real else np.packbits(values == 1)
    examples = Examples("0" * 64, kind, values.size, packed.tobytes())  # type: ignore[arg-type]
    metric = "f1" if real else "acc"
    return Score("t", metric, float(values.mean()), ids_hash="0" * 64, examples=examples,
                 count=values.size)  # fmt: skip


def unpaired(old: Score, new: Score) -> Difference:
    """What is left of two scores without their examples: standard errors."""
    plain = (replace(one, stderr=one.error, examples=None, ids_hash=None, count=None)
             for one in (old, new))  # fmt: skip
    return compare(*plain)


def errors(repetitions: int) -> Iterator[str]:
    """The rows of docs/gates.md."""
    yield f"{repetitions:,} repetitions of {EXAMPLES} examples, confidence 95 %"
    yield "what is true                          rule               paired  unpaired"
    cases = [
        ("no difference", pair, 0.0, 0.0, False),
        ("no difference", pair, 0.0, 0.01, False),
        ("no difference, real scores", scores, 0.0, 0.0, False),
        ("a drop of 0.01, as allowed", pair, 0.01, 0.01, False),
        ("a drop of 0.03", pair, 0.03, 0.0, False),
        ("a drop of 0.04", pair, 0.04, 0.01, False),
        ("a drop of 0.03, prove", pair, 0.03, 0.03, True),
        ("no difference, prove", pair, 0.0, 0.03, True),
    ]
    for label, draw, drop, allowed, prove in cases:
        found = [0, 0]
        rng = np.random.default_rng(1)
        for _ in range(repetitions):
            old, new = draw(rng, EXAMPLES, drop)
            for at, difference in enumerate((compare(old, new), unpaired(old, new))):
                test = difference.test
                p = test.at_most(-allowed) if prove else test.at_least(-allowed)
                found[at] += p < 0.05
        verb = "accepted" if prove else "refused"
        shares = "  ".join(f"{100 * one / repetitions:6.1f} %" for one in found)
        yield f"{label:36}  {f'max_drop {allowed:g}, {verb}':18}  {shares}"
    yield _twenty(repetitions // 4)


def _twenty(repetitions: int) -> str:
    """How often any of twenty gates refuses a harmless update, with and without correction."""
    rng = np.random.default_rng(2)
    found = [0, 0]
    for _ in range(repetitions):
        p = [compare(*pair(rng, EXAMPLES, 0.0)).test.at_least(0) for _ in range(20)]
        found[0] += min(holm(p)) < 0.05
        found[1] += min(p) < 0.05
    with_it, without = (100 * one / repetitions for one in found)
    return f"any of 20 gates, no difference: {with_it:.1f} % refused; uncorrected {without:.1f} %"


# -- the time that a check takes -------------------------------------------------------------------


def check(tasks: int, examples: int, runs: int) -> Iterator[str]:
    """Seconds of `git theta check`, the median of some runs, in processor time and by the clock."""
    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder)
        run(repo, "git", "init", "-q", "-b", "main")
        run(repo, "git", "config", "user.name", "Ada")
        run(repo, "git", "config", "user.email", "ada@example.org")
        theta(repo, "install", "--local")
        theta(repo, "track", "*.safetensors")
        text = '[[evaluation]]\nname = "e"\ncommand = "python evaluate.py {checkpoint}"\n'
        text += "".join(
            f'[[gate]]\nevaluation = "e"\ntask = "t{n}"\nmax_drop = 0.01\n' for n in range(tasks)
        )
        (repo / ".theta.toml").write_text(text)
        contents = []
        for number, branch in enumerate(("main", "update")):
            if number:
                run(repo, "git", "switch", "-q", "-c", branch)
            save_file({"w": np.full((64, 64), number, np.float32)}, repo / "model.safetensors")
            run(repo, "git", "add", "-A")
            run(repo, "git", "commit", "-q", "-m", branch)
            contents.append(_content(repo))
        _keep(repo, text, contents, tasks, examples)
        size = int(run(repo, "git", "count-objects", "-v").split("size: ")[1].split()[0])
        yield f"{tasks} tasks of {examples:,} examples, right or wrong; loose objects {size} KiB"
        clock, used = [], []
        for _ in range(runs):
            before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            theta(repo, "check", ok=(0, 1))
            clock.append(time.perf_counter() - begun)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        yield (f"git theta check: {statistics.median(clock):.2f} s by the clock, "
               f"{statistics.median(used):.2f} s of the processor")  # fmt: skip


def _content(repo: Path) -> str:
    from git_theta_ext.evaluation.content import content_of
    from git_theta_ext.manifest.text import parse_manifest

    blob = subprocess.run(["git", "cat-file", "blob", "HEAD:model.safetensors"], cwd=repo,
                          capture_output=True, check=True).stdout  # fmt: skip
    return content_of([parse_manifest(blob)])


def _keep(repo: Path, text: str, contents: list[str], tasks: int, examples: int) -> None:
    """Results of both versions, which differ in one example of a hundred."""
    from git_theta_ext.evaluation.kept import Kept
    from git_theta_ext.evaluation.results import Result
    from git_theta_ext.git.repository import Repository

    rng = np.random.default_rng(3)
    definition = parse(text.encode()).evaluations[0].definition
    base = rng.random((tasks, examples)) < ACCURACY
    for content, right in zip(contents, (base, base ^ (rng.random(base.shape) < 0.01)),
                              strict=True):  # fmt: skip
        found = tuple(replace(_score(one.astype(float)), task=f"t{n}") for n, one in
                      enumerate(right))  # fmt: skip
        kept = Result(content, "e", definition, None, None, "measured", "Ada", 1, "",
                      "model.safetensors", "a benchmark", found)  # fmt: skip
        Kept(Repository.discover(repo)).add([kept])


def run(folder: Path, *command: str, ok: tuple[int, ...] = (0,)) -> str:
    """What a command prints."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in ok:
        sys.exit(f"{command}: {done.returncode}\n{done.stderr}")
    return done.stdout


def theta(folder: Path, *arguments: str, ok: tuple[int, ...] = (0,)) -> str:
    """What `git theta` prints."""
    return run(folder, sys.executable, "-m", "git_theta_ext.cli.main", *arguments, ok=ok)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["errors", "check"])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    rows = (
        errors(args.repetitions) if args.what == "errors"
        else check(args.tasks, args.examples, args.runs)
    )  # fmt: skip
    for row in rows:
        print(row, flush=True)


if __name__ == "__main__":
    main()
