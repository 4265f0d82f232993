"""Merges with statistics, and newer methods without: over several seeds, with standard errors.

    python -m pip install git-theta-ext torch safetensors
    python benchmarks/with_statistics.py [--seeds 5] [--markdown FILE]

The networks and tasks are those of training.py; each seed trains a base and fine-tunes of its own.
Means over seeds of the accuracy over the merged tasks, in per cent, and the standard error of that
mean. *Adam* takes the second moments of the optimizer in place of the measured Fisher diagonal.
Three methods stand here only, to see whether they are worth a place among the strategies: RegMean++
(arXiv 2508.03121), TSV-M (arXiv 2412.00081), and Iso-C (arXiv 2502.04959). Where a method has a
scale, it is the one of SCALES that is best on 2,000 other examples.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from training import (
    Arrays,
    Batch,
    Case,
    Merger,
    Perceptron,
    Transformer,
    World,
    digits,
    fisher,
    gram,
    markdown,
    read,
    sequences,
    spread,
    train,
)

from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store

SCALES = (0.3, 0.5, 0.7, 1.0, 1.4)
ALPHA = 0.9
"""Of RegMean: what is left of a Gram matrix off its diagonal."""

Scores = dict[tuple[str, str], list[float]]
"""Accuracies by case and method, one for each seed."""


# -- methods that are no strategies ----------------------------------------------------------------


def tsv_m(updates: Sequence[np.ndarray]) -> np.ndarray:
    """The leading singular vectors of each update, made orthogonal to those of the others."""
    if updates[0].ndim != 2:
        return sum(updates) / len(updates)
    keep = max(1, min(updates[0].shape) // len(updates))
    parts = [np.linalg.svd(one.astype(np.float64), full_matrices=False) for one in updates]
    left = np.concatenate([u[:, :keep] for u, _, _ in parts], axis=1)
    right = np.concatenate([v[:keep] for _, _, v in parts], axis=0)
    sizes = np.concatenate([s[:keep] for _, s, _ in parts])
    (p, _, q), (r, _, t) = (np.linalg.svd(one, full_matrices=False) for one in (left, right))
    return (p @ q * sizes) @ (r @ t)


def iso_c(updates: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of all updates, with the mean of its singular values for each of them."""
    total = sum(updates)
    if total.ndim != 2:
        return total / len(updates)
    u, s, v = np.linalg.svd(total.astype(np.float64), full_matrices=False)
    return s.mean() * (u @ v)


def regmean_plus(world: World, case: Case, data: Sequence[Batch]) -> Arrays:
    """RegMean layer by layer, each on the inputs that the layers merged before give it."""
    merged = {n: np.mean([one[n] for one in case.sides], axis=0) for n in case.sides[0]}
    linear = [n for n, one in world.make().named_modules() if isinstance(one, nn.Linear)]
    for layer in linear:
        name, grams = f"{layer}.weight", []
        for x, _ in data:
            model, inputs = world.load(merged), []
            module = dict(model.named_modules())[layer]
            module.register_forward_pre_hook(lambda _, found, to=inputs: to.append(found[0]))
            with torch.no_grad():
                model(x[:500])
            rows = inputs[0].double().reshape(-1, inputs[0].shape[-1]).numpy()
            found = rows.T @ rows / len(rows)
            grams.append(ALPHA * found + (1 - ALPHA) * np.diag(np.diag(found)))
        total = sum(grams)
        total += 1e-6 * np.trace(total) / len(total) * np.eye(len(total))
        right = sum(g @ one[name].T for g, one in zip(grams, case.sides, strict=True))
        merged[name] = np.linalg.solve(total, right).T.astype(np.float32)
    return merged


# -- one seed --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tuned:
    """Fine-tunes to merge, with what Adam kept of each and the data of each."""

    case: Case
    moments: tuple[Arrays, ...]
    data: tuple[Batch, ...]


