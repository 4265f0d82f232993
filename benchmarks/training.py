"""Merge small models that were really trained, by every strategy, and print how well they do.

    python -m pip install git-theta-ext torch safetensors
    python benchmarks/training.py [--mergekit PYTHON] [--markdown FILE]

A base and fine-tunes of it (two and three tasks, two halves of one task's data; full, LoRA,
sparse) of two networks, a perceptron with BatchNorm that reads digits and a small transformer that
continues sequences, are trained in about a minute on two cores. The fine-tunes are merged by this
package's own functions; accuracies are means over the merged tasks, in per cent, of examples that
nobody was trained on. `--mergekit` names a Python that has mergekit (`pip install mergekit`, best
in a virtual environment of its own); its numbers stand beside ours where it implements the method.
`tune` is what `git theta merge --tune` takes after its evaluations, here of 2,000 other examples.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import DTYPES, TensorInfo, cut
from git_theta_ext.core.values import values_dtype
from git_theta_ext.formats import safetensors
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.merge.branches.tune import Contest, Score, judge, tune
from git_theta_ext.merge.combine.apply import Merged, merge
from git_theta_ext.merge.combine.several import merge_several
from git_theta_ext.merge.strategies import collect_statistics
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store

Arrays = dict[str, NDArray[Any]]
Batch = tuple[Tensor, Tensor]

CANDIDATES = [
    Choice("ours"), Choice("theirs"), Choice("average"), Choice("reapply"), Choice("slerp"),
    Choice("karcher"), Choice("model-stock"), Choice("fisher"), Choice("regmean"), Choice("sce"),
    Choice("sce", (("density", 0.5),)),
    *(Choice("task-arithmetic", (("lambda", x),)) for x in (0.3, 0.5, 0.7, 0.85, 1.0)),
    *(Choice("ties", (("density", x),)) for x in (0.2, 0.5, 0.8, 1.0)),
    *(Choice("dare-linear", (("density", x),)) for x in (0.5, 0.8)),
    *(Choice("dare-ties", (("density", x),)) for x in (0.5, 0.8)),
    Choice("della"), Choice("breadcrumbs"), Choice("breadcrumbs", (("density", 0.5),)),
    Choice("ties", (("density", 0.5), ("lambda", 0.7))),
    Choice("della", (("density", 0.8),)),
]  # fmt: skip
"""29 of them; those that need two sides are left out where there are three."""


# -- networks and tasks ----------------------------------------------------------------------------

_FONT = (
    "01110100011001110101110011000101110", "00100011000010000100001000010001110",
    "01110100010000100010001000100011111", "11111000100010000010000011000101110",
    "00010001100101010010111110001000010", "11111100001111000001000011000101110",
    "00110010001000011110100011000101110", "11111000010001000100010000100001000",
    "01110100011000101110100011000101110", "01110100011000101111000010001001100",
)  # fmt: skip
"""Ten digits, five by seven."""


def digits(task: int, count: int, seed: int) -> Batch:
    """Noisy digits somewhere on a field of ten by ten; every task turns or mirrors them its way."""
    random = torch.Generator().manual_seed(1000 * task + seed)
    labels = torch.randint(10, (count,), generator=random)
    glyphs = torch.tensor([[int(bit) for bit in text] for text in _FONT]).float().view(10, 7, 5)
    images = torch.zeros(count, 10, 10)
    for number, label in enumerate(labels.tolist()):
        y, x = torch.randint(0, 3, (2,), generator=random).tolist()
        images[number, y : y + 7, x : x + 5] = glyphs[label]
    turned = (images, images.flip(2), images.transpose(1, 2), images.flip(1))[task]
    noise = 0.35 * torch.randn(turned.shape, generator=random)
    return (turned + noise).reshape(count, 100), labels


SYMBOLS, LENGTH = 24, 16


def sequences(task: int, count: int, seed: int) -> Batch:
    """Sequences of a language: every symbol has a usual successor (nine times in ten)."""
    rules = torch.randperm(SYMBOLS, generator=torch.Generator().manual_seed(77 + task))
    random = torch.Generator().manual_seed(1000 * task + seed)
    found = torch.randint(SYMBOLS, (count, LENGTH + 1), generator=random)
    usual = torch.rand((count, LENGTH), generator=random) < 0.9
    for place in range(LENGTH):
        found[:, place + 1] = torch.where(
            usual[:, place], rules[found[:, place]], found[:, place + 1]
        )
    return found[:, :-1], found[:, 1:]


class Perceptron(nn.Module):
    """Three layers with BatchNorm between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Linear(100, 96), nn.BatchNorm1d(96)
        self.second, self.norm2 = nn.Linear(96, 96), nn.BatchNorm1d(96)
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.first(x)))
        return self.head(torch.relu(self.norm2(self.second(x))))


