"""Statistics for merges, collected while a PyTorch model is trained; torch is never imported here.

with theta.collect(model, optimizer=optimizer) as found:
    train(model, optimizer)
found.write("model.safetensors")        # model.fisher.safetensors, model.gram.safetensors
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.exporting.outgoing import write_layout
from git_theta_ext.checkpoints.optimizers.order import Names, clean
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.pytorch import is_sharded
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.core.text import plural, printable, size
from git_theta_ext.core.values import raw_bytes
from git_theta_ext.formats import safetensors
from git_theta_ext.formats.tensors_file import TensorsFile
from git_theta_ext.git import outputs
from git_theta_ext.merge.combine.statistics import statistics_path
from git_theta_ext.merge.strategies.collect_statistics import linear_width

KINDS = ("fisher", "gram")
_KEPT = 0.95
"""What a sampled batch leaves of those before it: about the last twenty count."""
_ROWS = 256
"""Inputs of a layer that are taken of one batch."""


class Value(Protocol):
    """One statistic, computed when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    def get(self) -> NDArray[np.float32]:
        """What it is now."""
        ...


Found = dict[str, Value]
"""Statistics by tensor."""


class Collector:
    """What `collect` gives: hooks on a model until the block ends, and what they saw."""

    def __init__(
        self, model: Any, statistics: Sequence[str], optimizer: Any, every: int, memory: int
    ) -> None:
        """Use `collect`."""
        self._kinds = tuple(statistics)
        self._optimizer = _inner(optimizer)
        self._every, self._memory = every, memory
        self._parameters = {clean_name(n): p for n, p in model.named_parameters()}
        self._steps, self._sampling = 0, False
        self._grams: dict[str, _Mean] = {}
        self._squares: dict[str, _Mean] = {}
        self._handles = [model.register_forward_pre_hook(self._begin)]
        if "gram" in self._kinds:
            self._watch_inputs(model)
        self._by_gradients: bool | None = None if "fisher" in self._kinds else False
        if any(is_sharded(one) for one in self._parameters.values()):
            self.close()
            raise UsageError("statistics of sharded parameters (DTensor, FSDP2) are not collected")

    def __enter__(self) -> Collector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the hooks off; what was seen stays."""
        self.close()

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def statistics(self) -> dict[str, Found]:
        """What was collected so far, by kind and tensor; empty where nothing was."""
        found: dict[str, Found] = {}
        if "fisher" in self._kinds:
            found["fisher"] = self._moments() if not self._by_gradients else {}
            found["fisher"] = found["fisher"] or _seen(self._squares)
        if "gram" in self._kinds:
            found["gram"] = _seen(self._grams)
        return found

    def begin(self) -> None:
        """Say that a batch begins, where the model is not called as a whole for each."""
        self._sampling = self._steps % self._every == 0
        self._steps += 1
        if self._sampling and self._by_gradients is None:
            self._decide()

    def pause(self) -> None:
        """Say that what the model is run on from now is no batch of the training."""
        self._sampling = False

    def held(self) -> Held:
        """The statistics as they are now, copied: they can be written while the training goes on.

        They take as much memory as `write` reads.
        """
        found = self.statistics()
        return Held({
            kind: {name: _Fixed(value.get().copy()) for name, value in each.items()}
            for kind, each in found.items()
        })  # fmt: skip

    def write(self, path: str | Path) -> list[Path]:
        """Write the statistics beside a checkpoint, under the names of its tensors.

        Args:
            path: the checkpoint, which is there. Tensors that it does not have are left out.

        Returns:
            The files that were written.

        Raises:
            UsageError: nothing was collected, or nothing of what is in the checkpoint.
            StoreError: a file cannot be written.
        """
        return Held(self.statistics()).write(path)

    # Hooks

    def _begin(self, module: Any, inputs: Any) -> None:
        """Before the model runs: whether this batch is one of those that are looked at."""
        if getattr(module, "training", True):
            self.begin()
        else:
            self.pause()

    def _decide(self) -> None:
        """Whether the optimizer keeps the squares itself, for nothing.

        One that is like Adam tells after its first step.
        """
        groups = getattr(self._optimizer, "param_groups", ())
        if any("betas" in one for one in groups) and not self._optimizer.state:
            return
        self._by_gradients = not self._moments()
        if not self._by_gradients:
            return
        trained = {n: p for n, p in self._parameters.items() if p.requires_grad}
        needed = sum(4 * math.prod(one.shape) for one in trained.values())
        if needed > self._memory:
            self._by_gradients, self._kinds = False, tuple(k for k in self._kinds if k != "fisher")
            warnings.warn(
                f"no Fisher statistics: they would take {size(needed)} beside the model; Adam has "
                "them already (optimizer=), or allow more (memory=)",
                stacklevel=2,
            )
            return
        for name, parameter in trained.items():
            mean = self._squares.setdefault(name, _Mean())
            self._handles.append(parameter.register_hook(self._gradient(mean)))

    def _gradient(self, mean: _Mean) -> Callable[[Any], None]:
        def hook(gradient: Any) -> None:
            if self._sampling:
                found = gradient.detach().float()
                mean.add(found * found)

        return hook

    def _watch_inputs(self, model: Any) -> None:
        """Hooks on the linear layers, as many as there is memory for."""
        left, skipped = self._memory, 0
        for name, module in model.named_modules():
            width = linear_width(module)
            if width is None:
                continue
            if 4 * width * width > left:
                skipped += 1
                continue
            left -= 4 * width * width
            key = clean_name(f"{name}.weight" if name else "weight")
            mean = self._grams.setdefault(key, _Mean())
            self._handles.append(module.register_forward_pre_hook(self._inputs(mean, width)))
        if skipped:
            warnings.warn(
                f"{plural(skipped, 'layer')} without Gram matrices: they would take more than "
                f"{size(self._memory)} (memory=)",
                stacklevel=2,
            )

    def _inputs(self, mean: _Mean, width: int) -> Callable[[Any, Any], None]:
        def hook(module: Any, inputs: Any) -> None:
            shape = tuple(getattr(inputs[0], "shape", ())) if inputs else ()
            if not self._sampling or not shape or shape[-1] != width:
                return
            rows = inputs[0].detach().reshape(-1, width)
            if len(rows) > _ROWS:
                rows = rows[:: -(-len(rows) // _ROWS)]
            if len(rows):
                with _in_float32(rows):
                    rows = rows.float()
                    mean.add(rows.T @ rows / len(rows))

        return hook

    def _moments(self) -> Found:
        """Adam's second moments, without the bias of their zero start."""
        names = {id(one): name for name, one in self._parameters.items()}
        state = getattr(self._optimizer, "state", None) or {}
        found: Found = {}
        for group in getattr(self._optimizer, "param_groups", ()):
            betas = group.get("betas")
            for parameter in group["params"]:
                one = state.get(parameter) or {}
                moment, step = one.get("exp_avg_sq"), one.get("step", group.get("step"))
                name = names.get(id(parameter))
                fits = tuple(getattr(moment, "shape", (0, -1))) == tuple(parameter.shape)
                if name is None or step is None or betas is None or not fits:
                    continue
                found[name] = _Moment(moment, 1.0 - float(betas[1]) ** float(step))
        return found


