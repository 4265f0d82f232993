#!/usr/bin/env python3
"""What typical changes of a model cost: its share of the raw file, found without being told.

    python benchmarks/updates.py [--quick] [--pair OLD.safetensors NEW.safetensors]

A model of six layers, 512 wide, is changed in memory as training methods change it; every tensor
goes through the same choice as on `git add`, is decoded again and compared bit for bit. The share
is that of all parameter files in the raw bytes of the new model; `goal` is what it should stay
below. `seconds` of processor time are those of finding and encoding; set OPENBLAS_NUM_THREADS=1.
`--quick` takes two layers. `--pair` adds two real checkpoints of one architecture.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.chain import decode_chain
from git_theta_ext.updates.choose import Predecessor, encode_block
from git_theta_ext.updates.parameter_file import parse

Model = dict[str, np.ndarray]
NUMPY: dict[str, Any] = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}
NAMES = {np.dtype(dtype): name for name, dtype in NUMPY.items()}
ATTENTION = ("query", "key", "value", "output")


# -- models and their changes ----------------------------------------------------------------------


def make_model(dtype: str, layers: int) -> Model:
    """Normally distributed weights, 0.02 wide; an embedding of 8000 rows."""
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"embedding": (8000, 512)}
    for layer in range(layers):
        for name in ATTENTION:
            shapes[f"{layer}.{name}"] = (512, 512)
        shapes[f"{layer}.up"], shapes[f"{layer}.down"] = (2048, 512), (512, 2048)
        shapes[f"{layer}.norm"] = (512,)
    return {
        name: (random.standard_normal(shape, np.float32) * 0.02).astype(NUMPY[dtype])
        for name, shape in shapes.items()
    }


def entries(model: Model, share: float, seed: int = 1) -> Model:
    """A share of all entries moved by half of their typical size."""
    random = np.random.default_rng(seed)
    changed = {}
    for name, old in model.items():
        new = old.ravel().copy()
        places = np.flatnonzero(random.random(new.size) < share)
        moved = new[places].astype(np.float32)
        new[places] = moved + 0.01 * random.standard_normal(len(places), np.float32)
        changed[name] = new.reshape(old.shape)
    return changed


def lora(model: Model, rank: int, ulps: float | None = None, seed: int = 2) -> Model:
    """A merged product on every attention matrix: 1 % of the weights, or so many median ulps."""
    random = np.random.default_rng(seed)
    changed = dict(model)
    for name, old in model.items():
        if name.split(".")[-1] not in ATTENTION:
            continue
        up = random.standard_normal((old.shape[0], rank), np.float32)
        step = up @ random.standard_normal((rank, old.shape[1]), np.float32)
        size = 0.01 * 0.02
        if ulps is not None:  # bf16: the ulp of the median weight, 0.0135, is 2^-14
            size = ulps * 2.0**-14 / 0.6745
        step *= np.float32(size / np.sqrt(rank))
        changed[name] = (old.astype(np.float32) + step).astype(old.dtype)
    return changed


def uneven(model: Model) -> Model:
    """A merged product whose sixteen directions differ in size, each 0.7 of the one before."""
    random = np.random.default_rng(7)
    sizes = np.float32(0.7) ** np.arange(16, dtype=np.float32)
    changed = dict(model)
    for name, old in model.items():
        if name.split(".")[-1] in ATTENTION:
            up = random.standard_normal((old.shape[0], 16), np.float32) * sizes
            step = up @ random.standard_normal((16, old.shape[1]), np.float32)
            step *= np.float32(1e-4)
            changed[name] = (old.astype(np.float32) + step).astype(old.dtype)
    return changed


def trained(model: Model, steps: int, seed: int) -> Model:
    """Every entry moved as Adam moves it in some steps whose gradients are noise."""
    random = np.random.default_rng(seed)
    size = np.float32(1e-4 * np.sqrt(steps))
    return {
        name: (old + size * random.standard_normal(old.shape, np.float32)).astype(old.dtype)
        for name, old in model.items()
    }


def rows(model: Model, count: int) -> Model:
    """A few rows of the embedding trained."""
    random = np.random.default_rng(3)
    new = model["embedding"].copy()
    places = np.arange(count) * (len(new) // count)
    new[places] += np.float32(0.003) * random.standard_normal((count, 512), np.float32)
    return {**model, "embedding": new}


def tokens(model: Model, count: int) -> Model:
    """New tokens behind the others."""
    new = np.random.default_rng(4).standard_normal((count, 512), np.float32) * np.float32(0.02)
    old = model["embedding"]
    return {**model, "embedding": np.concatenate([old, new.astype(old.dtype)])}


def ia3(model: Model) -> Model:
    """Every projection's rows multiplied."""
    random = np.random.default_rng(5)
    changed = dict(model)
    for name, old in model.items():
        if old.ndim == 2 and name != "embedding":
            factors = 1 + 0.1 * random.standard_normal((len(old), 1), np.float32)
            changed[name] = (old.astype(np.float32) * factors).astype(old.dtype)
    return changed


