"""What a tensor is to a merge: weights may be blended, counters, codes and optimizer state not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from git_theta_ext.manifest import Entry
from git_theta_ext.tensors import DType

Kind = Literal["weights", "batchnorm", "counter", "integer", "optimizer", "quantised", "opaque"]

NEVER_BLENDED: frozenset[Kind] = frozenset({"integer", "optimizer", "quantised", "opaque"})
"""Kinds for which only a whole side, the base or a reset makes sense."""

WHOLE: frozenset[Kind] = frozenset({"optimizer", "quantised", "opaque"})
"""Kinds whose entries depend on each other, so that they are not even merged entry by entry."""

_COUNTER = re.compile(
    r"(^|[._])(num_batches_tracked|epochs?|(global_|_|num_)?steps?(_count)?|iterations?|iters?"
    r"|last_epoch|num_updates|n_averaged|total|ready|started|processed|completed|current"
    r"|batches_that_stepped|batch_idx|samples_seen|tokens_seen)$",
    re.IGNORECASE,
)
_OPTIMIZER = re.compile(
    r"(^|\.)(optimizers?|optimizer_states?|opt_state|optim)(\.|$)"
    r"|\.(exp_avg|exp_avg_sq|max_exp_avg_sq|momentum_buffer|square_avg|acc_delta|grad_avg)$"
)
_BATCHNORM = re.compile(r"(^|[._/])(running_mean|running_var|moving_mean|moving_variance)(:0)?$")
VARIANCE = re.compile(r"(running_var|moving_variance)(:0)?$")
"""Statistics that must not be negative."""

_QUANTISED = re.compile(
    r"\.(qweight|qzeros|g_idx|SCB|absmax|quant_map|nested_absmax|nested_quant_map|weight_format"
    r"|(weight_|input_|k_|v_)?scales?(_inv)?|(weight_)?zero_points?|quant_state\..*"
    r"|weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*))$"
)
_CODES = ("qweight", "weight")
_CODE_BITS = {"int": 32, "uint": 32}
"""Widest dtype of codes: packed ones come in words of 32 bits; of floats only fp8 are codes."""
_SCALES = (
    "qzeros", "scales", "SCB", "weight_scale", "weight_scale_inv", "scale",
    "weight.absmax", "weight.quant_map", "absmax",
)  # fmt: skip


def is_counter_name(name: str) -> bool:
    """Whether the last part of a name is one that trainers give to their counters."""
    return _COUNTER.search(name) is not None


def kind_of(entry: Entry, types: Mapping[str, DType]) -> Kind:
    """What a tensor is, by its dtype, its name, and its neighbours.

    Args:
        entry: the tensor.
        types: the dtype of every tensor of the checkpoint, by name.
    """
    tensor = entry.tensor
    if entry.opaque:
        return "opaque"
    number = tensor.count == 1 and tensor.dtype.kind in ("int", "uint", "float")
    if number and is_counter_name(tensor.name):
        return "counter"
    if _OPTIMIZER.search(tensor.name):
        return "optimizer"
    if tensor.dtype.name.startswith("Q") or quantised_group(tensor.name, types) is not None:
        return "quantised"
    if tensor.dtype.kind not in ("float", "complex"):
        return "integer"
    return "batchnorm" if _BATCHNORM.search(tensor.name) else "weights"


def quantised_group(name: str, types: Mapping[str, DType]) -> str | None:
    """The module whose quantised codes or scales a tensor holds, or None.

    A `weight` counts as codes only if it is of eight bits or fewer and scales stand beside it.
    """
    module, dot, last = name.rpartition(".")
    if dot and last in _CODES and _holds_codes(module, types):
        return module
    match = _QUANTISED.search(name)
    if match is None:
        return None
    module = name[: match.start()]
    return module if _holds_codes(module, types) else None


def _holds_codes(module: str, types: Mapping[str, DType]) -> bool:
    codes = (types.get(f"{module}.{name}") for name in _CODES)
    if not any(
        dtype is not None and dtype.bits <= _CODE_BITS.get(dtype.kind, 8) for dtype in codes
    ):
        return False
    return any(f"{module}.{scale}" in types for scale in _SCALES)