class Held:
    """Statistics by kind and tensor, to be written beside checkpoints."""

    def __init__(self, found: Mapping[str, Found]) -> None:
        """Use `Collector.held`."""
        self._found = found

    def write(self, path: str | Path) -> list[Path]:
        """As `Collector.write`."""
        path = Path(path)
        with TensorsFile(path) as file:
            names = Names(file, "")
        made = []
        for kind, found in self._found.items():
            mapped = names.mapped(list(found))
            pairs = {
                here: found[name]
                for name, (_, here) in zip(found, mapped, strict=False)
                if here is not None
            }
            if not pairs:
                raise UsageError(
                    f"no {kind} statistics were collected of tensors of {printable(str(path))}"
                )
            target = path.with_name(statistics_path(path.name, kind))
            _write(target, pairs)
            made.append(target)
        return made


class _Fixed:
    """A statistic as it was."""

    def __init__(self, value: NDArray[np.float32]) -> None:
        self._value = value

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self._value.shape

    def get(self) -> NDArray[np.float32]:
        """It."""
        return self._value


class _Mean:
    """A running mean that forgets: what came long ago counts for little."""

    def __init__(self) -> None:
        self._total: Any = None
        self._weight = 0.0

    def add(self, value: Any) -> None:
        """Count one more value."""
        self._weight = self._weight * _KEPT + 1.0
        self._total = value if self._total is None else self._total.mul_(_KEPT).add_(value)

    @property
    def shape(self) -> tuple[int, ...]:
        """The values' shape."""
        return tuple(self._total.shape)

    def get(self) -> NDArray[np.float32]:
        """The mean."""
        return _array(self._total) / np.float32(self._weight)

    @property
    def seen(self) -> bool:
        """Whether there was a value."""
        return self._total is not None


