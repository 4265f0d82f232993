"""Models of 70 and 671 billion parameters, and what they take by what was measured.

Used by `benchmarks/scale.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

from git_theta_ext.core.tensors import DTYPES, TensorInfo, cut
from git_theta_ext.objects.cluster.client import BATCH_BYTES
from git_theta_ext.objects.storing import PACK_BELOW

GB = 1e9
CORES, MACHINES = 16, 16
DISK, NETWORK = 2e9, 1.25e9
"""Assumed: bytes a second of a disk, and of a machine through the network (10 Gbit/s)."""
BATCH = 100
"""Objects that git-lfs asks for in one request."""

NAMES = {
    "add": "first `git add`",
    "add, all changed": "`git add`, all values changed",
    "status": "`git status`, all touched",
    "checkout": "`git checkout` of the other version",
    "fsck": "`git theta fsck`, two versions",
    "merge": "`git theta merge`, average, without the checkout",
    "pull": "`git theta pull` of the result",
}
"""What is measured, and what it is called."""

TIMES = {"add": 2, "add, all changed": 2, "fsck": 2, "merge": 1, "pull": 2}
"""Steps that a cluster does, and how many tasks a block is for them."""


@dataclass(frozen=True)
class Kind:
    """An element type: its name in a file, NumPy's, and how far training moves a value."""

    name: str
    dtype: np.dtype[np.generic]
    step: float


BF16 = Kind("BF16", np.dtype(ml_dtypes.bfloat16), 2e-4)
FP8 = Kind("F8_E4M3", np.dtype(ml_dtypes.float8_e4m3fn), 2e-2)


@dataclass
class Model:
    """A checkpoint as the world has it."""

    name: str
    kind: Kind
    shards: int
    tensors: list[TensorInfo]
    nbytes: int = 0
    blocks: int = 0
    large: int = 0
    """Blocks whose parameter files do not share an object with others."""
    block: int = 0
    """Bytes of the most frequent large block."""

    def __post_init__(self) -> None:
        """Count what is to be counted."""
        self.nbytes = sum(one.nbytes for one in self.tensors)
        sizes = [spec.nbytes for one in self.tensors for spec in cut(one)]
        self.blocks = len(sizes)
        large = [size for size in sizes if size > PACK_BELOW]
        self.large, self.block = len(large), max(set(large), key=large.count)


def info(name: str, dtype: str, *shape: int) -> TensorInfo:
    """A tensor."""
    return TensorInfo(name, DTYPES[dtype], shape)


def llama() -> Model:
    """Llama 3 70B: 80 layers, 723 tensors, 30 shards."""
    hidden, inner, words = 8192, 28672, 128256
    found = [info("embed", "BF16", words, hidden), info("head", "BF16", words, hidden)]
    found.append(info("norm", "BF16", hidden))
    rows = [(hidden, hidden), (1024, hidden), (1024, hidden), (hidden, hidden),
            (inner, hidden), (inner, hidden), (hidden, inner), (hidden,), (hidden,)]  # fmt: skip
    found += [info(f"{n}.{k}", "BF16", *shape) for n in range(80) for k, shape in enumerate(rows)]
    return Model("70 B, bf16", BF16, 30, found)