def decayed(model: Model) -> Model:
    """Weight decay of a thousand steps, each rounded."""
    changed = {}
    for name, old in model.items():
        new = old.copy()
        for _ in range(1000):
            new -= np.float32(2e-5 * 0.01) * new
        changed[name] = new
    return changed


def retrained(model: Model) -> Model:
    """Other values altogether."""
    random = np.random.default_rng(6)
    return {
        name: (random.standard_normal(old.shape, np.float32) * 0.02).astype(old.dtype)
        for name, old in model.items()
    }


def cast(model: Model, dtype: str) -> Model:
    """An export to another dtype."""
    return {name: old.astype(NUMPY[dtype]) for name, old in model.items()}


# -- measuring -------------------------------------------------------------------------------------


@dataclass
class Stored:
    """One tensor in the store: what it is, and its chain."""

    spec: BlockSpec
    files: list[Encoded]

    def rebuild(self, count: int) -> Values:
        """The values after some of the chain's files."""
        return decode_chain(self.spec, [parse(b"".join(f.pieces)) for f in self.files[:count]])


def put(array: np.ndarray, before: Stored | None, used: Counter[str]) -> tuple[Stored, float]:
    """Choose, encode and check one tensor; the chain and the seconds of the choice alone."""
    spec = BlockSpec(DTYPES[NAMES[array.dtype]], array.shape)
    values = np.ascontiguousarray(array).reshape(-1).view(values_dtype(spec.dtype))
    predecessor = None
    if before is not None:
        old = {count: before.rebuild(count) for count in {1, len(before.files)}}
        if before.spec == spec and np.array_equal(old[len(before.files)], values):
            return before, 0.0
        chain = tuple(UpdateRef(f.kind, f"{n:064x}", f.nbytes) for n, f in enumerate(before.files))
        predecessor = Predecessor(chain, before.spec, lambda count: old[count].copy())
    start = time.process_time()
    choice = encode_block(spec, values, predecessor)
    seconds = time.process_time() - start
    kept = before.files[: choice.keep] if before is not None else []
    stored = Stored(spec, [*kept, *filter(None, [choice.encoded])])
    if stored.rebuild(len(stored.files)).tobytes() != values.tobytes():
        raise SystemExit("a tensor did not come back bit for bit")
    if choice.encoded is not None:
        used[choice.encoded.kind] += choice.encoded.nbytes
    return stored, seconds


def store(model: Model) -> dict[str, Stored]:
    """The first version of a model."""
    return {name: put(array, None, Counter())[0] for name, array in model.items()}


def measure(old: Model, new: Model) -> tuple[float, float, str]:
    """The share of the raw bytes, the seconds, and which kinds of update were taken."""
    used: Counter[str] = Counter()
    seconds = 0.0
    for name, array in new.items():
        before = put(old[name], None, Counter())[0] if name in old else None
        seconds += put(array, before, used)[1]
    raw = sum(array.nbytes for array in new.values())
    return sum(used.values()) / raw, seconds, ", ".join(sorted(used))


def history(model: Model, commits: int) -> tuple[float, float, str]:
    """Sparse and low-rank changes by turns, each on the last; the share of all versions."""
    used: Counter[str] = Counter()
    stored, seconds = store(model), 0.0
    total = sum(chain.files[0].nbytes for chain in stored.values())
    for commit in range(commits):
        turn = entries(model, 0.002, commit) if commit % 2 else lora(model, 4, seed=commit)
        for name, array in turn.items():
            if array.tobytes() != model[name].tobytes():
                stored[name], took = put(array, stored[name], used)
                seconds += took
        model = turn
    raw = sum(array.nbytes for array in model.values())
    return (total + sum(used.values())) / raw, seconds, ", ".join(sorted(used))


def kept(model: Model, dtype: str) -> Model:
    """The numbers in half the precision, kept in float32: many checkpoints were made so."""
    return {name: array.astype(NUMPY[dtype]).astype(np.float32) for name, array in model.items()}


