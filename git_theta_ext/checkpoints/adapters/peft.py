"""PEFT adapters: LoRA, IA3 and trained tokens, as `save_pretrained` writes them.

A folder with `adapter_config.json` and `adapter_model.safetensors` (or `.bin`). Tensors are named
`base_model.model.MODULE.lora_A.weight` (rank × in), `.lora_B.weight` (out × rank),
`.lora_embedding_A` (rank × rows), `.lora_embedding_B` (columns × rank), `.ia3_l`,
`.trainable_tokens_delta` (tokens × columns, new rows of an embedding); others are whole parameters
(`modules_to_save`, trained biases, and base layers beside their factors, which come first). The
scaling is alpha / rank, or alpha / sqrt(rank) where `use_rslora` is set (Kalajdzievski, "A Rank
Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023); `alpha_pattern` gives alpha by
module.

Sources: https://huggingface.co/docs/peft/developer_guides/checkpoint and the code of PEFT 0.21.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters import experts, tied
from git_theta_ext.checkpoints.adapters.base import Adapter, Change, memory_matrix, refuse
from git_theta_ext.checkpoints.adapters.changes import (
    BiasChange,
    ComposedChange,
    LoraChange,
    ScaleChange,
    WholeChange,
)
from git_theta_ext.checkpoints.adapters.dora import DoraChange
from git_theta_ext.checkpoints.adapters.files import TensorFile, to_values
from git_theta_ext.checkpoints.adapters.layers import square_is_conv1d
from git_theta_ext.checkpoints.adapters.peft_config import (
    CONFIG,
    KINDS,
    MERGE,
    Scaling,
    check_options,
    check_type,
    read_config,
)
from git_theta_ext.checkpoints.adapters.peft_names import Parts, looks_like, sort
from git_theta_ext.checkpoints.adapters.peft_tokens import tokens
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.core.text import plural

__all__ = ["CONFIG", "KINDS", "MODELS", "bind", "check_type", "looks_like", "read_config"]

MODELS = ("adapter_model.safetensors", "adapter_model.bin")
_ROUNDING = (
    "the product B·A is computed in float64 and rounded once. PEFT computes it in float32, so some "
    "values may differ in their last bits from a merge by PEFT"
)


def bind(
    file: TensorFile, config: Mapping[str, Any], kind: str, tensors: Mapping[str, TensorInfo]
) -> Adapter:
    """The changes that an adapter makes to a checkpoint's tensors.

    Args:
        file: its tensors.
        config: its `adapter_config.json`.
        kind: one of `KINDS`.
        tensors: the checkpoint's, by name.

    Raises:
        UsageError: it is of a variant whose merge is not a plain one, its parts do not fit
            together, or the checkpoint has no such tensors.
    """
    check_type(file.path, config, kind)
    check_options(file.path, config, kind)
    wrappers = experts.wrappers(file, config) if kind == "lora" else []
    taken = {stored for one in wrappers for stored in one.parts.values()}
    parts = sort(file, kind, tensors, taken)
    if not parts.modules and not parts.tokens and not wrappers:
        raise refuse(file.path, f"has no tensors of an adapter of type {kind}")
    _refuse_attention(file, parts, tensors)
    further = experts.wanted(wrappers, file, config, tensors)
    names = tied.match(file.path, [*_wanted(parts), *further], tensors)
    binder = _Binder(file, config, tensors, names)
    binder.learn_layouts(parts.modules)
    binder.bind(kind, parts, wrappers)
    return Adapter(kind, binder.summary(kind, parts), binder.changes, binder.notes(kind))


def _refuse_attention(file: TensorFile, parts: Parts, tensors: Mapping[str, TensorInfo]) -> None:
    for module in parts.modules:
        if any(f".{name}".endswith(f".{module}.in_proj_weight") for name in tensors):
            raise refuse(
                file.path,
                f"module {module!r} is a MultiheadAttention, whose in_proj_weight holds three "
                "weights; that is not known here",
                MERGE,
            )


def _wanted(parts: Parts) -> Iterator[str]:
    """The parameters that an adapter changes, by their names in the model."""
    for module, one in parts.modules.items():
        yield f"{module}.weight"
        if "lora_B.bias" in one:
            yield f"{module}.bias"
    yield from parts.whole
    yield from (f"{module}.weight" for module in parts.tokens)


@dataclass(slots=True)
class _Binder:
    file: TensorFile
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    names: dict[str, str]
    changes: dict[str, Change] = field(default_factory=dict)
    ranks: set[int] = field(default_factory=set)
    layouts: set[bool] = field(default_factory=set)
    parameters: int = 0
    _scaling: Scaling = field(init=False)

    def __post_init__(self) -> None:
        self._scaling = Scaling(self.file.path, self.config)

    def bind(self, kind: str, parts: Parts, wrappers: Sequence[experts.Wrapper]) -> None:
        """Make every change, and put those of one tensor together: a new base comes first."""
        by_name: dict[str, Change] = {}
        for name, stored in parts.whole.items():
            by_name[name] = self.whole(stored, self.tensors[self.names[name]])
        for module, one in parts.modules.items():
            made = self.ia3(module, one) if kind == "ia3" else self.lora(module, one)
            for name, change in made.items():
                _compose(by_name, name, change)
        for module, stored in parts.tokens.items():
            tensor = self.tensors[self.names[f"{module}.weight"]]
            self._require_floats(tensor)
            rows = tokens(self.file, self.config, module, stored, tensor)
            _compose(by_name, f"{module}.weight", rows)
        if wrappers:
            wanted = experts.wanted(wrappers, self.file, self.config, self.tensors)
            there = {name: self.tensors[self.names[name]] for name in wanted}
            of_parameters = experts.Binder(self.file, self.config, there)
            for name, change in of_parameters.changes(wrappers):
                if by_name.setdefault(name, change) is not change:
                    raise refuse(self.file.path, f"changes {name!r} twice")
            self.ranks |= of_parameters.ranks
        self.parameters = len(wrappers)
        for name, change in by_name.items():
            place = self.names.get(name, name)
            other = self.changes.setdefault(place, change)
            if other is not change and not tied.same(other, change):
                raise refuse(
                    self.file.path,
                    f"changes {name!r} in another way than what it is tied to: the checkpoint has "
                    f"both as one tensor, {place!r}",
                    tied.UNTIE,
                )

    def summary(self, kind: str, parts: Parts) -> str:
        """What the adapter is, for reports."""
        said = [kind]
        if parts.modules:
            said.append(f"{len(parts.modules)} modules")
        if self.parameters:
            said.append(plural(self.parameters, "parameter"))
        if ranks := sorted(self.ranks):
            said.append(f"rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else ""))
        if parts.tokens:
            rows = sum(self.file.info(stored).shape[0] for stored in parts.tokens.values())
            said.append(f"{rows} trained tokens")
        if parts.whole:
            said.append(f"{len(parts.whole)} whole tensors")
        return ", ".join(said)

    def notes(self, kind: str) -> tuple[str, ...]:
        """What a user must know of how it was applied."""
        found = [_ROUNDING] if kind == "lora" else []
        places: dict[str, list[str]] = {}
        for name, place in self.names.items():
            places.setdefault(place, []).append(name)
        found += [
            f"{' and '.join(names)} are tied, one tensor here: it is changed once"
            for names in places.values()
            if len(names) > 1
        ]
        return tuple(found)

    def learn_layouts(self, modules: Mapping[str, Mapping[str, str]]) -> None:
        """Note which layouts the weights have that are not square: True for inputs × outputs."""
        for module, one in modules.items():
            if "lora_A" in one and "lora_B" in one:
                inputs = self.file.info(one["lora_A"]).shape[1:2]
                outputs = self.file.info(one["lora_B"]).shape[:1]
                shape = self.tensors[self.names[f"{module}.weight"]].shape
                if inputs != outputs and len(shape) == 2:
                    self.layouts.add(shape == (*inputs, *outputs))

    def lora(self, module: str, one: Mapping[str, str]) -> dict[str, Change]:
        """The weight of a module, and its bias if that is trained too, by the adapter's names."""
        name = self.names[f"{module}.weight"]
        tensor = self.tensors[name]
        self._require_floats(tensor)
        if "lora_embedding_A" in one:
            down, up = self._pair(module, one, "lora_embedding_A", "lora_embedding_B")
            left, right = down.T, up.T
        else:
            down, up = self._pair(module, one, "lora_A", "lora_B")
            left, right = up, down
        rank = left.shape[1]
        self.ranks.add(rank)
        scaling = self._scaling.of(module, rank)
        rows, columns, turned = memory_matrix(tensor)
        inputs_first = self._inputs_first(
            module, tensor, right.shape[1], left.shape[0], "lora_A" in one
        )
        if inputs_first:
            left, right = right.T, left.T
        if turned:
            left, right = right.T, left.T
        if (left.shape[0], right.shape[1]) != (rows, columns):
            raise refuse(
                self.file.path,
                f"module {module!r}: factors of {left.shape[0]} × {rank} × {right.shape[1]} do not "
                f"fit tensor {name!r} of shape {list(tensor.shape)}",
            )
        left, right = (np.ascontiguousarray(side) for side in (left, right))
        embedding = "lora_embedding_A" in one
        order = "rounded" if embedding else "sum"
        flipped = (inputs_first != turned) != embedding
        change = LoraChange(name, left, right, scaling, order, flipped)
        found: dict[str, Change] = {f"{module}.weight": change}
        if "lora_magnitude_vector" in one or self.config.get("use_dora"):
            found[f"{module}.weight"] = self._dora(module, one, change, int(flipped))
        if "lora_B.bias" in one:
            found |= self._bias(module, one, scaling)
        return found

    def _dora(
        self, module: str, one: Mapping[str, str], change: LoraChange, axis: int
    ) -> DoraChange:
        """The factors of a module, and the norms that were trained with them.

        Raises:
            UsageError: there are none, or not as many as there are rows (axis 0) or columns (1).
        """
        if "lora_magnitude_vector" not in one or not self.config.get("use_dora"):
            raise refuse(
                self.file.path,
                f"module {module!r}: its adapter_config.json and its file do not agree on whether "
                "it is DoRA",
            )
        norms = self.file.floats(one["lora_magnitude_vector"]).ravel()
        shape = (len(change.left), change.right.shape[1])
        if len(norms) != shape[axis]:
            raise refuse(
                self.file.path, f"module {module!r}: {len(norms)} norms do not fit its weight"
            )
        return DoraChange(change, norms, axis, shape[0] * shape[1])

    def _inputs_first(
        self, module: str, tensor: TensorInfo, inputs: int, outputs: int, linear: bool
    ) -> bool:
        """Whether a weight is stored as inputs × outputs, as the `Conv1D` of GPT-2 does.

        Its shape tells. Where it is square, the setting `fan_in_fan_out` does, unless the other
        modules show that it is not true of all.
        """
        rows, columns = tensor_matrix(tensor)
        if inputs != outputs or not linear:
            return (rows, columns) == (inputs, outputs) != (outputs, inputs)
        stated = bool(self.config.get("fan_in_fan_out"))
        if (not stated) in self.layouts:
            named = square_is_conv1d(tensor.name.removesuffix(".weight"), self.tensors)
            if named is not None:
                return named
            raise refuse(
                self.file.path,
                f"module {module!r} is square, so it is not clear whether its weight is stored as "
                "inputs × outputs: fan_in_fan_out is wrong for other modules of the adapter",
                MERGE,
            )
        return stated

    def _bias(self, module: str, one: Mapping[str, str], scaling: float) -> dict[str, Change]:
        name = self.names[f"{module}.bias"]
        with np.errstate(over="ignore", invalid="ignore"):
            added = self.file.floats(one["lora_B.bias"]).ravel() * np.float32(scaling)
        if len(added) != self.tensors[name].count:
            raise refuse(self.file.path, f"module {module!r}: its bias does not fit {name!r}")
        return {f"{module}.bias": BiasChange(added)}

    def _pair(
        self, module: str, one: Mapping[str, str], first: str, second: str
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both factors as matrices: rank × in, and out × rank."""
        for part in (first, second):
            if part not in one:
                raise refuse(self.file.path, f"module {module!r} has no {part}")
        down, up = (self.file.floats(one[part]) for part in (first, second))
        if down.ndim < 2 or up.ndim < 2 or not down.size or not up.size:
            raise refuse(self.file.path, f"module {module!r}: its factors are no matrices")
        down, up = down.reshape(down.shape[0], -1), up.reshape(up.shape[0], -1)
        if down.shape[0] != up.shape[1]:
            raise refuse(
                self.file.path,
                f"module {module!r}: {first} has rank {down.shape[0]} and {second} has "
                f"rank {up.shape[1]}. They may be from two adapters, or from a convolution with "
                "several groups, which cannot be merged",
            )
        return down, up

    def ia3(self, module: str, one: Mapping[str, str]) -> dict[str, Change]:
        """The weight of a module; and its bias, where outputs are scaled."""
        name = self.names[f"{module}.weight"]
        tensor = self.tensors[name]
        self._require_floats(tensor)
        vector = self.file.floats(one["ia3_l"])
        _, columns, turned = memory_matrix(tensor)
        outputs = self._scales_outputs(module, vector, tensor)
        # A layer that stores its weight as inputs × outputs has its outputs in the columns.
        turned_layer = len(tensor.shape) == 2 and bool(self.config.get("fan_in_fan_out"))
        axis = 0 if outputs != turned_layer else 1
        if len(tensor.shape) == 2 and vector.size not in tensor.shape[axis : axis + 1]:
            axis = 1 - axis
        if len(tensor.shape) <= axis or vector.size != tensor.shape[axis]:
            raise refuse(
                self.file.path,
                f"module {module!r}: a vector of {list(vector.shape)} does not fit tensor {name!r} "
                f"of shape {list(tensor.shape)}",
            )
        factors = vector.ravel()
        if axis == 1:
            factors = np.repeat(factors, math.prod(tensor.shape[2:]))
        found: dict[str, Change] = {
            f"{module}.weight": ScaleChange(name, factors, 1 - axis if turned else axis, columns)
        }
        bias = name.removesuffix("weight") + "bias"
        if outputs and bias in self.tensors:
            self._require_floats(self.tensors[bias])
            if self.tensors[bias].count != vector.size:
                raise refuse(self.file.path, f"module {module!r}: its vector does not fit {bias!r}")
            found[f"{module}.bias"] = ScaleChange(bias, vector.ravel(), 0, 1)
            self.names.setdefault(f"{module}.bias", bias)
        return found

    def _scales_outputs(self, module: str, vector: NDArray[np.float32], tensor: TensorInfo) -> bool:
        """Whether a vector is of outputs: of linear layers its shape says so, else the settings."""
        if len(tensor.shape) < 3 or vector.ndim != len(tensor.shape):
            return vector.ndim < 2 or vector.shape[0] != 1
        if tensor.shape[0] != tensor.shape[1]:
            return vector.size == tensor.shape[0]
        inputs = self.config.get("feedforward_modules") or []
        if not isinstance(inputs, list):
            raise refuse(
                self.file.path,
                f"module {module!r} has as many inputs as outputs, and feedforward_modules is a "
                "pattern: it is not clear which of the two its vector scales",
                MERGE,
            )
        return not any(module.endswith(str(one)) for one in inputs)

    def whole(self, stored: str, tensor: TensorInfo) -> Change:
        """A tensor that the adapter replaces; cast to the checkpoint's dtype, as loading does."""
        info = self.file.info(stored)
        if info.shape != tensor.shape:
            raise refuse(
                self.file.path,
                f"tensor {tensor.name!r} is {list(info.shape)} in the adapter and "
                f"{list(tensor.shape)} in the checkpoint",
                "write the merged checkpoint with its own tool, then: git add FILE",
            )
        return WholeChange(to_values(self.file, stored, tensor))

    def _require_floats(self, tensor: TensorInfo) -> None:
        if tensor.dtype.kind != "float":
            raise refuse(
                self.file.path,
                f"tensor {tensor.name!r} is {tensor.dtype.name}: an adapter is applied to floats",
                "quantised weights are merged by the tool that quantised them",
            )


def _compose(changes: dict[str, Change], name: str, change: Change) -> None:
    """A change of a tensor that has a new base already comes after that."""
    base = changes.get(name)
    changes[name] = ComposedChange(base, change) if isinstance(base, WholeChange) else change


def tensor_matrix(tensor: TensorInfo) -> tuple[int, int]:
    """Rows and columns of a tensor's logical first axis against the rest."""
    rows = tensor.shape[0] if tensor.shape else 1
    return rows, tensor.count // max(rows, 1)
