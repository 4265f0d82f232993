"""Several LoRA adapters as one, each with a weight, as PEFT's `add_weighted_adapter` joins them.

    cat      the factors side by side: A is weight × scaling × A, and the ranks add. The change is
             the weighted sum of the changes.
    linear   one pair of factors, each the sum of all, times the root of weight × scaling. Quicker
             in a model that runs both; the products of one's A and the other's B come along.

PEFT 0.21, `tuners/lora/model.py`. A new adapter has the dtype of the weights there, so on 16-bit
weights `cat` rounds the factors to it, and then the change; `linear` stays in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import Adapter, Change, refuse
from git_theta_ext.checkpoints.adapters.changes import ComposedChange, LoraChange
from git_theta_ext.checkpoints.adapters.peft_config import MERGE
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DType, TensorInfo
from git_theta_ext.core.values import values_dtype
from git_theta_ext.updates.arithmetic import narrow, widen

Kind = Literal["cat", "linear"]
_DTYPES = ("F32", "BF16", "F16")
KINDS: tuple[Kind, ...] = ("cat", "linear")


@dataclass(frozen=True, slots=True)
class Weighted:
    """An adapter that was bound to a checkpoint, and its weight; `path` is for messages."""

    path: Path
    config: Mapping[str, Any]
    adapter: Adapter
    weight: float


def weights(text: str, count: int) -> list[float]:
    """The numbers of `0.7,0.3`.

    Args:
        text: as it was given.
        count: of the adapters.

    Raises:
        UsageError: they are no finite numbers, or not as many as there are adapters.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--weights {text}: expected numbers, with commas between them") from error
    if not all(map(math.isfinite, found)):
        raise UsageError(f"--weights {text}: a weight is no finite number")
    if len(found) != count:
        raise UsageError(f"--weights {text}: {len(found)} for {count} of --update")
    return found


def joined(several: Sequence[Weighted], kind: Kind, tensors: Mapping[str, TensorInfo]) -> Adapter:
    """One adapter of all; the notes of each are kept.

    Args:
        several: of one checkpoint.
        kind: see above. One adapter alone is always joined by `linear`, as PEFT does.
        tensors: the checkpoint's, by name.

    Raises:
        UsageError: one of them has more than factors of a plain LoRA, or PEFT refuses them too, or
            their factors do not fit together.
    """
    if len(several) == 1:
        kind = "linear"
    for one in several:
        _check(one)
    if kind == "linear":
        _check_ranks(several)
    names = list(dict.fromkeys(name for one in several for name in one.adapter.changes))
    changes: dict[str, Change] = {}
    for name in names:
        if tensors[name].dtype.name not in _DTYPES:
            raise refuse(
                several[0].path,
                f"tensor {name!r} is {tensors[name].dtype.name}: adapters are weighed for "
                f"{', '.join(_DTYPES)}",
                MERGE,
            )
        parts = [(one, one.adapter.changes[name]) for one in several if name in one.adapter.changes]
        base = _base(name, parts)
        factors = [(one, _lora(one, name, change)) for one, change in parts]
        made = _cat(factors, tensors[name].dtype) if kind == "cat" else _linear(factors)
        changes[name] = made if base is None else ComposedChange(base.base, made)
    said = f"{kind} of {len(several)} adapters: " + "; ".join(
        f"{one.weight:g} × {one.adapter.summary}" for one in several
    )
    notes = dict.fromkeys(note for one in several for note in one.adapter.notes)
    return Adapter("lora", said, changes, tuple(notes))


def _check(one: Weighted) -> None:
    """Refuse what PEFT does not weigh, or weighs in another way than it says."""
    if one.config.get("use_rslora"):
        raise refuse(
            one.path,
            "cannot be weighed: use_rslora is set, and PEFT multiplies such a sum by the root of "
            "its rank",
            MERGE,
        )