def run(model: Model, checkpoints: int) -> tuple[float, float, str]:
    """Consecutive checkpoints of one training run; the mean share of those after the first."""
    used: Counter[str] = Counter()
    stored, seconds = store(model), 0.0
    for number in range(checkpoints):
        model = trained(model, 10, number)
        for name, array in model.items():
            stored[name], took = put(array, stored[name], used)
            seconds += took
    raw = sum(array.nbytes for array in model.values())
    return sum(used.values()) / raw / checkpoints, seconds, ", ".join(sorted(used))


def read(path: Path) -> Model:
    """The tensors of a safetensors file."""
    from safetensors.numpy import load_file

    return {name: array for name, array in load_file(path).items() if array.dtype in NAMES}


Case = tuple[str, Callable[[], tuple[float, float, str]], float | None]


def cases(layers: int, commits: int) -> Iterator[Case]:
    """What is measured, and the share that it should stay below with six layers."""
    models = {dtype: make_model(dtype, layers) for dtype in NUMPY}
    fp32, bf16, fp16 = models["F32"], models["BF16"], models["F16"]
    yield "0.1 % of entries, fp32", lambda: measure(fp32, entries(fp32, 0.001)), 0.00145
    yield "1 % of entries, bf16", lambda: measure(bf16, entries(bf16, 0.01)), 0.0125
    yield "20 rows of the embedding, fp32", lambda: measure(fp32, rows(fp32, 20)), 0.0004
    yield "8 new tokens, fp32", lambda: measure(fp32, tokens(fp32, 8)), 0.0002
    for dtype, share in (("F32", 0.0105), ("BF16", 0.0112), ("F16", 0.0126)):
        model = models[dtype]
        yield f"LoRA rank 8, {dtype}", partial(lambda m: measure(m, lora(m, 8)), model), share
    yield "LoRA rank 8, 0.3 ulp, bf16", lambda: measure(bf16, lora(bf16, 8, 0.3)), 0.012
    for dtype, share in (("F32", 0.017), ("BF16", 0.0145)):
        model = models[dtype]
        yield f"rank 16, unequal, {dtype}", partial(lambda m: measure(m, uneven(m)), model), share
    sparse = lora(entries(fp32, 0.001), 8)
    yield "LoRA rank 8 and 0.1 % of entries, fp32", lambda: measure(fp32, sparse), None
    yield "IA3 everywhere, fp32", lambda: measure(fp32, ia3(fp32)), 0.0014
    yield "IA3 everywhere, bf16", lambda: measure(bf16, ia3(bf16)), 0.0028
    yield "IA3 everywhere, fp16", lambda: measure(fp16, ia3(fp16)), 0.0028
    yield "weight decay, fp32", lambda: measure(fp32, decayed(fp32)), None
    yield "fp32 to bf16", lambda: measure(fp32, cast(fp32, "BF16")), 0.0004
    yield "retrained, fp32", lambda: measure(fp32, retrained(fp32)), None
    yield "the same without a predecessor", lambda: measure({}, retrained(fp32)), None
    yield "retrained, bf16", lambda: measure(bf16, retrained(bf16)), None
    yield "the same without a predecessor", lambda: measure({}, retrained(bf16)), None
    yield "5 checkpoints of one run, fp32", lambda: run(fp32, 5), None
    following = trained(fp32, 100, 77)
    for dtype in ("F16", "BF16"):
        pair = [kept(one, dtype) for one in (fp32, following)]
        yield f"the next of one run, {dtype} kept in fp32", partial(measure, *pair), None
    yield f"{commits} sparse and LoRA commits, fp32", lambda: history(fp32, commits), 1.8


def main() -> None:
    """Measure every case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two layers, six commits")
    parser.add_argument("--pair", nargs=2, type=Path, metavar="FILE", help="old and new checkpoint")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    arguments = parser.parse_args()
    chosen = list(cases(2, 6) if arguments.quick else cases(6, 30))
    if arguments.pair:
        old, new = (read(path) for path in arguments.pair)
        chosen.append((arguments.pair[1].name, lambda: measure(old, new), None))
    print(f"{'change':<40}{'share':>10}{'goal':>10}{'seconds':>9}  kinds")
    for name, measured, goal in chosen:
        if arguments.only not in name:
            continue
        share, seconds, used = measured()
        wanted = "" if goal is None else f"{goal:.5f}"
        print(f"{name:<40}{share:>10.5f}{wanted:>10}{seconds:>9.2f}  {used}", flush=True)


if __name__ == "__main__":
    main()
