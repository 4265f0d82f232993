"""PEFT adapters: LoRA and IA3, as `save_pretrained` writes them.

A folder with `adapter_config.json` and `adapter_model.safetensors` (or `.bin`). Tensors are named
`base_model.model.MODULE.lora_A.weight` (rank × in), `.lora_B.weight` (out × rank),
`.lora_embedding_A` (rank × rows), `.lora_embedding_B` (columns × rank), `.ia3_l`; others are whole
parameters (`modules_to_save`, trained biases). The scaling is alpha / rank, or alpha / sqrt(rank)
where `use_rslora` is set (Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning with
LoRA", 2023); `alpha_pattern` gives alpha by module.

Sources: https://huggingface.co/docs/peft/developer_guides/checkpoint and the code of PEFT 0.21.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext import limits
from git_theta_ext.adapters import module_pattern
from git_theta_ext.adapters.base import Adapter, Change, memory_matrix, refuse
from git_theta_ext.adapters.changes import BiasChange, LoraChange, ScaleChange, WholeChange
from git_theta_ext.adapters.files import TensorFile
from git_theta_ext.adapters.names import match_names
from git_theta_ext.errors import UsageError
from git_theta_ext.tensors import TensorInfo
from git_theta_ext.updates.base import values_dtype

CONFIG = "adapter_config.json"
MODELS = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIXES = ("base_model.model.", "base_model.")
_PART = re.compile(r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|ia3_l)"
                   r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.(weight|bias))?")  # fmt: skip
_PRECOMPUTED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin a LoRA that also change the base model's weights when they begin."""
_REFUSED = {
    "use_dora": "DoRA scales by the norm of the merged weights",
    "use_qalora": "QALoRA changes the inputs, not the weights",
    "use_bdlora": "BD-LoRA splits its factors into blocks",
    "alora_invocation_tokens": "an activated LoRA depends on the input",
    "arrow_config": "Arrow chooses among adapters by the input",
    "monteclora_config": "MonteCLoRA's factors are random",
    "kasa_config": "KaSA has further factors",
    "layer_replication": "it repeats layers of the base model",
    "target_parameters": "it changes parameters that belong to no linear layer",
    "megatron_config": "Megatron's layers are split over processes",
}
_ROUNDING = (
    "the product B·A is summed in float64 and rounded once; PEFT's float32 sum depends on its "
    "BLAS, and the last bit of the product may differ"
)


@dataclass(slots=True)
class _Module:
    """The tensors of one module, by their kind in `_PART`."""

    parts: dict[str, str] = field(default_factory=dict)


