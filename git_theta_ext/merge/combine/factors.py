"""Blend an adapter's factors by their product, and factor that again.

The mean of two updates B·A is not the product of the means of B and A. What is blended here is the
products: a weighted sum of them has a rank of up to all ranks together, and is cut where the result
is to have a smaller one; how much was cut off is said. A linear-algebra library is used, so the
last bits may differ from machine to machine, unlike those of every other strategy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.tensors import TensorInfo, cut
from git_theta_ext.core.values import beyond_range, from_floats, to_floats
from git_theta_ext.manifest.model import Block, Entry
from git_theta_ext.merge.decide.blends import Blend, Tables
from git_theta_ext.objects.blocks import Blocks

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Blended:
    """The factors of a blended product, by name; the share of its length that was cut off.

    `wrong` says why they cannot be taken, and is empty if they can.
    """

    entries: Mapping[str, Entry]
    error: float
    wrong: str = ""


def blend(plan: Blend, tables: Tables, blocks: Blocks) -> Blended:
    """Blend a product; the objects of its versions must be at hand.

    Raises:
        ThetaError: an object is missing or damaged, or the store cannot be written.
    """
    parts = [
        (weight, _read(left, blocks), _read(right, blocks))
        for weight, left, right in plan.entries(tables)
    ]
    if not all(np.isfinite(weight) and _finite(b) and _finite(a) for weight, b, a in parts):
        return Blended({}, 0.0, "a side holds NaN or infinite entries")
    left, right, error = factor(parts, plan.rank) if plan.alpha is None else joined(parts)
    entries, beyond = {}, 0
    for tensor, made in ((plan.left, left), (plan.right, right)):
        entries[tensor.name], high = _write(tensor, made, tables, blocks)
        beyond += high
    kind = plan.left.dtype.name
    why = f"{beyond:,} entries would be infinite or NaN, beyond the range of {kind}"
    return Blended(entries, error, why if beyond else "")


def joined(parts: Sequence[tuple[float, Floats, Floats]]) -> tuple[Floats, Floats, float]:
    """Factors of a weighted sum of products B·A, side by side: nothing is cut off."""
    left = np.concatenate([share * b for share, b, _ in parts], axis=1)
    return left, np.concatenate([a for _, _, a in parts], axis=0), 0.0


def factor(
    parts: Sequence[tuple[float, Floats, Floats]], rank: int
) -> tuple[Floats, Floats, float]:
    """The best factors of a rank of a weighted sum of products B·A, and what they miss of it.

    Returns:
        B, A, and the length of what was cut off as a share of that of the sum.
    """
    left, right, _ = joined(parts)
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
    cut_off = float(np.sqrt(np.sum(np.square(sizes[kept:]))))
    return b, a, cut_off / whole if whole > 0 else 0.0


def _finite(values: Floats) -> bool:
    return bool(np.isfinite(values).all())


def _read(entry: Entry, blocks: Blocks) -> Floats:
    specs = entry.specs()
    pieces = [
        to_floats(spec.dtype, blocks.read(spec, block))
        for spec, block in zip(specs, entry.blocks, strict=True)
    ]
    return np.concatenate(pieces).reshape(entry.tensor.shape)


def _write(tensor: TensorInfo, made: Floats, tables: Tables, blocks: Blocks) -> tuple[Entry, int]:
    """Store a factor, as an update of a version of its shape if there is one."""
    kin = next((old for table in tables if (old := table.get(tensor.name)) is not None
                and old.tensor == tensor), None)  # fmt: skip
    flat: NDArray[Any] = made.reshape(-1)
    found: list[Block] = []
    start = beyond = 0
    for number, spec in enumerate(cut(tensor)):
        values = from_floats(spec.dtype, flat[start : start + spec.count])
        high = beyond_range(spec.dtype, values)
        beyond += 0 if high is None else int(np.count_nonzero(high))
        predecessor = None if kin is None else kin.blocks[number]
        found.append(blocks.write(spec, values, predecessor=predecessor))
        start += spec.count
    return Entry(tensor, tuple(found)), beyond