class Layer(nn.Module):
    """Attention to what came before, and a perceptron."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm1(x)
        heads = [f(seen).unflatten(2, (4, -1)).transpose(1, 2) for f in
                 (self.query, self.key, self.value)]  # fmt: skip
        mixed = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(torch.relu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Two layers over embedded symbols."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, width)
        self.place = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.layers = nn.ModuleList([Layer(width), Layer(width)])
        self.head = nn.Linear(width, SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.head(x).transpose(1, 2)


@dataclass
class World:
    """One network, its data, and how long it is trained."""

    name: str
    make: Callable[[], nn.Module]
    data: Callable[[int, int, int], Batch]
    base_steps: int
    steps: int
    rate: float
    held: dict[tuple[int, int], Batch] = field(default_factory=dict)

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> nn.Module:
        """The network with these tensors."""
        made = self.make()
        made.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()},
                             strict=False)  # fmt: skip
        return made.eval()

    def accuracy(self, arrays: Arrays, tasks: Sequence[int], seed: int = 999) -> float:
        """The mean accuracy over tasks, on 2,000 examples that nobody was trained on."""
        model = self.load(arrays)
        found = []
        with torch.no_grad():
            for task in tasks:
                if (task, seed) not in self.held:
                    self.held[task, seed] = self.data(task, 2000, seed)
                x, y = self.held[task, seed]
                found.append(float((model(x).argmax(1) == y).float().mean()))
        return sum(found) / len(found)


def arrays_of(model: nn.Module) -> Arrays:
    """The tensors of a network, without its counters."""
    return {
        name: value.detach().numpy().copy()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


# -- training --------------------------------------------------------------------------------------


def train(
    world: World,
    start: Arrays | None,
    data: Sequence[Batch],
    steps: int,
    how: str,
    *,
    seed: int = 3,
    moments: Arrays | None = None,
) -> Arrays:
    """Train all weights, a LoRA of rank four on the matrices, or one entry in twenty.

    `moments` gets Adam's second moments, without the bias of their zero start.
    """
    torch.manual_seed(seed)
    model = world.make()
    if start is not None:
        model = world.load(start)
    model.train()
    weights = dict(model.named_parameters())
    wide = [name for name, value in weights.items() if value.ndim == 2]
    masks = {name: (torch.rand(value.shape) < 0.05).float() for name, value in weights.items()}
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    trained = list(weights.values())
    if how == "lora":
        for name in wide:
            rows, columns = weights[name].shape
            factors[name] = (
                torch.zeros(rows, 4, requires_grad=True),
                (torch.randn(4, columns) / math.sqrt(columns)).requires_grad_(),
            )
        trained = [one for pair in factors.values() for one in pair]
    rate = world.rate * (3 if how == "sparse" else 1)
    optimizer = torch.optim.Adam(trained, lr=rate, weight_decay=0.0)
    for step in range(steps):
        x, y = data[step % len(data)]
        at = torch.randint(len(x), (64,))
        state = {n: weights[n] + a @ b for n, (a, b) in factors.items()}
        output = torch.func.functional_call(model, state, (x[at],))
        optimizer.zero_grad()
        nn.functional.cross_entropy(output, y[at]).backward()
        if how == "sparse":
            for name, value in weights.items():
                if value.grad is not None:
                    value.grad *= masks[name]
        optimizer.step()
    if moments is not None:
        for name, value in weights.items():
            state = optimizer.state[value]
            moments[name] = (state["exp_avg_sq"] / (1 - 0.999 ** float(state["step"]))).numpy()
    with torch.no_grad():
        for name, (a, b) in factors.items():
            weights[name] += a @ b
    return arrays_of(model)


@dataclass(frozen=True)
class Case:
    """Fine-tunes to merge: their tensors, the tasks that count, and what was measured on each."""

    name: str
    sides: tuple[Arrays, ...]
    tasks: tuple[int, ...]
    statistics: Mapping[str, tuple[Arrays, ...]]


def cases(world: World) -> tuple[Arrays, list[Case]]:
    """The base and all cases of one network."""
    sets = {task: world.data(task, 3000, 1) for task in range(4)}
    mixed = [world.data(task, 1500, 5) for task in range(4)]
    base = train(world, None, mixed, world.base_steps, "full")

    def tuned(task: int, how: str = "full", part: slice = slice(None)) -> Arrays:
        data = tuple(one[part] for one in sets[task])
        return train(world, base, [data], world.steps, how)

    full = [tuned(task) for task in (1, 2, 3)]
    shards = [tuned(1, part=part) for part in (slice(0, 1500), slice(1500, None))]
    found = [
        ("2 tasks", full[:2], (1, 2)), ("3 tasks", full, (1, 2, 3)), ("2 shards", shards, (1,)),
        ("LoRA", [tuned(1, "lora"), tuned(2, "lora")], (1, 2)),
        ("sparse", [tuned(1, "sparse"), tuned(2, "sparse")], (1, 2)),
    ]  # fmt: skip
    made = []
    for name, sides, tasks in found:
        own = [tasks[number % len(tasks)] for number in range(len(sides))]
        pairs = list(zip(sides, own, strict=True))
        statistics = {
            "gram": tuple(gram(world, side, sets[task]) for side, task in pairs),
            "fisher": tuple(fisher(world, side, sets[task]) for side, task in pairs),
        }
        made.append(Case(name, tuple(sides), tasks, statistics))
    return base, made


def gram(world: World, arrays: Arrays, data: Batch) -> Arrays:
    """The Gram matrices of a fine-tune's linear layers, on 500 examples."""
    return collect_statistics.gram(world.load(arrays), [data[0][:500]], lambda model, x: model(x))