def read_config(path: Path) -> Mapping[str, Any]:
    """The settings of an adapter.

    Raises:
        UsageError: the file is missing or is no JSON object.
    """
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(limits.ADAPTER_CONFIG_BYTES))
    except OSError as error:
        raise refuse(
            path,
            f"cannot be read: {error.strerror or error}",
            "an adapter's scaling stands in its adapter_config.json; give it with --config FILE",
        ) from error
    except (ValueError, RecursionError) as error:
        raise refuse(path, f"is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise refuse(path, "is no JSON object")
    return data


def looks_like(names: Mapping[str, Any] | TensorFile) -> str | None:
    """`lora` or `ia3` if some tensor's name says so, else None."""
    for name in names:
        if (match := _PART.fullmatch(name)) is not None:
            return "ia3" if match[2] == "ia3_l" else "lora"
        if name.endswith(("lora_magnitude_vector", "lora_magnitude_vector.weight")):
            return "lora"
    return None


def bind(
    file: TensorFile, config: Mapping[str, Any], kind: str, tensors: Mapping[str, TensorInfo]
) -> Adapter:
    """The changes that an adapter makes to a checkpoint's tensors.

    Args:
        file: its tensors.
        config: its `adapter_config.json`.
        kind: `lora` or `ia3`.
        tensors: the checkpoint's, by name.

    Raises:
        UsageError: it is of a variant whose merge is not a plain one, its parts do not fit
            together, or the checkpoint has no such tensors.
    """
    stated = str(config.get("peft_type", kind)).lower()
    if stated != kind:
        raise refuse(file.path, f"is an adapter of type {stated}, not {kind}")
    _refuse_variants(file, config)
    modules, whole = _sort(file)
    if not modules:
        raise refuse(file.path, f"has no tensors of a {kind} adapter")
    wanted = [f"{module}.weight" for module in modules]
    wanted += [f"{module}.bias" for module, one in modules.items() if "lora_B.bias" in one.parts]
    names = match_names(file.path, [*wanted, *whole], tensors)
    binder = _Binder(file, config, tensors, names)
    binder.learn_layouts(modules)
    changes: dict[str, Change] = {}
    for module, one in modules.items():
        changes.update(binder.ia3(module, one) if kind == "ia3" else binder.lora(module, one))
    for name, stored in whole.items():
        changes[names[name]] = binder.whole(stored, tensors[names[name]])
    notes = (_ROUNDING,) if kind == "lora" else ()
    ranks = sorted(binder.ranks)
    summary = f"{kind}, {len(modules)} modules"
    if ranks:
        summary += f", rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else "")
    if whole:
        summary += f", {len(whole)} whole tensors"
    return Adapter(kind, summary, changes, notes)


def _refuse_variants(file: TensorFile, config: Mapping[str, Any]) -> None:
    hint = "merge it with PEFT (merge_and_unload), save the model, then: git add FILE"
    for key, reason in _REFUSED.items():
        if config.get(key):
            raise refuse(file.path, f"cannot be added as factors: {key} is set; {reason}", hint)
    begun = str(config.get("init_lora_weights", "")).lower()
    if begun.startswith(_PRECOMPUTED):
        raise refuse(
            file.path,
            f"cannot be added as factors: init_lora_weights={begun!r} also changed the base model",
            "convert it: save_pretrained(..., path_initial_model_for_weight_conversion=...)",
        )
    if any("lora_magnitude_vector" in name for name in file):
        raise refuse(file.path, f"cannot be added as factors: {_REFUSED['use_dora']}", hint)


def _sort(file: TensorFile) -> tuple[dict[str, _Module], dict[str, str]]:
    """The modules with factors, and the whole tensors: name in the model -> name in the file."""
    modules: dict[str, _Module] = {}
    whole: dict[str, str] = {}
    for stored in file:
        prefix = next((one for one in _PREFIXES if stored.startswith(one)), "")
        name = stored.removeprefix(prefix)
        match = _PART.fullmatch(name)
        if match is None:
            name = re.sub(r"\.modules_to_save\.[^.]+\.", ".", name)
            whole[name.replace(".base_layer.", ".").replace(".original_module.", ".")] = stored
            continue
        part = f"{match[2]}.bias" if match[3] == "bias" else match[2]
        known = modules.setdefault(match[1], _Module()).parts
        if part in known:
            raise refuse(file.path, f"holds several adapters: {known[part]!r} and {stored!r}")
        known[part] = stored
    return modules, whole


@dataclass(slots=True)
class _Binder:
    file: TensorFile
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    names: Mapping[str, str]
    ranks: set[int] = field(default_factory=set)
    layouts: set[bool] = field(default_factory=set)
    _read: tuple[list[Any], module_pattern.Patterns] | None = None

    def learn_layouts(self, modules: Mapping[str, _Module]) -> None:
        """Note which layouts the weights have that are not square: True for inputs × outputs."""
        for module, one in modules.items():
            if "lora_A" in one.parts and "lora_B" in one.parts:
                inputs = self.file.info(one.parts["lora_A"]).shape[1:2]
                outputs = self.file.info(one.parts["lora_B"]).shape[:1]
                shape = self.tensors[self.names[f"{module}.weight"]].shape
                if inputs != outputs and len(shape) == 2:
                    self.layouts.add(shape == (*inputs, *outputs))

    def lora(self, module: str, one: _Module) -> dict[str, Change]:
        """The weight of a module, and its bias if that is trained with it."""
        name = self.names[f"{module}.weight"]
        tensor = self.tensors[name]
        self._require_floats(tensor)
        if "lora_embedding_A" in one.parts:
            down, up = self._pair(module, one, "lora_embedding_A", "lora_embedding_B")
            left, right = down.T, up.T
        else:
            down, up = self._pair(module, one, "lora_A", "lora_B")
            left, right = up, down
        rank = left.shape[1]
        self.ranks.add(rank)
        scaling = self._scaling(module, rank)
        rows, columns, turned = memory_matrix(tensor)
        if self._inputs_first(module, tensor, right.shape[1], left.shape[0], "lora_A" in one.parts):
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
        order = "rounded" if "lora_embedding_A" in one.parts else "sum"
        found: dict[str, Change] = {name: LoraChange(name, left, right, scaling, order)}
        if "lora_B.bias" in one.parts:
            found |= self._bias(module, one, scaling)
        return found

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
            raise refuse(
                self.file.path,
                f"module {module!r} is square, and it is not clear whether its weight is stored as "
                "inputs × outputs: other modules of the adapter are not as fan_in_fan_out says",
                "merge it with PEFT (merge_and_unload), save the model, then: git add FILE",
            )
        return stated

    def _bias(self, module: str, one: _Module, scaling: float) -> dict[str, Change]:
        name = self.names[f"{module}.bias"]
        with np.errstate(over="ignore", invalid="ignore"):
            added = self.file.floats(one.parts["lora_B.bias"]).ravel() * np.float32(scaling)
        if len(added) != self.tensors[name].count:
            raise refuse(self.file.path, f"module {module!r}: its bias does not fit {name!r}")
        return {name: BiasChange(added)}

    def _pair(
        self, module: str, one: _Module, first: str, second: str
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both factors as matrices: rank × in, and out × rank."""
        for part in (first, second):
            if part not in one.parts:
                raise refuse(self.file.path, f"module {module!r} has no {part}")
        down, up = (self.file.floats(one.parts[part]) for part in (first, second))
        if down.ndim < 2 or up.ndim < 2 or not down.size or not up.size:
            raise refuse(self.file.path, f"module {module!r}: its factors are no matrices")
        down, up = down.reshape(down.shape[0], -1), up.reshape(up.shape[0], -1)
        if down.shape[0] != up.shape[1]:
            raise refuse(
                self.file.path,
                f"module {module!r}: {first} is of rank {down.shape[0]}, {second} of rank "
                f"{up.shape[1]}",
            )
        return down, up

    def _scaling(self, module: str, rank: int) -> float:
        alpha = self.config.get("lora_alpha")
        values, patterns = self._alphas()
        try:
            found = patterns.first(module)
        except UsageError as error:
            raise refuse(
                self.file.path, f"an alpha_pattern is not accepted: {error.message}"
            ) from error
        if found is not None:
            alpha = values[found]
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
            raise refuse(
                self.file.path,
                f"module {module!r}: lora_alpha is {alpha!r}, which is no number",
                f"it stands in {CONFIG}; give that with --config FILE",
            )
        if not math.isfinite(alpha):
            raise refuse(self.file.path, f"module {module!r}: lora_alpha is {alpha!r}")
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank

    def _alphas(self) -> tuple[list[Any], module_pattern.Patterns]:
        """The values of `alpha_pattern`, and its regular expressions for ends of modules' names."""
        if self._read is not None:
            return self._read
        table = self.config.get("alpha_pattern") or {}
        if not isinstance(table, dict):
            raise refuse(self.file.path, "its alpha_pattern is no table")
        try:
            patterns = module_pattern.Patterns([str(key) for key in table])
            self._read = list(table.values()), patterns
            return self._read
        except UsageError as error:
            raise refuse(
                self.file.path, f"its alpha_pattern is not accepted: {error.message}"
            ) from error

    def ia3(self, module: str, one: _Module) -> dict[str, Change]:
        """The weight of a module; and its bias, where outputs are scaled."""
        name = self.names[f"{module}.weight"]
        tensor = self.tensors[name]
        self._require_floats(tensor)
        vector = self.file.floats(one.parts["ia3_l"])
        _, columns, turned = memory_matrix(tensor)
        outputs = vector.ndim < 2 or vector.shape[0] != 1
        # A layer that stores its weight as inputs × outputs has its outputs in the columns.
        axis = 0 if outputs != bool(self.config.get("fan_in_fan_out")) else 1
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
            name: ScaleChange(name, factors, 1 - axis if turned else axis, columns)
        }
        bias = name.removesuffix("weight") + "bias"
        if outputs and bias in self.tensors:
            self._require_floats(self.tensors[bias])
            if self.tensors[bias].count != vector.size:
                raise refuse(self.file.path, f"module {module!r}: its vector does not fit {bias!r}")
            found[bias] = ScaleChange(bias, vector.ravel(), 0, 1)
        return found

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


def tensor_matrix(tensor: TensorInfo) -> tuple[int, int]:
    """Rows and columns of a tensor's logical first axis against the rest."""
    rows = tensor.shape[0] if tensor.shape else 1
    return rows, tensor.count // max(rows, 1)


def to_values(file: TensorFile, stored: str, tensor: TensorInfo) -> Any:
    """An adapter's tensor as raw bits of the checkpoint's dtype and memory order.

    Raises:
        UsageError: its elements are no numbers of the checkpoint's kind.
    """
    info = file.info(stored)
    array = file.read(stored)
    target = values_dtype(tensor.dtype)
    if info.dtype != tensor.dtype:
        if info.dtype.kind != "float" or tensor.dtype.kind != "float":
            raise refuse(
                file.path,
                f"tensor {stored!r} is {info.dtype.name}; {tensor.name!r} is {tensor.dtype.name}",
            )
        from git_theta_ext.updates.cast import convert

        raw = np.ascontiguousarray(array).reshape(-1).view(values_dtype(info.dtype))
        bits = convert(info.dtype, tensor.dtype, raw, saturate=False)
        array = bits.reshape(array.shape)
    if tensor.order is not None:
        array = array.transpose(tensor.order)
    return np.ascontiguousarray(array).reshape(-1).view(target)
