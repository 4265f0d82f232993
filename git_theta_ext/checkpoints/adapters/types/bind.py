"""The tensors of such an adapter, put together by module; which type has which parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from git_theta_ext.checkpoints.adapters import peft_config, tied
from git_theta_ext.checkpoints.adapters.base import Adapter, Change, refuse
from git_theta_ext.checkpoints.adapters.changes import WholeChange
from git_theta_ext.checkpoints.adapters.files import TensorFile, to_values
from git_theta_ext.checkpoints.adapters.types import (
    adalora,
    boft,
    fourierft,
    hra,
    loha,
    lokr,
    oft,
    vera,
)
from git_theta_ext.checkpoints.adapters.types.change import Place, Seen
from git_theta_ext.core.tensors import TensorInfo

_TYPES: dict[str, ModuleType] = {
    "adalora": adalora, "loha": loha, "lokr": lokr, "vera": vera, "oft": oft, "boft": boft,
    "hra": hra, "fourierft": fourierft,
}  # fmt: skip
KINDS = (*_TYPES, "ln_tuning")
"""Types that are applied here, as `peft_type` names them in small letters."""

_PREFIXES = ("base_model.model.", "base_model.")
_PART = re.compile(
    r"(.+)\.(lora_[ABE]|ranknum|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)"
    r"|vera_lambda_[bd]|oft_(?:embedding_)?R|boft_[Rs]|hra_u|fourierft_spectrum)(?:\.[^.]+)?"
)
_NORM = re.compile(r"(.+)\.ln_tuning_layers(?:\.(?!weight$|bias$)[^.]+)?\.(weight|bias)")
_WRAPPED = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")
_TELLING = {"lora_E": "adalora", "hada_w1_a": "loha", "lokr_w1": "lokr", "lokr_w1_a": "lokr",
            "vera_lambda_b": "vera", "oft_R": "oft", "oft_embedding_R": "oft", "boft_R": "boft",
            "hra_u": "hra", "fourierft_spectrum": "fourierft"}  # fmt: skip
_NOTE = (
    "products of matrices are computed in float64 and rounded once. PEFT computes them in float32, "
    "so some values may differ in their last bits from a merge by PEFT"
)


def looks_like(file: TensorFile) -> str | None:
    """One of `KINDS` if some tensor's name says so, else None."""
    for name in file:
        if (match := _PART.fullmatch(name)) is not None and match[2] in _TELLING:
            return _TELLING[match[2]]
        if _NORM.fullmatch(name) is not None:
            return "ln_tuning"
    return None


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
        UsageError: it has an option that is not known here, its parts do not fit together, or the
            checkpoint has no such tensors.
    """
    known = _TYPES[kind].OPTIONS if kind in _TYPES else set[str]()
    peft_config.check_type(file.path, config, kind)
    peft_config.check_options(file.path, config, kind, known)
    modules, whole = _sorted(file, kind)
    if not modules and kind in _TYPES:
        raise refuse(file.path, f"has no tensors of an adapter of type {kind}")
    names = tied.match(file.path, [*(f"{one}.weight" for one in modules), *whole], tensors)
    changes: dict[str, Change] = {}
    seen = Seen()
    for module, parts in modules.items():
        name = names[f"{module}.weight"]
        if tensors[name].dtype.kind != "float":
            raise refuse(file.path, f"tensor {name!r} is {tensors[name].dtype.name}, not floats")
        place = Place(file, module, tensors[name], tensors, config, seen)
        found = _TYPES[kind].change(place, parts)
        if found is not None:
            _put(file, changes, name, found)
    unclear = [name for name, turned in seen.guessed.items() if (not turned) in seen.layouts]
    if unclear:
        raise refuse(
            file.path,
            f"module {unclear[0]!r} is square, so it is not clear whether its weight is stored as "
            "inputs × outputs: fan_in_fan_out is wrong for other modules of the adapter",
            peft_config.MERGE,
        )
    for wanted, stored in whole.items():
        tensor = tensors[names[wanted]]
        if file.info(stored).shape != tensor.shape:
            raise refuse(
                file.path,
                f"{stored!r} is {list(file.info(stored).shape)}; {tensor.name!r} is "
                f"{list(tensor.shape)}",
            )
        _put(file, changes, tensor.name, WholeChange(to_values(file, stored, tensor)))
    said = [kind, f"{len(modules)} modules"] if modules else [kind]
    if whole:
        said.append(f"{len(whole)} whole tensors")
    return Adapter(kind, ", ".join(said), changes, (_NOTE,) if modules else ())


def _put(file: TensorFile, changes: dict[str, Change], name: str, change: Change) -> None:
    if name in changes:
        raise refuse(file.path, f"changes {name!r} twice: two of its modules are one tensor here")
    changes[name] = change


def _sorted(file: TensorFile, kind: str) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The parts of each module, and whole parameters, by their names in the model.

    Raises:
        UsageError: a module lacks a part or has one too many, or the file holds several adapters.
    """
    modules: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for stored in file:
        prefix = next((one for one in _PREFIXES if stored.startswith(one)), "")
        name = stored.removeprefix(prefix)
        if kind == "vera" and name in vera.SHARED:
            continue
        if (match := _PART.fullmatch(name)) is not None:
            parts = modules.setdefault(match[1], {})
            if match[2] in parts:
                raise refuse(file.path, f"holds several adapters: {parts[match[2]]!r}, {stored!r}")
            parts[match[2]] = stored
            continue
        norm = _NORM.fullmatch(name)
        name = f"{norm[1]}.{norm[2]}" if norm is not None else _WRAPPED.sub("", name)
        if name in whole or ".original_module." in name:
            raise refuse(file.path, f"has {stored!r}, which is not known in one of type {kind}")
        whole[name] = stored
    wanted: tuple[frozenset[str], ...] = _TYPES[kind].PARTS if kind in _TYPES else ()
    for module, parts in modules.items():
        if frozenset(parts) not in wanted:
            raise refuse(
                file.path,
                f"module {module!r} has {', '.join(sorted(parts))}, which are not the parts of an "
                f"adapter of type {kind}",
            )
    return modules, whole