def _check_ranks(several: Sequence[Weighted]) -> None:
    """`linear` adds factors entry by entry."""
    ranks = {}
    for one in several:
        pattern = one.config.get("rank_pattern") or {}
        ranks[str(one.path)] = max(
            (rank for rank in (one.config.get("r"), *pattern.values()) if isinstance(rank, int)),
            default=0,
        )
    if len(set(ranks.values())) > 1:
        said = ", ".join(f"{path}: {rank}" for path, rank in ranks.items())
        raise UsageError(
            f"--combine linear needs adapters of one rank ({said})", hint="use --combine cat"
        )


def _base(name: str, parts: Sequence[tuple[Weighted, Change]]) -> ComposedChange | None:
    """The layer that some of them wrote beside their factors; the same in all of these."""
    composed = [(one, change) for one, change in parts if isinstance(change, ComposedChange)]
    for one, change in composed[1:]:
        if not np.array_equal(change.base.values, composed[0][1].base.values):
            raise refuse(one.path, f"has another base layer of {name!r} than {composed[0][0].path}")
    return composed[0][1] if composed else None


def _lora(one: Weighted, name: str, change: Change) -> LoraChange:
    inner = change.then if isinstance(change, ComposedChange) else change
    if not isinstance(inner, LoraChange):
        raise refuse(
            one.path,
            f"cannot be weighed: it changes {name!r} by more than the factors of a plain LoRA",
            "apply it alone (git theta add FILE --update ADAPTER), commit, and add the others to "
            "that",
        )
    return inner


Factors = Sequence[tuple[Weighted, LoraChange]]


def _sides(change: LoraChange) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A as ranks × inputs and B as outputs × ranks, of whichever layout."""
    if change.flipped:
        return change.left.T, change.right.T
    return change.right, change.left


def _of_sides(
    like: LoraChange, down: NDArray[np.float32], up: NDArray[np.float32], order: str
) -> LoraChange:
    """The change with other factors, in the layout of `like`."""
    left, right = (down.T, up.T) if like.flipped else (up, down)
    return replace(
        like, left=np.ascontiguousarray(left), right=np.ascontiguousarray(right), scaling=1.0,
        order=order,
    )  # fmt: skip


def _cat(factors: Factors, dtype: DType) -> LoraChange:
    """Factors side by side; those of 16-bit weights have the weights' dtype."""
    downs, ups = [], []
    for one, change in factors:
        down, up = _sides(change)
        with np.errstate(over="ignore", invalid="ignore"):
            downs.append(down * np.float32(one.weight) * np.float32(change.scaling))
        ups.append(up)
    down, up = np.concatenate(downs), np.concatenate(ups, axis=1)
    order = factors[0][1].order
    if dtype.bits < 32:
        down, up, order = _rounded(dtype, down), _rounded(dtype, up), "rounded"
    return _of_sides(factors[0][1], down, up, order)


def _rounded(dtype: DType, array: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = array.ravel()
    bits = narrow(dtype, flat, np.zeros(flat.size, values_dtype(dtype)))
    return np.asarray(widen(dtype, bits), np.float32).reshape(array.shape)


def _linear(factors: Factors) -> LoraChange:
    """Sums of the factors; the sign of a weight goes to A."""
    sums: list[NDArray[np.float32]] = []
    for side in (0, 1):
        total: NDArray[np.float32] | None = None
        for one, change in factors:
            scaled = one.weight * change.scaling
            root = math.sqrt(abs(scaled))
            with np.errstate(over="ignore", invalid="ignore"):
                part = _sides(change)[side] * np.float32(-root if scaled < 0 and not side else root)
                if total is not None and total.shape != part.shape:
                    raise refuse(
                        one.path,
                        f"its factors of {change.name!r} are of another rank than those of "
                        f"{factors[0][0].path}",
                        "use --combine cat",
                    )
                total = part if total is None else total + part
        assert total is not None, "a tensor that is changed has factors"
        sums.append(total)
    down, up = sums
    return _of_sides(factors[0][1], down, up, factors[0][1].order)