def deepseek() -> Model:
    """DeepSeek-V3 in fp8: 62 layers with that of its MTP module, 59 of them of 257 experts.

    Each matrix has a table of scales, one for 128 × 128 values.
    """
    hidden, found = 7168, []

    def matrix(name: str, rows: int, columns: int) -> None:
        found.append(info(name, "F8_E4M3", rows, columns))
        found.append(info(f"{name}.scale", "F32", -(-rows // 128), -(-columns // 128)))

    for layer in range(62):
        for name, rows, columns in (("qa", 1536, hidden), ("qb", 24576, 1536), ("kva", 576, hidden),
                                    ("kvb", 32768, 512), ("o", hidden, 16384)):  # fmt: skip
            matrix(f"{layer}.{name}", rows, columns)
        found += [info(f"{layer}.norm{n}", "BF16", hidden) for n in range(4)]
        inner, experts = (18432, 1) if layer < 3 else (2048, 257)
        for expert in range(experts):
            matrix(f"{layer}.{expert}.gate", inner, hidden)
            matrix(f"{layer}.{expert}.up", inner, hidden)
            matrix(f"{layer}.{expert}.down", hidden, inner)
        if layer >= 3:
            found.append(info(f"{layer}.router", "BF16", 256, hidden))
    found += [info(f"words.{n}", "BF16", 129280, hidden) for n in range(4)]
    return Model("671 B, fp8", FP8, 163, found)


@dataclass
class Run:
    """What was measured on one checkpoint: seconds and peak memory of each step."""

    nbytes: int
    tensors: int
    seconds: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    """Bytes that a step added to the store."""
    manifest: int = 0
    objects: int = 0
    """Objects of the first version."""


def slope(runs: list[Run], step: str) -> float:
    """CPU seconds for each further byte."""
    one, two = runs
    return (two.seconds[step] - one.seconds[step]) / (two.nbytes - one.nbytes)


@dataclass(frozen=True)
class Step:
    """What a user does, and what each byte and each tensor of it takes.

    `serial` is the part of its seconds a byte that one process at each end of a pipe takes, and
    `budget` what is held at once, in `copies` of the blocks under way.
    """

    key: str
    byte: float
    tensor: float
    serial: float
    budget: int
    copies: int = 1

    def cpu(self, model: Model) -> float:
        """CPU seconds of all processes."""
        return self.byte * model.nbytes + self.tensor * len(model.tensors)

    def wall(self, model: Model) -> float:
        """Seconds on one machine, where its cores share the work under the budget of memory."""
        pipe, disk = self.serial * model.nbytes, model.nbytes / DISK
        shared = (self.cpu(model) - pipe) / self.at_once(model)
        return max(pipe, disk) + shared if pipe else max(shared, disk)

    def at_once(self, model: Model) -> int:
        """Blocks that are under way at once on one machine, each on a core."""
        return max(1, min(CORES, self.budget // (self.copies * model.block)))

    def by_cluster(self, model: Model, ratio: float, each: float) -> float:
        """Seconds on all machines: the pipe, then what is shared.

        That is as fast as it is computed, as files come through the network, or as tasks are handed
        out, whatever takes longest.

        Args:
            model: what is worked on.
            ratio: what the work takes there, of what it takes here.
            each: seconds from task to task, which nothing makes shorter.
        """
        alone = max(self.serial * model.nbytes, model.nbytes / NETWORK) if self.serial else 0.0
        work = max(0.0, self.cpu(model) - self.serial * model.nbytes) * ratio
        through = TIMES[self.key] * model.nbytes / (MACHINES * NETWORK)
        handed = TIMES[self.key] * model.nbytes / max(BATCH_BYTES, model.block) * each
        return alone + max(work / (MACHINES * CORES), through, handed)


def shown(seconds: float) -> str:
    """A duration to two digits."""
    for limit, unit, name in ((100, 1, "s"), (6000, 60, "min"), (math.inf, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if seconds < 10 * unit else 0}f} {name}"
    raise AssertionError


def table(rows: Iterable[list[str]]) -> str:
    """Rows as Markdown, the first one the head."""
    head, *rest = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


Found = dict[str, tuple[Model, list[Run], dict[str, Step]]]
"""Each model, by its name, with what was measured of its element type."""


def projected(found: Found, ratio: float, each: float) -> str:
    """What each step takes for each model."""
    columns = ("CPU", f"{CORES} cores", f"{MACHINES} machines")
    rows = [["step", *(f"{name}: {what}" for name in found for what in columns)]]
    for key, name in NAMES.items():
        row = [name]
        for model, _, steps in found.values():
            if key not in steps:
                row += ["", "", ""]
                continue
            step = steps[key]
            there = shown(step.by_cluster(model, ratio, each)) if key in TIMES else "as here"
            row += [shown(step.cpu(model)), shown(step.wall(model)), there]
        rows.append(row)
    return table(rows)


def measured(found: Found, small: list[Run]) -> str:
    """The slopes, and the largest process of each step."""
    names = [model.kind.name for model, _, _ in found.values()]
    of = [f"{run.nbytes >> 20}" for run in next(iter(found.values()))[1]]
    rows = [["step", *(f"{name}: s a GB" for name in names), "ms a tensor",
             *(f"{name}: peak MB of {' and '.join(of)} MB" for name in names),
             f"peak MB of {' and '.join(str(run.tensors) for run in small)} tensors"]]  # fmt: skip
    for key, name in NAMES.items():
        there = [(runs, steps[key]) if key in steps else None for _, runs, steps in found.values()]
        row = [name, *("" if one is None else f"{GB * one[1].byte:.2f}" for one in there)]
        row.append(f"{1000 * max(one[1].tensor for one in there if one is not None):.2f}")
        row += ["" if one is None else " · ".join(f"{run.megabytes[key]:.0f}" for run in one[0])
                for one in there]  # fmt: skip
        rows.append([*row, " · ".join(f"{run.megabytes[key]:.0f}" for run in small)])
    return table(rows)


def sizes(found: Found, small: list[Run]) -> str:
    """What is stored and sent."""
    one, two = small
    objects = (two.objects - one.objects) / (two.tensors - one.tensors)
    line = (two.manifest - one.manifest) / (two.tensors - one.tensors)
    columns = []
    for model, runs, _ in found.values():
        last = runs[-1]
        first, changed = (last.stored[key] / last.nbytes for key in ("add", "add, all changed"))
        count = model.large + math.ceil((model.blocks - model.large) * objects)
        text = line * max(model.blocks, len(model.tensors))
        columns.append({
            "bytes": f"{model.nbytes / GB:,.0f} GB",
            "tensors, shards": f"{len(model.tensors):,}, {model.shards}",
            "blocks": f"{model.blocks:,}",
            "objects of the first version": f"{count:,}",
            "stored for it": f"{first * model.nbytes / GB:,.0f} GB",
            "stored for the next one, all values changed": f"{changed * model.nbytes / GB:,.0f} GB",
            "requests to an LFS server": f"{math.ceil(count / BATCH):,} + one an object",
            "its upload at 10 Gbit/s": shown(first * model.nbytes / NETWORK),
            "manifests together": f"{text / 1e6:,.1f} MB",
            "manifest of a shard": f"{text / model.shards / 1e6:,.2f} MB",
        })  # fmt: skip
    rows = [["", *found]]
    rows += [[name, *(column[name] for column in columns)] for name in columns[0]]
    return table(rows)
