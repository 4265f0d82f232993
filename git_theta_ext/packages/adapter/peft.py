"""A commit as the folder that PEFT loads: `adapter_model.safetensors` and `adapter_config.json`.

Names and settings are those of PEFT 0.21 (https://huggingface.co/docs/peft, "PEFT checkpoint
format", and `tuners/lora`). The scaling is alpha / rank, by module where modules differ; both are
chosen so that it is, as float32, what the trainer had, or 1. What the factors miss of the commit
may lie beside them, for `git theta add --update` alone (`checkpoints/adapters/corrections.py`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters import corrections
from git_theta_ext.checkpoints.adapters.peft import CONFIG, MODELS
from git_theta_ext.core.errors import StoreError, UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.text import printable
from git_theta_ext.git import outputs
from git_theta_ext.packages.adapter import files
from git_theta_ext.packages.adapter.ends import Ends
from git_theta_ext.packages.adapter.files import Tensor
from git_theta_ext.packages.adapter.plan import Module, Plan
from git_theta_ext.packages.base_file import FILE as BASE
from git_theta_ext.packages.base_file import BaseRecord, base_text

_OURS = {CONFIG, *MODELS, corrections.NAME, BASE, "README.md", ".gitattributes"}
"""What may be in a folder that is written over."""
_PREFIX = "base_model.model."
_DIGITS = 17
_NARROW = (np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16))


def tensors(plan: Plan, ends: Ends, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of the adapter by PEFT's names, in natural order.

    Factors are float32, or bfloat16 or float16 where all of them are that without rounding.
    """
    pairs = {one.name: peft_factors(one, ends) for one in plan.modules}
    dtype = _dtype([side for pair in pairs.values() for side in pair])
    found: dict[str, Tensor] = {}
    for one in plan.modules:
        stem = f"{_PREFIX}{prefix}{one.name}"
        parts = ("lora_A.weight", "lora_B.weight")
        if one.layer == "embedding":
            parts = ("lora_embedding_A", "lora_embedding_B")
        for part, side in zip(parts, pairs[one.name], strict=True):
            found[f"{stem}.{part}"] = files.of_array(side.astype(dtype))
    layered = {one.name for one in plan.modules}
    for name in plan.biases:
        module = name.removesuffix(".bias")
        inner = "base_layer.bias" if module in layered else "bias"
        found[f"{_PREFIX}{prefix}{module}.{inner}"] = _new(ends, name)
    for names in plan.saved.values():
        for name in names:
            found[f"{_PREFIX}{prefix}{name}"] = _new(ends, name)
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def peft_factors(one: Module, ends: Ends) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both factors as PEFT lays them out for the kind of the layer: A, then B."""
    tensor = ends.after[one.tensor].tensor
    left, right = one.factored.left, one.factored.right
    if tensor.order is not None:  # the memory is that of the transposed matrix
        left, right = right.T, left.T
    if one.layer in ("conv1d", "embedding"):
        down, up = left.T, right.T
    else:
        down, up = right, left
    if one.layer == "convolution":
        rank = one.factored.rank
        down = down.reshape(rank, *tensor.shape[1:])
        up = up.reshape(tensor.shape[0], rank, *(1 for _ in tensor.shape[2:]))
    return np.ascontiguousarray(down), np.ascontiguousarray(up)


def _new(ends: Ends, name: str) -> Tensor:
    tensor = ends.after[name].tensor
    return Tensor(tensor.dtype, tensor.shape, lambda: ends.values(name, ends.new))


def _dtype(sides: Sequence[NDArray[np.float32]]) -> np.dtype[Any]:
    for dtype in _NARROW:
        with np.errstate(over="ignore", invalid="ignore"):
            if all(np.array_equal(one.astype(dtype).astype(np.float32), one) for one in sides):
                return dtype
    return np.dtype(np.float32)


def config(plan: Plan, base: str | None, prefix: str = "") -> dict[str, Any]:
    """The settings: which modules, their ranks, and alphas that give the scaling."""
    ranks = {f"{prefix}{one.name}": one.factored.rank for one in plan.modules}
    alphas = {
        f"{prefix}{one.name}": alpha_of(one.factored.scaling, one.factored.rank)
        for one in plan.modules
    }
    rank = _most(ranks.values())
    alpha = _most(alphas.values())
    saved = sorted((f"{prefix}{name}" for name in plan.saved), key=natural_key)
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "bias": "all" if plan.biases else "none",
        "fan_in_fan_out": any(one.layer == "conv1d" for one in plan.modules),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": _patterns(ranks, rank),
        "alpha_pattern": _patterns(alphas, alpha),
        "target_modules": sorted(ranks, key=natural_key),
        "modules_to_save": saved or None,
        "use_rslora": False,
        "use_dora": False,
    }


def _most(values: Any) -> Any:
    """The most frequent value; the first of equals."""
    return Counter(values).most_common(1)[0][0]


def _patterns(values: Mapping[str, Any], usual: Any) -> dict[str, Any]:
    """The modules that differ from the rest. PEFT takes keys for regular expressions."""
    return {f"^{re.escape(name)}": value for name, value in values.items() if value != usual}


def alpha_of(scaling: float, rank: int) -> float | int:
    """An alpha whose quotient by the rank is a scaling as float32: the shortest decimal that is.

    Raises:
        UsageError: there is none: the scaling is no finite number.
    """
    wanted = np.float32(scaling)
    if not np.isfinite(wanted):
        raise UsageError(f"a scaling of {scaling!r} is no number")
    for digits in range(1, _DIGITS + 1):
        alpha = float(f"{scaling * rank:.{digits}g}")
        if np.float32(alpha / rank) == wanted:
            return int(alpha) if alpha.is_integer() and abs(alpha) < 1 << 53 else alpha
    return float(wanted) * rank


def write(
    folder: Path,
    held: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    more: corrections.Corrections | None,
    *,
    base: BaseRecord,
    work_tree: Path | None,
) -> int:
    """Write the folder; how many bytes its tensors take.

    The settings are written last, and those of an adapter that was there are taken away first: at
    no time does the folder look like an adapter that it is not.

    Args:
        folder: as the user named it.
        held: the tensors, in the order in which they are to stand.
        settings: what `adapter_config.json` says.
        more: what the factors miss, if it is to be there.
        base: what the adapter is for.
        work_tree: the top of the repository's.

    Raises:
        StoreError: it cannot be written, or not there.
        UsageError: there is something else in it.
    """
    outputs.check_folder(folder)
    _require_ours(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, corrections.NAME, *MODELS[1:]):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror or error}") from error
    model = folder / MODELS[0]
    length = files.write(model, held, {"format": "pt"}, work_tree)
    if more is not None:
        parts = {name: files.of_array(array) for name, array in more.parts.items()}
        marks = more.metadata(corrections.digest_of(model))
        length += files.write(folder / corrections.NAME, parts, marks, work_tree)
    outputs.write(folder / BASE, base_text(base), work_tree)
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    outputs.write(folder / CONFIG, text.encode(), work_tree)
    return length


def _require_ours(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(
            f"{printable(str(folder))} is a file; an adapter is a folder",
            hint="name a folder that is new, empty, or an adapter: -o adapter/",
        )
    strange = sorted(one.name for one in folder.iterdir() if one.name not in _OURS)
    if strange:
        raise UsageError(
            f"{printable(str(folder))} has {printable(strange[0])}, which is no part of an adapter",
            hint="name a folder that is new, empty, or an adapter: -o adapter/",
        )
