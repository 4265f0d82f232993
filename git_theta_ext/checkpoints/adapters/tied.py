"""Tied weights: an output head and the input embedding that are one tensor of the checkpoint.

Writers store tied weights once, under either name. An adapter may name both, or the one that is
not there. Where it changes both alike (PEFT's `ensure_weight_tying`), the tensor is changed once,
which is what the trained model computes with; else it is refused, for one tensor cannot be both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from git_theta_ext.checkpoints.adapters.base import Change, refuse
from git_theta_ext.checkpoints.adapters.changes import ComposedChange, LoraChange, WholeChange
from git_theta_ext.checkpoints.adapters.names import match_names
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.manifest.model import Entry

HEADS = ("lm_head", "embed_out", "output_projection")
EMBEDDINGS = (
    "embed_tokens", "wte", "embed_in", "word_embeddings", "shared", "tok_embeddings",
    "token_embedding",
)  # fmt: skip
UNTIE = (
    "untie the model (give the head a copy of its own, tie_word_embeddings=False), commit that, "
    "and apply the adapter to it; or train with ensure_weight_tying=True"
)


def _module(name: str) -> str:
    """The last part of the name of a parameter's module, of weights alone."""
    parts = name.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1] == "weight" else ""


def match(path: Path, wanted: Collection[str], tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Each wanted name's counterpart in the checkpoint; of tied names, the one that is there.

    Raises:
        UsageError: see `match_names`; or only the name that is not there is changed.
    """
    try:
        return dict(match_names(path, wanted, tensors))
    except UsageError:
        for missing, present in ((HEADS, EMBEDDINGS), (EMBEDDINGS, HEADS)):
            found = _match_tied(path, wanted, tensors, missing, present)
            if found is not None:
                return found
        raise


def _match_tied(
    path: Path,
    wanted: Collection[str],
    tensors: Mapping[str, TensorInfo],
    missing: Collection[str],
    present: Collection[str],
) -> dict[str, str] | None:
    """The names, if some are of a layer that the checkpoint has under a tied name; else None."""
    gone = [name for name in wanted if _module(name) in missing]
    there = [name for name in tensors if _module(name) in present]
    if not gone or len(there) != 1 or any(_module(name) in missing for name in tensors):
        return None
    rest = [name for name in wanted if name not in gone]
    try:
        names = dict(match_names(path, rest, tensors)) if rest else {}
    except UsageError:
        return None
    if there[0] not in names.values():
        raise refuse(
            path,
            f"changes {gone[0]!r} alone, but the checkpoint has only one tensor for it and "
            f"{there[0]!r} (they are tied): both would change",
            UNTIE,
        )
    return {**names, **dict.fromkeys(gone, there[0])}


def same(one: Change, other: Change) -> bool:
    """Whether two changes of one tensor are the same change."""
    if isinstance(one, ComposedChange) and isinstance(other, ComposedChange):
        return same(one.base, other.base) and same(one.then, other.then)
    if isinstance(one, WholeChange) and isinstance(other, WholeChange):
        return np.array_equal(one.values, other.values)
    if isinstance(one, LoraChange) and isinstance(other, LoraChange):
        return (
            one.scaling == other.scaling
            and np.array_equal(one.left, other.left)
            and np.array_equal(one.right, other.right)
        )
    return False


def notes(entries: Collection[Entry], changed: Collection[str]) -> list[str]:
    """Sentences on embeddings and heads of equal bytes of which only one changes."""
    ends = [e for e in entries if not e.opaque and _module(e.tensor.name) in HEADS + EMBEDDINGS]
    by_content: dict[object, list[str]] = {}
    for entry in ends:
        hashes = tuple(block.sha256 for block in entry.blocks)
        key = (entry.tensor.dtype, entry.tensor.shape, entry.tensor.order, hashes)
        by_content.setdefault(key, []).append(entry.tensor.name)
    heads = any(_module(entry.tensor.name) in HEADS for entry in ends)
    alone = [] if heads else [e.tensor.name for e in ends if e.tensor.name in changed]
    return [
        *(
            f"if the model ties its head to {name!r}, the head changes too, as in a merge by PEFT"
            for name in alone
        )
    ] + [
        f"{kept!r} has the bytes that {name!r} had, and stays as it is: if your model ties them, "
        "give both the same values before you commit"
        for names in by_content.values()
        for name in names
        for kept in names
        if name in changed and kept not in changed
    ]