class _Moment:
    """A second moment of Adam, as it is when it is asked for."""

    def __init__(self, value: Any, correction: float) -> None:
        self._value, self._correction = value, correction

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape."""
        return tuple(self._value.shape)

    def get(self) -> NDArray[np.float32]:
        """The moment without the bias of its zero start."""
        return (_array(self._value).astype(np.float64) / self._correction).astype(np.float32)


def collect(
    model: Any,
    statistics: Sequence[str] = KINDS,
    *,
    optimizer: Any = None,
    every: int = 16,
    memory: int = 2 << 30,
) -> Collector:
    """Collect what the Fisher and RegMean merges need while a PyTorch model is trained.

    One batch in `every` is looked at, and about the last twenty of these count. With Adam nothing
    is done for Fisher: its second moments are taken, as they are when they are asked for.
    Otherwise gradients are squared; a scaler of gradients (float16) would scale these, too.

    Args:
        model: called as a whole for each batch; in training mode. Its tensors are named as the
            checkpoint's, but for a prefix.
        statistics: `fisher` (a diagonal for each trained parameter) and `gram` (the inputs of
            linear layers of up to 4,096).
        optimizer: the one that trains it, if there is one.
        every: how seldom a batch is looked at.
        memory: bytes that the statistics may take, on the model's device.

    Returns:
        A context manager; `write` writes what was collected beside a checkpoint.

    Raises:
        UsageError: statistics of another name, or parameters that are sharded.
    """
    unknown = [one for one in statistics if one not in KINDS]
    if unknown or not statistics or isinstance(statistics, str):
        raise UsageError(f"statistics are some of {', '.join(KINDS)}, not {statistics!r}")
    if every < 1:
        raise UsageError(f"every takes a number from 1, not {every}")
    return Collector(model, statistics, optimizer, every, memory)


def clean_name(name: str) -> str:
    """The name of a parameter as files have it."""
    return clean(name).removeprefix("module.")


def _inner(optimizer: Any) -> Any:
    """The optimizer below a wrapper, such as Accelerate's."""
    for _ in range(4):
        if hasattr(optimizer, "param_groups") and hasattr(optimizer, "state"):
            inner = getattr(optimizer, "optimizer", None)
            if inner is None:
                return optimizer
            optimizer = inner
    return optimizer


def _in_float32(rows: Any) -> AbstractContextManager[Any]:
    """Autocast would compute the product in half precision."""
    torch = sys.modules.get("torch")
    if torch is None:
        return nullcontext()
    found: AbstractContextManager[Any] = torch.autocast(rows.device.type, enabled=False)
    return found


def _seen(means: Mapping[str, _Mean]) -> Found:
    return {name: one for name, one in means.items() if one.seen}


def _array(tensor: Any) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().float().cpu().numpy(), np.float32)


def _write(target: Path, found: Mapping[str, Value]) -> None:
    """A safetensors file; one tensor at a time is in memory."""
    infos = {n: TensorInfo(n, DTYPES["F32"], found[n].shape) for n in sorted(found)}

    def read(name: str) -> Iterator[memoryview]:
        yield raw_bytes(np.ascontiguousarray(found[name].get()))

    with outputs.writing(target) as file:
        write_layout(safetensors.build(infos), read, file)
