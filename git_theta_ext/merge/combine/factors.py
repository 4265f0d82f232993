"""Blend an adapter's factors by their product, and factor that again, to the rank that they had.

The mean of two updates B·A is not the product of the means of B and A. What is blended here is the
products: a weighted sum of them has a rank of up to all ranks together, and is cut to the sides'
rank where it is larger; how much was cut off is said. A linear-algebra library is used, so the last
bits may differ from machine to machine, unlike those of every other strategy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.manifest.model import Block, Entry
from git_theta_ext.merge.combine.values import beyond_range, from_floats, to_floats
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.objects.blocks import Blocks

STRATEGIES = ("average", "task-arithmetic", "reapply")
"""Those that are a weighted sum of the versions."""

_BYTES = 1 << 30
"""Memory for one product's factors, in float64; larger ones stay open."""

_LEFT = re.compile(r"lora_(embedding_)?B(?=[./]|$)")
_RIGHT = re.compile(r"lora_(embedding_)?A(?=[./]|$)")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Product:
    """The names of the two factors of B·A."""

    left: str
    right: str


def product_of(members: Sequence[str]) -> Product | None:
    """The factors among the tensors of a group, if it is a plain pair of LoRA."""
    left = [name for name in members if _LEFT.search(name)]
    right = [name for name in members if _RIGHT.search(name)]
    if len(members) != 2 or len(left) != 1 or len(right) != 1:
        return None
    return Product(left[0], right[0])


def is_linear(members: Sequence[str], choice: Choice) -> bool:
    """Whether a strategy on the one factor that changed is the same as on the product."""
    return len(members) == 1 and choice.strategy in STRATEGIES


def can_blend(
    members: Sequence[str], tables: Sequence[Mapping[str, Entry]], choice: Choice
) -> bool:
    """Whether factors can be blended by a strategy: a pair of LoRA, of one rank in all versions.

    Args:
        members: of a group of factors; a factor that no side changed is not among them.
        tables: the tensors of ours, of theirs and of the base.
        choice: the strategy.
    """
    pair = product_of(members)
    if pair is None or choice.strategy not in STRATEGIES or dict(choice.settings).get("weights"):
        return False
    versions = [tables[0], tables[1], *([tables[2]] if tables[2] else [])]
    if len(versions) < 3 and choice.strategy != "average":
        return False
    if len(versions) == 3 and choice.strategy == "average":
        versions = versions[:2]
    entries = [[table.get(name) for table in versions] for name in (pair.left, pair.right)]
    for row in entries:
        infos = {(one.tensor.shape, one.tensor.dtype, one.tensor.order) for one in row if one}
        if None in row or len(infos) != 1:
            return False
    left, right = (row[0].tensor for row in entries if row[0] is not None)
    return _plain(left) and _plain(right) and left.shape[1] == right.shape[0] and (
        24 * left.shape[1] * (left.shape[0] + right.shape[1]) <= _BYTES
    )  # fmt: skip


def _plain(tensor: TensorInfo) -> bool:
    matrix = len(tensor.shape) == 2 and tensor.order is None and min(tensor.shape) > 0
    return matrix and tensor.dtype.kind == "float"


@dataclass(frozen=True, slots=True)
class Blended:
    """The factors of a blended product, by name; the share of its length that was cut off.

    `beyond` counts entries that would be infinite or NaN.
    """

    entries: Mapping[str, Entry]
    error: float
    beyond: int


def blend(
    pair: Product, tables: Sequence[Mapping[str, Entry]], choice: Choice, blocks: Blocks
) -> Blended:
    """Blend a product of which `can_blend` holds; its objects must be at hand.

    Raises:
        ThetaError: an object is missing or damaged, or the store cannot be written.
    """
    parts = [
        (share, _read(table[pair.left], blocks), _read(table[pair.right], blocks))
        for share, table in zip(_shares(choice, bool(tables[2])), tables, strict=True)
        if share
    ]
    rank = parts[0][1].shape[1]
    left, right, error = factor(parts, rank)
    entries, beyond = {}, 0
    for name, made in ((pair.left, left), (pair.right, right)):
        entries[name], high = _write(tables[0][name], made, blocks)
        beyond += high
    return Blended(entries, error, beyond)


def _shares(choice: Choice, based: bool) -> tuple[float, float, float]:
    """How much of ours, theirs and the base a strategy's sum has."""
    given = dict(choice.settings).get("lambda", 1.0)
    length = float(given) if isinstance(given, float | int) else 1.0
    if choice.strategy == "average" or not based:
        return 0.5, 0.5, 0.0
    if choice.strategy == "reapply":
        return 1.0, length, -length
    return length, length, 1.0 - 2 * length


def factor(
    parts: Sequence[tuple[float, Floats, Floats]], rank: int
) -> tuple[Floats, Floats, float]:
    """The best factors of a rank of a weighted sum of products B·A, and what they miss of it.

    Returns:
        B, A, and the length of what was cut off as a share of that of the sum.
    """
    left = np.concatenate([share * b for share, b, _ in parts], axis=1)
    right = np.concatenate([a for _, _, a in parts], axis=0)
    q, upper = np.linalg.qr(left)
    p, lower = np.linalg.qr(right.T)
    u, sizes, vt = np.linalg.svd(upper @ lower.T, full_matrices=False)
    signs = np.where(np.sum(u, axis=0) < 0, -1.0, 1.0)
    kept = min(rank, len(sizes))
    roots = np.sqrt(sizes[:kept])
    b = np.zeros((left.shape[0], rank))
    a = np.zeros((rank, right.shape[1]))
    b[:, :kept] = (q @ (u * signs)[:, :kept]) * roots
    a[:kept] = roots[:, None] * ((vt * signs[:, None])[:kept] @ p.T)
    whole = float(np.sqrt(np.sum(np.square(sizes))))
    cut = float(np.sqrt(np.sum(np.square(sizes[kept:]))))
    return b, a, cut / whole if whole > 0 else 0.0


def _read(entry: Entry, blocks: Blocks) -> Floats:
    specs = entry.specs()
    pieces = [
        to_floats(spec.dtype, blocks.read(spec, block))
        for spec, block in zip(specs, entry.blocks, strict=True)
    ]
    return np.concatenate(pieces).reshape(entry.tensor.shape)


def _write(entry: Entry, made: Floats, blocks: Blocks) -> tuple[Entry, int]:
    flat: NDArray[Any] = made.reshape(-1)
    found: list[Block] = []
    start = beyond = 0
    for spec, old in entry.parts():
        values = from_floats(spec.dtype, flat[start : start + spec.count])
        high = beyond_range(spec.dtype, values)
        beyond += 0 if high is None else int(np.count_nonzero(high))
        found.append(blocks.write(spec, values, predecessor=old))
        start += spec.count
    return Entry(entry.tensor, tuple(found)), beyond