def fisher(world: World, arrays: Arrays, data: Batch) -> Arrays:
    """The Fisher diagonal of a fine-tune, on 150 examples one by one."""
    batches = [tuple(one[n : n + 1] for one in data) for n in range(150)]

    def loss(model: Any, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    return collect_statistics.fisher(world.load(arrays), batches, loss)


# -- merging by this package -----------------------------------------------------------------------


def manifest(blocks: Blocks, arrays: Arrays) -> Manifest:
    """A float32 checkpoint in a store."""
    infos = {name: TensorInfo(name, DTYPES["F32"], value.shape) for name, value in arrays.items()}
    entries = []
    for name in sorted(infos, key=natural_key):
        (spec,) = cut(infos[name])
        raw = np.ascontiguousarray(arrays[name]).reshape(-1).view(values_dtype(spec.dtype))
        entries.append(Entry(infos[name], (blocks.write(spec, raw),)))
    block = blocks.write_bytes(skeleton.encode(safetensors.build(infos)))
    return Manifest(safetensors.NAME, block, tuple(entries))


def read(blocks: Blocks, version: Manifest) -> Arrays:
    """The tensors of a checkpoint in a store."""
    found = {}
    for entry in version.entries:
        (spec,) = cut(entry.tensor)
        raw = blocks.read(spec, entry.blocks[0])
        found[entry.tensor.name] = raw.view(np.float32).reshape(entry.tensor.shape)
    return found


class Merger:
    """The versions of a case in a store, merged by any strategy."""

    def __init__(self, blocks: Blocks, base: Arrays, case: Case) -> None:
        self.blocks, self._case = blocks, case
        self.base = manifest(blocks, base)
        self.sides = [manifest(blocks, side) for side in case.sides]

    def _statistics(self, kind: str, name: str) -> tuple[NDArray[Any] | None, ...]:
        return tuple(one.get(name) for one in self._case.statistics[kind])

    def __call__(self, choice: Choice) -> Merged:
        def choose(name: str) -> Choice:
            return choice

        if len(self.sides) > 2:
            return merge_several(
                self.base, self.sides, self.blocks, choose, statistics=self._statistics
            )
        return merge(self.base, *self.sides, self.blocks, choose, statistics=self._statistics)


def ours(world: World, base: Arrays, case: Case, blocks: Blocks) -> dict[str, float]:
    """The accuracy of the base, of each side, of every candidate, and of what tuning takes."""
    merger = Merger(blocks, base, case)
    found = {"base": world.accuracy(base, case.tasks)}
    found["best side"] = max(world.accuracy(side, case.tasks) for side in case.sides)
    for choice in CANDIDATES:
        merged = merger(choice)
        if not merged.open:
            found[str(choice)] = world.accuracy(read(blocks, merged.manifest), case.tasks)
    sides = {f"side {number}": one for number, one in enumerate(merger.sides, 1)}
    measured = ("regmean", "fisher")
    contest = Contest(
        "m.safetensors", merger.base, sides, lambda one: merger(one).manifest, measured
    )

    def evaluate(path: Path) -> Score:
        return Score(world.accuracy(load_file(path), case.tasks, 998), 2000 * len(case.tasks))

    verdict = judge(list(tune(contest, blocks, evaluate)))
    best = verdict.best if verdict.worth_it else verdict.without
    taken = merger(best.choice).manifest if best.choice else sides[best.label]
    found["tune"] = world.accuracy(read(blocks, taken), case.tasks)
    return found


# -- merging by mergekit ---------------------------------------------------------------------------

_THEIRS: dict[str, tuple[str, dict[str, float]]] = {
    "average": ("linear", {"weight": 1.0}),
    "task-arithmetic,lambda=0.5": ("task_arithmetic", {"weight": 0.5}),
    "task-arithmetic,lambda=1": ("task_arithmetic", {"weight": 1.0}),
    "ties,density=0.5": ("ties", {"weight": 1.0, "density": 0.5}),
    "dare-linear,density=0.5": ("dare_linear", {"weight": 1.0, "density": 0.5}),
    "dare-ties,density=0.5": ("dare_ties", {"weight": 1.0, "density": 0.5}),
    "della": ("della", {"weight": 1.0, "density": 0.5, "epsilon": 0.1}),
    "breadcrumbs": ("breadcrumbs", {"weight": 1.0, "density": 0.9, "gamma": 0.01}),
    "slerp": ("slerp", {}),
    "karcher": ("karcher", {}),
    "sce": ("sce", {"select_topk": 1.0}),
    "model-stock": ("model_stock", {}),
}
"""Our candidate -> mergekit's method and its parameters for every model."""

KIT = """
import json, logging, sys
logging.disable(logging.CRITICAL)
from mergekit.graph import Executor
from mergekit.options import MergeOptions
from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig, plan_flat_merge
for config, target in json.load(open(sys.argv[1])):
    options = MergeOptions(random_seed=0, quiet=True, safe_serialization=True)
    options.apply_global_options()
    try:
        made = RawPyTorchMergeConfig.model_validate(config)
        tasks = plan_flat_merge(made, target, False, False, options)
        Executor(tasks, math_device="cpu", storage_device="cpu").execute()
    except Exception as error:
        print("failed:", config["merge_method"], repr(error)[:200], file=sys.stderr)
"""


def kit_config(method: str, settings: Mapping[str, float], names: Sequence[str]) -> dict[str, Any]:
    """mergekit's configuration of one merge; `names` are files, the base's first."""
    config: dict[str, Any] = {"merge_method": method, "dtype": "float32"}
    each = {key: value for key, value in settings.items() if key != "select_topk"}
    config["models"] = [{"model": name, "parameters": each} for name in names[1:]]
    if method == "slerp":
        config["base_model"], config["parameters"] = names[1], {"t": 0.5}
        config["models"] = [{"model": name} for name in names[1:]]
    elif method not in ("linear", "karcher"):
        config["base_model"] = names[0]
    if "select_topk" in settings:
        config["parameters"] = {"select_topk": settings["select_topk"]}
    return config


def theirs(
    python: str, work: Path, world: World, base: Arrays, found: Sequence[Case]
) -> dict[str, dict[str, float]]:
    """mergekit's accuracies, by case and by the name of our candidate."""
    jobs, places = [], {}
    for case in found:
        names = []
        for number, arrays in enumerate((base, *case.sides)):
            folder = work / world.name / case.name.replace(" ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            save_file(arrays, folder / f"{number}.safetensors", {"format": "pt"})
            names.append(str(folder / f"{number}.safetensors"))
        for label, (method, settings) in _THEIRS.items():
            if method == "slerp" and len(case.sides) > 2:
                continue
            target = work / world.name / case.name.replace(" ", "-") / f"out-{label}"
            jobs.append((kit_config(method, settings, names), str(target)))
            places[case.name, label] = (target, case)
    (work / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [python, "-c", KIT, str(work / "jobs.json")], capture_output=True, check=False, text=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("failed:")]
    if done.returncode:
        lines += done.stderr.splitlines()[-1:]
    for line in dict.fromkeys(lines):
        print(f"mergekit: {line}", file=sys.stderr)
    scores: dict[str, dict[str, float]] = {}
    for (name, label), (target, case) in places.items():
        file = target / "model.safetensors"
        if not file.exists():
            file = next(iter(sorted(target.glob("*.safetensors"))), file)
        if file.exists():
            row = scores.setdefault(name, {})
            row[label] = world.accuracy(load_file(file), case.tasks)
    return scores


# -- the table -------------------------------------------------------------------------------------


def rows_of(
    results: Mapping[str, Mapping[str, float]], kit: Mapping[str, Mapping[str, float]]
) -> list[list[str]]:
    """A row for each candidate, a cell for each case: ours, and mergekit's behind a slash."""
    labels = list(dict.fromkeys(label for row in results.values() for label in row))
    head = ["", *results]
    body = []
    for label in labels:
        cells = []
        for name, row in results.items():
            text = f"{100 * row[label]:.0f}" if label in row else "–"
            other = kit.get(name, {}).get(label)
            cells.append(text if other is None else f"{text} / {100 * other:.0f}")
        body.append([label, *cells])
    regrets = [f"{100 * _regret(row):.1f}" for row in results.values()]
    return [head, *body, ["best of all − tune", *regrets]]


def _regret(row: Mapping[str, float]) -> float:
    best = max(value for label, value in row.items() if label != "tune")
    return best - row["tune"]


def spread(values: Sequence[float]) -> str:
    """A mean and its standard error."""
    found = np.array(values)
    error = found.std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else float("nan")
    return f"{found.mean():.1f} ± {error:.1f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join(lines)


def main() -> None:
    """Train, merge, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mergekit", metavar="PYTHON", help="a Python with mergekit")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there too")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the tensors are small: a second thread only waits
    start = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="git-theta-training-"))
    text = []
    worlds = [
        World("digits", Perceptron, digits, 150, 300, 3e-3),
        World("sequences", Transformer, sequences, 250, 300, 2e-3),
    ]
    for world in worlds:
        base, found = cases(world)
        print(f"{world.name}: trained after {time.monotonic() - start:.0f} s", file=sys.stderr)
        blocks = Blocks(Store(work / f"store-{world.name}"))
        results = {case.name: ours(world, base, case, blocks) for case in found}
        print(f"{world.name}: merged after {time.monotonic() - start:.0f} s", file=sys.stderr)
        kit = theirs(args.mergekit, work, world, base, found) if args.mergekit else {}
        text.append(f"{world.name}\n\n{markdown(rows_of(results, kit))}\n")
        print(text[-1])
    shutil.rmtree(work)
    if args.mergekit is None:
        print("mergekit was not asked: --mergekit PYTHON")
    print(f"{len(CANDIDATES)} candidates; {time.monotonic() - start:.0f} s in all")
    if args.markdown:
        Path(args.markdown).write_text("\n".join(text), "utf-8")


if __name__ == "__main__":
    main()