def made(world: World, seed: int) -> tuple[Arrays, list[Tuned]]:
    """The base, and fine-tunes of it."""
    sets = {task: world.data(task, 3000, 1 + 10 * seed) for task in (1, 2, 3)}
    mixed = [world.data(task, 1500, 5 + 10 * seed) for task in range(4)]
    base = train(world, None, mixed, world.base_steps, "full", seed=3 + seed)

    def tuned(data: Batch) -> tuple[Arrays, Arrays, Batch]:
        moments: Arrays = {}
        side = train(world, base, [data], world.steps, "full", seed=3 + seed, moments=moments)
        return side, moments, data

    full = [tuned(sets[task]) for task in (1, 2, 3)]
    halves = (slice(1500), slice(1500, None))
    shards = [tuned(tuple(one[half] for one in sets[1])) for half in halves]
    found = []
    for name, sides, tasks in (
        ("2 tasks", full[:2], (1, 2)), ("3 tasks", full, (1, 2, 3)), ("2 shards", shards, (1,)),
    ):  # fmt: skip
        arrays, moments, data = zip(*sides, strict=True)
        statistics = {
            "gram": tuple(gram(world, *one) for one in zip(arrays, data, strict=True)),
            "fisher": tuple(fisher(world, *one) for one in zip(arrays, data, strict=True)),
        }
        found.append(Tuned(Case(name, arrays, tasks, statistics), moments, data))
    return base, found


def methods(world: World, base: Arrays, tuned: Tuned, blocks: Blocks) -> dict[str, float]:
    """The accuracy of every method."""
    case = tuned.case
    adam = Case(case.name, case.sides, case.tasks, {"fisher": tuned.moments})

    def best(make: Callable[[float], Arrays]) -> Arrays:
        tried = [make(scale) for scale in SCALES]
        return max(tried, key=lambda one: world.accuracy(one, case.tasks, 998))

    def by(case: Case, choice: Choice) -> Arrays:
        return read(blocks, Merger(blocks, base, case)(choice).manifest)

    def added(combine: Callable[[Sequence[np.ndarray]], np.ndarray]) -> Arrays:
        sums = {n: combine([one[n] - base[n] for one in case.sides]) for n in base}
        return best(lambda scale: {n: (base[n] + scale * sums[n]).astype(np.float32) for n in base})

    def arithmetic(scale: float) -> Arrays:
        return by(case, Choice("task-arithmetic", (("lambda", scale),)))

    found = {
        "base": base,
        "best side": max(case.sides, key=lambda one: world.accuracy(one, case.tasks)),
        "average": by(case, Choice("average")),
        "karcher": by(case, Choice("karcher")),
        "task-arithmetic, lambda tuned": best(arithmetic),
        "fisher, measured": by(case, Choice("fisher")),
        "fisher, Adam": by(adam, Choice("fisher")),
        "regmean": by(case, Choice("regmean")),
        "RegMean++": regmean_plus(world, case, tuned.data),
        "TSV-M, scale tuned": added(tsv_m),
        "Iso-C, scale tuned": added(iso_c),
    }
    return {name: world.accuracy(one, case.tasks) for name, one in found.items()}


def rows_of(scores: Scores) -> list[list[str]]:
    """A row for each method, a cell for each case."""
    cases = list(dict.fromkeys(case for case, _ in scores))
    body = []
    for method in dict.fromkeys(method for _, method in scores):
        cells = []
        for case in cases:
            cells.append(spread([100 * one for one in scores[case, method]]))
        body.append([method, *cells])
    return [["", *cases], *body]


def main() -> None:
    """Train, merge, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", help="digits or sequences")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    text = []
    for world in (
        World("digits", Perceptron, digits, 150, 300, 3e-3),
        World("sequences", Transformer, sequences, 250, 300, 2e-3),
    ):
        if args.only not in (None, world.name):
            continue
        scores: Scores = {}
        for seed in range(args.seeds):
            work = Path(tempfile.mkdtemp(prefix="git-theta-statistics-"))
            base, found = made(world, seed)
            for tuned in found:
                values = methods(world, base, tuned, Blocks(Store(work)))
                for method, value in values.items():
                    scores.setdefault((tuned.case.name, method), []).append(value)
            shutil.rmtree(work)
            passed = time.monotonic() - start
            print(f"{world.name}: seed {seed} after {passed:.0f} s", file=sys.stderr, flush=True)
            if args.markdown:
                so_far = [*text, f"{world.name}\n\n{markdown(rows_of(scores))}\n"]
                Path(args.markdown).write_text("\n".join(so_far), "utf-8")
        text.append(f"{world.name}\n\n{markdown(rows_of(scores))}\n")
        print(text[-1], flush=True)


if __name__ == "__main__":
    main()
